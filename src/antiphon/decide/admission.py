"""Admission: how many searches a master takes on at once, learned from how long they wait for its attention.

Intuition. An overloaded event loop shows as time between a question's arrival and the moment it is looked at. That
*standing* delay, the least of an interval, is what CoDel controls (Nichols & Jacobson, RFC 8289): a burst makes some
wait and is gone, but when even the luckiest of 100 ms waited too long, the queue does not drain. WeChat's DAGOR (SoCC
2018) sheds by the same signal, for a reason that holds here, too: response times (Netflix's Vegas and gradient limits)
also rise when a node is slow, and then a master that is idle would refuse work. A slow node is not our overload.

The valve is the number of searches in flight: it acts at once, and each search that ends lets the next one in. A
standing delay above the target shrinks it in proportion, down to half; without one it grows by a tenth each interval
in which it was reached. It starts wide open, so whoever is never overloaded never sees it. What is refused is refused
before any work, with a time to come back that grows with the crowd.
"""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.decide.limit import ALLOWED, Verdict


@dataclass(frozen=True, slots=True)
class AdmissionBounds:
    """The limits of the valve."""

    target_ms: int = 10
    """A standing delay that is still fine: a few searches' worth of work in front of each."""
    interval_ms: int = 100
    """How long a delay has to stand; about the longest burst that should be borne."""
    limit_min: int = 4
    limit_max: int = 1_024
    """`conversations_max`: the limit that memory sets."""
    shrink_min: float = 0.5
    grow: float = 0.1
    retry_after_ms_max: int = 5_000


class Admission:
    """One master's valve; `enter` and `leave` take 0.3 us together."""

    __slots__ = (
        "_ends_ms",
        "_entered",
        "_least_ms",
        "_peak",
        "_refused",
        "_retry_after_ms",
        "bounds",
        "in_flight",
        "limit",
    )

    def __init__(self, bounds: AdmissionBounds | None = None) -> None:
        self.bounds = bounds or AdmissionBounds()
        self.limit = self.bounds.limit_max
        self.in_flight = 0
        self._ends_ms: int | None = None
        self._least_ms: int | None = None
        self._peak = 0
        self._entered = 0
        self._refused = 0
        self._retry_after_ms = self.bounds.interval_ms

    def enter(self, waited_ms: int, now_ms: int) -> Verdict:
        """Take a question on or refuse it; `waited_ms` is the time from its arrival to now."""
        if self._ends_ms is None or now_ms >= self._ends_ms:
            self._turn(now_ms)
        if self._least_ms is None or waited_ms < self._least_ms:
            self._least_ms = waited_ms
        if self.in_flight >= self.limit:
            self._refused += 1
            return Verdict(self._retry_after_ms)
        self.in_flight += 1
        self._entered += 1
        self._peak = max(self._peak, self.in_flight)
        return ALLOWED

    def leave(self) -> None:
        """Note that an admitted search has ended, however it ended."""
        assert self.in_flight > 0, "one leaves for each that entered"
        self.in_flight -= 1

    def _turn(self, now_ms: int) -> None:
        """Judge the interval that is over and begin the next."""
        bounds = self.bounds
        if self._least_ms is not None and self._least_ms > bounds.target_ms:
            share = max(bounds.shrink_min, bounds.target_ms / self._least_ms)
            self.limit = max(bounds.limit_min, int(min(self.limit, self._peak) * share))
        elif self._refused or self._peak >= self.limit:
            self.limit = min(bounds.limit_max, int(self.limit * (1 + bounds.grow)) + 1)
        crowd = 1 + self._refused // max(1, self._entered)
        self._retry_after_ms = min(bounds.interval_ms * crowd, bounds.retry_after_ms_max)
        self._ends_ms = now_ms + bounds.interval_ms
        self._least_ms = None
        self._peak = self.in_flight
        self._entered = 0
        self._refused = 0
