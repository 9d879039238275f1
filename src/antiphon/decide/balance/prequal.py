"""Prequal: among the instances that are not hot by requests in flight, the one with the lowest latency.

An instance is hot when its requests in flight exceed the given quantile of those of all; when all are hot the one with
the fewest is asked (Wydrowski, Kleinberg, Rumble, Archer: Load is not what you should balance, NSDI 2024). Requests
in flight lead, latency follows: the first rise before a queue hurts. The paper's probe messages are replaced by what
rides on replies and heartbeats, and by this master's own counts.
"""

from __future__ import annotations

from random import Random

from antiphon.decide.balancing import latency_us, rotated
from antiphon.decide.load import TOLD_MS_MAX, Loads

KEEPS_WEIGHTS = False
AVOIDS_FAILING = True
HOT_QUANTILE = 0.84
"""The paper's best, 2^-0.25."""


class Strategy:
    """No state: what the paper keeps in a pool of probes stands in the loads."""

    __slots__ = ()

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the cold ones by latency, then the hot ones by requests in flight, then the shunned ones."""
        total = len(candidates)
        if total < 2:  # noqa: PLR2004 - one has no rank
            return candidates
        names = rotated(candidates, dice)
        known = [loads[name] for name in names]
        told_ms = now_ms - TOLD_MS_MAX  # as `InstanceLoad.queue`, without its call for each of ten nodes' instances
        queues = [one.in_flight + one.others_in_flight if one.told_ms > told_ms else one.in_flight for one in known]
        hot = sorted(queues)[int(HOT_QUANTILE * (total - 1))]
        ranks: dict[str, float] = {}
        for name, load, queue in zip(names, known, queues, strict=True):
            if load.failures and load.is_shunned(now_ms):
                ranks[name] = _SHUNNED + queue
            else:
                ranks[name] = _HOT + queue if queue > hot else latency_us(load, now_ms)
        return tuple(sorted(names, key=ranks.__getitem__))


_HOT = 1e13
_SHUNNED = 1e15
