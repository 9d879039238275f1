"""Least connections: the instance with the fewest of this master's requests in flight; ties are drawn.

Failing at once is no way to have few: an instance whose last request failed comes after all others for a while.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import rotated
from antiphon.decide.load import Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = True


class Strategy:
    """No state."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the candidates, the least busy first."""
        if len(candidates) < 2:  # noqa: PLR2004 - one has no rank
            return candidates

        def rank(name: str) -> int:
            load = loads[name]
            return load.in_flight + _SHUNNED if load.failures and load.is_shunned(now_ms) else load.in_flight

        return tuple(sorted(rotated(candidates, dice), key=rank))


_SHUNNED = 2**40
