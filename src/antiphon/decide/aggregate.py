"""What is made of fields of all results of a job: sums, means, and how often there is each value.

One object takes results as they come and forgets them, so that a job over a thousand nodes keeps numbers and no
documents. A field that is missing, or of another sort than its aggregate needs, does not count; `count` says how many
did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import isfinite

from pydantic import JsonValue

from antiphon.messages.actions import BUCKETS_MAX, Aggregation, JobBucket, JobTotal

VALUES_MAX = 1_024
"""Different values that one histogram counts; more are `others`, so that no node can fill memory."""
TEXT_MAX = 200
"""Characters of a value in a histogram."""
WHOLE_MAX = 2**53
"""Beyond, a whole number is told as a float: other languages have no others."""

Value = str | int | float | bool | None


class Aggregates:
    """The aggregates of one job."""

    def __init__(self, wanted: Mapping[str, Aggregation]) -> None:
        self._sums: dict[str, float | int] = {}
        self._counts: Counter[str] = Counter()
        self._values: dict[str, Counter[tuple[str, Value]]] = {}
        self._wanted = dict(wanted)

    def add(self, result: JsonValue) -> None:
        """Take one result."""
        if not isinstance(result, dict):
            return
        for field, kind in self._wanted.items():
            if field not in result:
                continue
            value = result[field]
            if kind is Aggregation.HISTOGRAM:
                self._count(field, value)
            elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
                self._counts[field] += 1
                self._sums[field] = self._sums.get(field, 0) + value

    def totals(self) -> tuple[JobTotal, ...]:
        """Return what has come together so far."""
        return tuple(self._total(field, kind) for field, kind in self._wanted.items())

    def _count(self, field: str, value: JsonValue) -> None:
        values = list(value) if isinstance(value, list) else [value]
        self._counts[field] += 1
        counted = self._values.setdefault(field, Counter())
        for one in values:
            if isinstance(one, dict | list):
                continue
            told = one[:TEXT_MAX] if isinstance(one, str) else one
            key = (type(told).__name__, told)  # 1, 1.0 and true are one key of a dictionary, and three values
            if key in counted or len(counted) < VALUES_MAX:
                counted[key] += 1
            else:
                counted["", None] += 1

    def _total(self, field: str, kind: Aggregation) -> JobTotal:
        count = self._counts[field]
        if kind is Aggregation.HISTOGRAM:
            counted = self._values.get(field, Counter())
            first = sorted((one for one in counted.items() if one[0][0]), key=lambda one: (-one[1], str(one[0])))
            buckets = tuple(JobBucket(value=value, count=times) for (_, value), times in first[:BUCKETS_MAX])
            others = counted.total() - sum(one.count for one in buckets)
            return JobTotal(field=field, kind=kind, count=count, buckets=buckets, others=others)
        if not count:
            return JobTotal(field=field, kind=kind, count=0)
        total = self._sums[field]
        value = total if kind is Aggregation.SUM else total / count
        return JobTotal(field=field, kind=kind, count=count, value=_told(value))


def _told(value: float) -> float | int | None:
    """Return a number that every JSON can hold, or None for one that no float can."""
    if isinstance(value, int) and abs(value) <= WHOLE_MAX:
        return value
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None
