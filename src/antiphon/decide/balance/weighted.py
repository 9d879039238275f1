"""Weighted: shares follow the registered weights exactly, and a heavy instance's turns are spread evenly.

Smooth weighted round robin (nginx, commit 52327e0627f49dbda1e8db695e63a4b0af4448b1, 2012): every turn each gains its
weight, the richest is picked and pays the sum. Weight 0 is asked only when nobody else is there.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.load import Loads

KEEPS_WEIGHTS = True
AVOIDS_FAILING = False


class Strategy:
    """What each instance has gained; one that could not be asked for a while keeps what it had."""

    __slots__ = ("_gained",)

    def __init__(self) -> None:
        self._gained: dict[str, int] = {}

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the richest first, the others as they follow."""
        del now_ms, dice
        gained = self._gained
        total = 0
        for name in candidates:
            weight = loads[name].weight
            total += weight
            gained[name] = gained.get(name, 0) + weight if weight else -_LAST
        if not total:
            return self._light(candidates)
        ranked = sorted(candidates, key=gained.__getitem__, reverse=True)
        gained[ranked[0]] -= total
        if len(gained) > 2 * len(candidates) + _GONE_MAX:
            self._gained = {name: gained[name] for name in candidates}
        return tuple(ranked)

    def _light(self, candidates: tuple[str, ...]) -> tuple[str, ...]:
        """Return those without a weight in turn: they are all that is left."""
        turn = self._gained[""] = self._gained.get("", 0) + 1
        at = turn % len(candidates) if candidates else 0
        return candidates[at:] + candidates[:at]


_LAST = 2**62
_GONE_MAX = 64
