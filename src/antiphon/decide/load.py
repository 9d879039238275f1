"""What one master knows of how busy, how slow and how sound each instance of a node is; all balancers read this.

Counted here: requests in flight, round trips, failures. Told by the instance on replies and heartbeats: its own
requests in flight (those of other masters among them) and handling time. What is measured here is believed before
what is told, so that an instance cannot draw traffic by telling fairy tales. The state is changed in place, a few
times a reply, on the hot path.

A failure never looks fast: its time can only raise an estimate, and the instance is shunned for a while that doubles
with each failure in a row; then one request at a time tries it until one succeeds. Whoever answers "no" in a
microsecond otherwise attracts every request there is (the sinkhole of Wydrowski et al., NSDI 2024, section 4).
Estimates that nobody renews fade, so that a slow instance is tried again now and then and none starves.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from types import TracebackType
from typing import Self

from antiphon.decide.ending import Ending

ALPHA = 0.3
"""The weight of the newest round trip in the moving average, more when the last one is long ago."""
FADE_MS = 10_000
"""An estimate that is not renewed shrinks to 1/e within this (Finagle's default decay)."""
SHUN_MS = 100
SHUN_MS_MAX = 10_000
"""After the first failure, and after many in a row."""
LEFT_US_MIN = 10_000
"""Of an instance that nobody has measured, a shorter wait that was ended says nothing: its asker left at once."""
TOLD_MS_MAX = 3_000
"""What an instance told is used for as long as three heartbeats."""


class InstanceLoad:
    """What is known of one instance; latencies in microseconds, 0 when there is none yet."""

    __slots__ = (
        "asked_ms",
        "failures",
        "in_flight",
        "latency_us",
        "measured_ms",
        "others_in_flight",
        "peak_us",
        "shunned_until_ms",
        "told_latency_us",
        "told_ms",
        "weight",
    )

    def __init__(self, weight: int = 100) -> None:
        self.weight = weight
        self.in_flight = 0
        """Of this master."""
        self.others_in_flight = 0
        """Of everybody else, as it told."""
        self.told_latency_us = 0
        self.told_ms = -TOLD_MS_MAX
        self.latency_us = 0.0
        """Moving average of round trips as this master saw them."""
        self.peak_us = 0.0
        """The same, but a rise is believed at once and a fall slowly (`peak_ewma`)."""
        self.measured_ms = 0
        self.asked_ms = 0
        self.failures = 0
        """In a row."""
        self.shunned_until_ms = 0

    def is_shunned(self, now_ms: int) -> bool:
        """Whether its last request failed and it is not yet, or is just now, being tried again."""
        return self.failures > 0 and (self.in_flight > 0 or now_ms < self.shunned_until_ms)

    def queue(self, now_ms: int) -> int:
        """Return its requests in flight, those of other masters included as long as what it told is fresh."""
        return self.in_flight + (self.others_in_flight if now_ms - self.told_ms < TOLD_MS_MAX else 0)


class Flight:
    """One request on its way to one instance: it ends exactly once, whoever says so first.

    As a context it ends as abandoned when nothing else ended it, so that a request that dies leaves no count behind.
    """

    __slots__ = ("_load", "is_over")

    def __init__(self, load: InstanceLoad) -> None:
        self._load = load
        self.is_over = False

    def ended(self, ending: Ending, took_us: int, now_ms: int) -> None:
        """Take how it ended; a second time changes nothing."""
        if self.is_over:
            return
        self.is_over = True
        load = self._load
        load.in_flight -= 1
        if ending is Ending.SUCCEEDED:
            load.failures = 0
            _measure(load, took_us, now_ms)
        elif ending is not Ending.ABANDONED:
            load.failures += 1
            load.shunned_until_ms = now_ms + min(SHUN_MS_MAX, SHUN_MS << min(load.failures - 1, 16))
            if took_us > load.latency_us:
                _measure(load, took_us, now_ms)

    def abandoned(self, waited_us: int = 0, now_ms: int = 0) -> None:
        """End without an answer: cancelled, or its hedge won. It takes at least as long as was waited for it.

        Were that not learned, an instance that always loses to its hedges would keep the estimate of better days.
        """
        if not self.is_over:
            self.is_over = True
            self._load.in_flight -= 1
            if waited_us > (self._load.latency_us or LEFT_US_MIN):
                _measure(self._load, waited_us, now_ms)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandoned()


def _measure(load: InstanceLoad, took_us: int, now_ms: int) -> None:
    kept = fading(now_ms - load.measured_ms)
    known = load.latency_us
    load.latency_us = took_us + (known - took_us) * (1.0 - ALPHA) * kept if known else float(took_us)
    load.peak_us = max(float(took_us), took_us + (load.peak_us - took_us) * kept)
    load.measured_ms = now_ms


def fading(idle_ms: int) -> float:
    """Return what is left of an estimate that nobody renewed for so long, as a share."""
    return exp(-idle_ms / FADE_MS) if idle_ms > FADE_MS // 100 else 1.0


class Loads(dict[str, InstanceLoad]):
    """The instances of one node by name; one that is asked for the first time is made on the way."""

    def __missing__(self, instance: str) -> InstanceLoad:
        load = self[instance] = InstanceLoad()
        return load

    def started(self, instance: str, now_ms: int) -> Flight:
        """Count a request, until its flight ends."""
        load = self[instance]
        load.in_flight += 1
        load.asked_ms = now_ms
        return Flight(load)

    def told(self, instance: str, in_flight: int, latency_us: int, now_ms: int) -> None:
        """Take what an instance told of itself, on a reply or a heartbeat."""
        load = self[instance]
        load.others_in_flight = max(0, in_flight - load.in_flight)
        load.told_latency_us = latency_us
        load.told_ms = now_ms

    def weigh(self, weights: Mapping[str, int]) -> None:
        """Take the registered instances and their weights, and forget all others.

        The flights of those that are gone still end, and count nowhere.
        """
        for instance in self.keys() - weights.keys():
            del self[instance]
        for instance, weight in weights.items():
            self[instance].weight = weight
