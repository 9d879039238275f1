"""Peak EWMA: of two instances drawn at random, the one with the lower expected cost, latency times requests in flight.

A rise of latency is believed at once, a fall slowly, so that a stall is left alone after its first late reply (Finagle,
`Balancers.p2cPeakEwma`; Linkerd). The estimate fades while nothing is measured, so that a slow one is tried again.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import better_of_two
from antiphon.decide.load import InstanceLoad, Loads, fading

KEEPS_WEIGHTS = False
AVOIDS_FAILING = True


class Strategy:
    """No state: the peaks stand in the loads."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the cheaper one of two, the other, and the rest."""
        return better_of_two(candidates, loads, now_ms, dice, cost)


def cost(load: InstanceLoad, now_ms: int) -> float:
    """Return the expected cost of one more request."""
    if load.failures and load.is_shunned(now_ms):
        return _SHUNNED + load.in_flight
    peak = load.peak_us or float(load.told_latency_us)
    if not peak:
        return _UNKNOWN_US * load.in_flight
    return peak * fading(now_ms - max(load.measured_ms, load.asked_ms)) * (load.queue(now_ms) + 1)


_UNKNOWN_US = 1e12
_SHUNNED = 1e15
