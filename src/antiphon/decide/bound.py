"""How long a node is waited for: a bound learned from its own latencies, between a floor and a ceiling.

    bound = clamp(floor, factor * p99 + slack, ceiling)

A node that nothing is known of gets the ceiling; a search that has less budget left gets less.

Why it cannot clamp itself. If a time-out counted as nothing, a node that became slower than its bound could never
answer in time again, and the bound would stay where it was. Here a time-out is a wait of at least the bound (see
`digest.py`). Once more than 1 % of the window are time-outs longer than every answer, p99 is the longest wait, that is
a bound that was in force; as the factor is greater than one, the next bound is longer than that. So the bound climbs
by the factor with each time-out after the first per cent, until answers come back in time or the ceiling is reached;
and it falls again when time-outs are less than 1 % of the window. It climbs by at most `rise_max` at a reading: one
old outlier of ten seconds must not send the searches of a node that has just died to the ceiling. Such a node costs
its learned bound at first, then twice that and so on, until its breaker opens at the fifth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from antiphon.decide.digest import Digest, Quantiles

FRESH_SHARE = 8
"""Quantiles are read anew when there is an eighth more to know, or after `fresh_ms`."""
US = 1_000
"""Microseconds in a millisecond."""


@dataclass(frozen=True, slots=True)
class BoundLimits:
    """Where a learned bound may lie, in milliseconds."""

    floor_ms: int = 500
    """Below it a burst of questions, or the noise of a busy machine, would be called a time-out."""
    ceiling_ms: int = 10_000
    factor: float = 2.0
    """How much later than p99 is still worth waiting for; above 1, or a slower node could not be learned."""
    slack_ms: int = 20
    rise_max: float = 2.0
    """How much longer the bound may be than at the reading before."""
    records_min: int = 20
    """What has to be known before the ceiling is left."""
    fresh_ms: int = 250
    """How long a reading of the digest is good."""

    def __post_init__(self) -> None:
        assert self.factor > 1, "a bound that never exceeds its own time-outs clamps itself"
        assert self.rise_max > 1, "a bound that may not rise clamps itself"
        assert 0 <= self.floor_ms <= self.ceiling_ms


LIMITS = BoundLimits()


class Bound:
    """The learned bound of one node; tell it every fate, read it at each search (0.2 us)."""

    __slots__ = ("_bound_ms", "_due_ms", "_due_total", "_seen", "digest", "limits", "quantiles")

    def __init__(self, limits: BoundLimits = LIMITS) -> None:
        self.limits = limits
        self.digest = Digest()
        self.quantiles = Quantiles()
        """As of the last reading."""
        self._bound_ms = limits.ceiling_ms
        self._seen = 0
        self._due_ms = 0
        self._due_total = 1

    def answered(self, latency_us: int, now_ms: int) -> None:
        """Learn from an answer, an error of the handler or an answer that came too late to be used."""
        self.digest.record(latency_us, now_ms)

    def timed_out(self, waited_us: int, now_ms: int) -> None:
        """Learn from a wait that was ended: by this bound, by a search's own deadline or by a hedge that won."""
        self.digest.censor(waited_us, now_ms)

    def bound_ms(self, now_ms: int) -> int:
        """Return how long to wait for an answer."""
        total = self.digest.total
        if total != self._seen and (now_ms >= self._due_ms or total >= self._due_total):
            self._read(now_ms)
        return self._bound_ms

    def _read(self, now_ms: int) -> None:
        limits = self.limits
        self._seen = self.digest.total
        self._due_ms = now_ms + limits.fresh_ms
        self._due_total = self._seen + self._seen // FRESH_SHARE + 1
        self.quantiles = self.digest.quantiles()
        if self.quantiles.records < limits.records_min:
            return
        wanted = ceil(limits.factor * self.quantiles.p99_us / US) + limits.slack_ms
        risen = ceil(self._bound_ms * limits.rise_max)
        self._bound_ms = max(limits.floor_ms, min(wanted, risen, limits.ceiling_ms))
