"""Power of two choices: of two instances drawn at random, the one with fewer requests in flight.

Nearly as even as looking at all of them, and masters that know the same do not all pick the same one (Mitzenmacher,
The Power of Two Choices in Randomized Load Balancing, 2001). Requests of other masters count as the instance told.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import better_of_two
from antiphon.decide.load import InstanceLoad, Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = True


class Strategy:
    """No state."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the less busy one of two, the other, and the rest."""
        return better_of_two(candidates, loads, now_ms, dice, queue)


def queue(load: InstanceLoad, now_ms: int) -> int:
    """Return the requests in flight, and many more for an instance that fails."""
    waiting = load.queue(now_ms)
    return waiting + _SHUNNED if load.is_shunned(now_ms) else waiting


_SHUNNED = 2**40
