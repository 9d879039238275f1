"""A latency digest: p50 to p99 of what somebody took lately, in bounded memory, with time-outs taken for what they say.

Intuition. Latencies are counted in buckets that are 5 % wide, so that a bucket's middle is within 2.5 % of whatever
fell into it. Two generations of buckets make a sliding window: a generation ends when it is both old and full enough,
so a busy node forgets in seconds and a quiet one does not forget what nothing has replaced.

A time-out is no latency. It says "longer than this", which is a *censored* observation: the Kaplan-Meier estimator
(Kaplan & Meier 1958) takes it as evidence up to the moment when we stopped looking and as silence beyond. Counting it
as an answer of that length would let a short deadline pull the quantiles down; leaving it out would let a node that
became slow look as fast as its luckiest answers. With time-outs only in the tail, a quantile may lie beyond everything
observed; then it is the longest wait, and that is a lower bound (`bound.py` climbs from there).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from operator import add

LATENCY_US_MAX = 600_000_000
"""Ten minutes, the longest budget on the wire; longer ones count as this."""
MARKS = (0.50, 0.95, 0.97, 0.99)
ROUNDING = 1e-9
"""A product of a few hundred ratios is exact to about 1e-13."""


def _edges() -> tuple[int, ...]:
    edges = [0]
    while edges[-1] <= LATENCY_US_MAX:
        edges.append(max(edges[-1] + 1, edges[-1] * 105 // 100))
    return tuple(edges)


EDGES = _edges()
"""Where each bucket begins, in microseconds; below 40 us every microsecond has its own."""
MIDDLES = tuple((low + high - 1) // 2 for low, high in pairwise(EDGES))
BUCKETS = len(MIDDLES)
LAST = BUCKETS - 1


@dataclass(frozen=True, slots=True)
class Quantiles:
    """What a digest knows, in microseconds, each within 3 %; all zero when it knows nothing."""

    p50_us: int = 0
    p95_us: int = 0
    p97_us: int = 0
    """Three in a hundred are later: where a hedge budget of 3 % begins to suffice."""
    p99_us: int = 0
    records: int = 0
    """Answers and time-outs in the window."""
    censored: int = 0
    """How many of them were time-outs."""


class Digest:
    """The latencies of one node or instance; the newest one to two generations."""

    __slots__ = ("_answered", "_before", "_cut", "_ends_ms", "_records", "generation_ms", "generation_records", "total")

    def __init__(self, generation_ms: int = 10_000, generation_records: int = 200) -> None:
        self.generation_ms = generation_ms
        self.generation_records = generation_records
        self.total = 0
        """Everything ever recorded; whoever caches quantiles compares it."""
        self._records = 0
        self._ends_ms: int | None = None
        self._answered = [0] * BUCKETS
        self._cut = [0] * BUCKETS
        self._before: tuple[list[int], list[int]] | None = None

    def record(self, latency_us: int, now_ms: int) -> None:
        """Count an answer that took so long; a late one, too, for it says exactly how late."""
        at = self._bucket(latency_us, now_ms)  # first, for it may begin a new generation
        self._answered[at] += 1

    def censor(self, waited_us: int, now_ms: int) -> None:
        """Count a wait of this length that was ended before there was an answer: a time-out, a cancelled hedge."""
        at = self._bucket(waited_us, now_ms)
        self._cut[at] += 1

    def quantiles(self) -> Quantiles:
        """Return the quantiles of the window; about 30 us, so read them now and then and keep them (`bound.py`)."""
        answered, cut = self._answered, self._cut
        if self._before is not None:
            answered = list(map(add, answered, self._before[0]))
            cut = list(map(add, cut, self._before[1]))
        censored = sum(cut)
        records = sum(answered) + censored
        if not records:
            return Quantiles()
        p50_us, p95_us, p97_us, p99_us = _kaplan_meier(answered, cut, records)
        return Quantiles(p50_us, p95_us, p97_us, p99_us, records, censored)

    def _bucket(self, latency_us: int, now_ms: int) -> int:
        assert latency_us >= 0, "latencies come from a monotonic clock"
        if self._ends_ms is None:
            self._ends_ms = now_ms + self.generation_ms
        elif now_ms >= self._ends_ms and self._records >= self.generation_records:
            self._before = (self._answered, self._cut)
            self._answered = [0] * BUCKETS
            self._cut = [0] * BUCKETS
            self._records = 0
            self._ends_ms = now_ms + self.generation_ms
        self._records += 1
        self.total += 1
        at = bisect_right(EDGES, latency_us) - 1
        return at if at < LAST else LAST  # noqa: FURB136 - min() costs as much as all the rest


def _kaplan_meier(answered: list[int], cut: list[int], records: int) -> list[int]:
    """Return the latency at each mark: where the estimated share of what takes longer falls to 1 - mark.

    In one bucket answers come before time-outs, as is the convention: who was cut at t was still waiting at t.
    """
    at_risk = records
    surviving = 1.0
    found: list[int] = []
    longest = 0
    for at, (ended, left) in enumerate(zip(answered, cut, strict=True)):
        if not ended and not left:
            continue
        longest = MIDDLES[at]
        surviving *= (at_risk - ended) / at_risk
        while len(found) < len(MARKS) and 1 - surviving >= MARKS[len(found)] - ROUNDING:
            found.append(longest)
        at_risk -= ended + left
    return found + [longest] * (len(MARKS) - len(found))
