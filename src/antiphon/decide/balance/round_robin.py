"""Round robin: each instance in turn, so that shares are equal and none starves."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from antiphon.decide.load import Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = False


class Strategy:
    """The turn of one node; it begins anywhere, so that many masters do not march in step."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = -1

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the candidates from the next one on."""
        del loads, now_ms
        self._turn = self._turn + 1 if self._turn >= 0 else int(dice.random() * 720_720)
        return order(self._turn, candidates)


def order(turn: int, instances: Sequence[str]) -> tuple[str, ...]:
    """Return the instances in the order in which to try them on the given turn.

    The first is asked; the others follow when it turns out that nobody listens there.
    """
    if len(instances) < 2:  # noqa: PLR2004 - one has no turn
        return tuple(instances)
    at = turn % len(instances)
    return (*instances[at:], *instances[:at])
