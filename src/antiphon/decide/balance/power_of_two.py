"""Power of two choices: of two instances drawn at random, the one with fewer requests in flight.

Nearly as even as looking at all of them, and masters that know the same do not all pick the same one (Mitzenmacher,
The Power of Two Choices in Randomized Load Balancing, 2001). Requests of other masters count as the instance told.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import two_of
from antiphon.decide.load import Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = True


class Strategy:
    """No state."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the less busy one of two, the other, and the rest."""
        if len(candidates) < 2:  # noqa: PLR2004 - one has no choice
            return candidates
        drawn = two_of(candidates, dice)
        one, other = loads[drawn[0]], loads[drawn[1]]
        if (one.is_shunned(now_ms), one.queue(now_ms)) <= (other.is_shunned(now_ms), other.queue(now_ms)):
            return drawn
        return (drawn[1], drawn[0], *drawn[2:])
