"""Least connections: the instance with the fewest of this master's requests in flight; ties are drawn.

Failing at once is no way to have few: an instance whose last request failed comes after all others for a while.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import by_rank
from antiphon.decide.load import InstanceLoad, Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = True


class Strategy:
    """No state."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the candidates, the least busy first."""
        return by_rank(candidates, loads, now_ms, dice, in_flight)


def in_flight(load: InstanceLoad, now_ms: int) -> int:
    """Return the requests in flight, and many more for an instance that fails."""
    return load.in_flight + _SHUNNED if load.failures and load.is_shunned(now_ms) else load.in_flight


_SHUNNED = 2**40
