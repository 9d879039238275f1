"""How each instance is: what pings, heartbeats and answers say of it, and one number for how loaded it is.

Two things decide whether an instance is up, and each can be false alone: it *beats* (its process lives), and it
*answers* on its lane. Three pings in a row without an answer, or three missed heartbeats, mark it down; the rule and
the state are the registry's (`decide/registry.py`: `is_up`), which is told of each ping. One that is down is pinged
on, less and less often, at once when it beats, and the first answer brings it back. A beat does not forgive a missed
ping: a process that beats and does not answer is of no use.

Who may move what. `active`, `draining` and `suspended` are an operator's wish, kept in the node's card and changed by
operators' requests only; up and down are what is heard. They are two facts and not one, so neither can overwrite the
other: a suspended node that dies and comes back is suspended, and resuming one that is dead shows it as down.

The load score, 0 (idle) to 1 (do not ask it):

    load = 0.5 * min(1, in_flight / capacity)            how full
         + 0.3 * max(0, 1 - median / latency)            how much slower than the node's median instance
         + 0.2 * failure_share                           how often it fails of late
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from statistics import median_low
from typing import Final

LATENCY_ALPHA: Final = 0.3
"""Of the newest response time in the average; half of it is the last two."""
FAILURE_ALPHA: Final = 0.1
"""Of the newest outcome; half of it is the last seven."""
IN_FLIGHT_WEIGHT: Final = 0.5
LATENCY_WEIGHT: Final = 0.3
FAILURE_WEIGHT: Final = 0.2


@dataclass(frozen=True, slots=True)
class HealthBounds:
    """How often is asked, and how much silence is borne."""

    ping_ms: int = 2_000
    """From an answer to the next ping."""
    ping_ms_max: int = 30_000
    """How often at least one that is down is tried again."""
    wait_ms: int = 1_000
    """How long a ping is waited for."""
    in_flight_max: int = 64
    """Pings at once; the others wait for the next round."""
    misses_max: int = 3
    """Misses from which on pings come less often; the registry calls it down from then on."""
    capacity: int = 64
    """Requests in flight that count as full where the node names no `max_parallel_requests`."""


class Vitals:
    """One instance as this master sees it."""

    __slots__ = ("_ping_at_ms", "bounds", "failure_share", "has_answered", "in_flight", "latency_us", "misses")

    def __init__(self, bounds: HealthBounds, now_ms: int) -> None:
        self.bounds = bounds
        self.misses = 0
        """Pings in a row without an answer."""
        self.has_answered = False
        """Whether it ever answered a ping."""
        self.latency_us = 0.0
        """A moving average of how long pings take, there and back; 0 = none yet."""
        self.failure_share = 0.0
        self.in_flight = 0
        """As the instance said last: requests from all masters."""
        self._ping_at_ms = now_ms

    def beat(self, in_flight: int, now_ms: int) -> None:
        """Hear a heartbeat; one that is down for want of answers is pinged at once."""
        self.in_flight = in_flight
        if self.misses >= self.bounds.misses_max:
            self._ping_at_ms = now_ms

    def asked(self, now_ms: int) -> None:
        """Note that a ping was sent: no other one while it is waited for."""
        self._ping_at_ms = now_ms + max(self.bounds.wait_ms, self.bounds.ping_ms)

    def answered(self, latency_us: int, now_ms: int, in_flight: int | None = None) -> None:
        """Hear the answer to a ping."""
        old = self.latency_us
        self.latency_us = old + LATENCY_ALPHA * (latency_us - old) if old else float(latency_us)
        self.failure_share -= FAILURE_ALPHA * self.failure_share
        if in_flight is not None:
            self.in_flight = in_flight
        self.misses = 0
        self.has_answered = True
        self._ping_at_ms = now_ms + self.bounds.ping_ms

    def searched(self, answered: int, failed: int) -> None:
        """Note what came of searches; whether the instance is down is left to pings."""
        self.failure_share *= (1 - FAILURE_ALPHA) ** answered
        self.failure_share = 1 - (1 - self.failure_share) * (1 - FAILURE_ALPHA) ** failed

    def ping_missed(self, now_ms: int) -> None:
        """Note a ping that was not answered in time."""
        self.misses += 1
        self.searched(0, 1)
        # bounded before it is shifted: an instance may be down for weeks
        beyond = min(max(0, self.misses - self.bounds.misses_max), 16)
        self._ping_at_ms = now_ms + min(self.bounds.ping_ms << beyond, self.bounds.ping_ms_max)

    def is_ping_due(self, now_ms: int) -> bool:
        """Whether to ping it now; every outcome of a ping has to be told, for it says when the next is due."""
        return now_ms >= self._ping_at_ms

    def load(self, median_us: float, capacity: int) -> float:
        """Return the load score; see the formula above."""
        fullness = min(1.0, self.in_flight / capacity)
        slowness = max(0.0, 1 - median_us / self.latency_us) if self.latency_us else 0.0
        return IN_FLIGHT_WEIGHT * fullness + LATENCY_WEIGHT * slowness + FAILURE_WEIGHT * self.failure_share


@dataclass(frozen=True, slots=True)
class InstanceHealth:
    """One line of a health report."""

    instance: str
    is_up: bool
    latency_us: int
    misses: int
    in_flight: int
    failure_share: float
    load: float


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """A node's health report."""

    node: str
    load: float
    """Of its instances that are up, on average; 1 when there is none."""
    instances: tuple[InstanceHealth, ...]


def report(node: str, vitals: Mapping[str, Vitals], alive: Collection[str], capacity: int) -> NodeHealth:
    """Return a node's health; `alive` is whom the registry hears, `capacity` what one instance may have in flight."""
    known = [one.latency_us for one in vitals.values() if one.latency_us]
    median_us = median_low(known) if known else 0.0
    lines = tuple(
        InstanceHealth(
            instance=name,
            is_up=name in alive,
            latency_us=round(one.latency_us),
            misses=one.misses,
            in_flight=one.in_flight,
            failure_share=one.failure_share,
            load=one.load(median_us, capacity),
        )
        for name, one in sorted(vitals.items())
    )
    loads = [line.load for line in lines if line.is_up]
    return NodeHealth(node, sum(loads) / len(loads) if loads else 1.0, lines)
