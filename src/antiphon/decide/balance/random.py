"""Random: any instance with the same chance, which needs no state and never falls into step with anybody."""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import rotated
from antiphon.decide.load import Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = False


class Strategy:
    """No state."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the candidates from a random one on."""
        del loads, now_ms
        return rotated(candidates, dice)
