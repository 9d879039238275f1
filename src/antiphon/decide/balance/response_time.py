"""Response time: the instance with the lowest moving average of round trips (alpha 0.3), fading while it is not asked.

Simple, and it herds: everybody asks the fastest until it is not the fastest any more. `peak_ewma` and `prequal` count
requests in flight as well.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import by_rank, latency_us
from antiphon.decide.load import InstanceLoad, Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = True


class Strategy:
    """No state."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the candidates, the fastest first."""
        return by_rank(candidates, loads, now_ms, dice, expected_us)


def expected_us(load: InstanceLoad, now_ms: int) -> float:
    """Return the expected round trip, and a much longer one for an instance that fails."""
    known = latency_us(load, now_ms)
    return known + _SHUNNED if load.failures and load.is_shunned(now_ms) else known


_SHUNNED = 1e15
