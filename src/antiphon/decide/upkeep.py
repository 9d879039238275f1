"""When the record is sealed, merged, thinned out and copied for analysts: one job at a time, the urgent ones first.

A snapshot may take a tenth of the recorder's time: after one that took a second there is none for nine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Job = Literal["seal", "compact", "discard", "snapshot"]


@dataclass(frozen=True, slots=True)
class UpkeepBounds:
    """When each job is due; `settings.py` names them for operators."""

    seal_rows: int = 250_000
    seal_ms: int = 60_000
    compact_ms: int = 3_600_000
    compact_rows_max: int = 2_000_000
    """Rows of one merged file: merging more would keep the streams waiting."""
    keep_ms: int = 90 * 86_400_000
    """How long rows are kept; roll-ups are kept for ever."""
    discard_ms: int = 600_000
    """How long a file that was replaced stays: analysts may have a snapshot open that names it."""
    snapshot_ms: int = 1_000
    """How often there is a new snapshot at most."""
    behind_ms: int = 10_000
    """How often there is one at most while the streams have more than is read: catching up comes first."""
    snapshot_duty: int = 10
    """A snapshot takes at most one part in so many of the time."""


@dataclass(slots=True)
class UpkeepState:
    """When each job was done last, and what there is to do; times are milliseconds since 1970."""

    open_rows: int = 0
    open_since_ms: int | None = None
    """Since when there are rows that are not sealed."""
    compacted_ms: int = 0
    discarded_ms: int = 0
    snapshot_ms: int = 0
    snapshot_took_ms: int = 0
    is_behind: bool = False
    """Whether the streams have more than is read."""
    is_changed: bool = True
    """Whether there is anything that the last snapshot does not show."""

    def turn_back(self, now_ms: int) -> None:
        """Take what was done in the future to be done now: the clock has gone backward, and nothing waits for it."""
        self.open_since_ms = None if self.open_since_ms is None else min(self.open_since_ms, now_ms)
        self.compacted_ms = min(self.compacted_ms, now_ms)
        self.discarded_ms = min(self.discarded_ms, now_ms)
        self.snapshot_ms = min(self.snapshot_ms, now_ms)


def due(state: UpkeepState, now_ms: int, bounds: UpkeepBounds) -> Job | None:
    """Return what is to be done now, or None."""
    since_ms = state.open_since_ms
    if state.open_rows >= bounds.seal_rows or (since_ms is not None and now_ms - since_ms >= bounds.seal_ms):
        return "seal"
    pause_ms = max(bounds.snapshot_ms, state.snapshot_took_ms * bounds.snapshot_duty)  # from its beginning
    if state.is_behind:
        pause_ms = max(pause_ms, bounds.behind_ms)
    if state.is_changed and now_ms - state.snapshot_ms >= pause_ms:
        return "snapshot"
    if now_ms - state.compacted_ms >= bounds.compact_ms:
        return "compact"
    if now_ms - state.discarded_ms >= bounds.discard_ms:
        return "discard"
    return None


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet file of one table."""

    file: str
    level: int
    """0 as it was sealed, 1 an hour, 2 a day."""
    rows: int
    sealed_ms: int


HOUR_MS = 3_600_000
PERIODS_MS = (HOUR_MS, 24 * HOUR_MS)


def merges(segments: list[Segment], now_ms: int, rows_max: int) -> list[list[Segment]]:
    """Return which segments of a table become one: those of a past hour, then those hours of a past day.

    >>> merges([Segment("a", 0, 5, 0), Segment("b", 0, 5, 1), Segment("c", 0, 5, HOUR_MS)], HOUR_MS + 1, 100)
    [[Segment(file='a', level=0, rows=5, sealed_ms=0), Segment(file='b', level=0, rows=5, sealed_ms=1)]]
    """
    groups: list[list[Segment]] = []
    for level, period_ms in enumerate(PERIODS_MS):
        by_period: dict[int, list[Segment]] = {}
        for one in sorted(segments, key=lambda segment: (segment.sealed_ms, segment.file)):
            if one.level == level and one.sealed_ms // period_ms < now_ms // period_ms:
                by_period.setdefault(one.sealed_ms // period_ms, []).append(one)
        for some in by_period.values():
            groups += _fitting(some, rows_max)
    return groups


def _fitting(segments: list[Segment], rows_max: int) -> list[list[Segment]]:
    """Return neighbours in groups of two and more that fit together."""
    groups: list[list[Segment]] = [[]]
    for one in segments:
        if groups[-1] and sum(each.rows for each in groups[-1]) + one.rows > rows_max:
            groups.append([])
        groups[-1].append(one)
    return [group for group in groups if len(group) > 1]
