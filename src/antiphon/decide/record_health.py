"""How the record is, as a master hears it: who has dropped facts, which recorders are behind, degraded or silent.

A recorder says every second how it is. One that has spoken and says nothing more has been killed or cut off; one that
stops in order says so, and is forgotten. A fabric that never had a recorder misses none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

DROPPED_MS = 60_000
"""How long a loss of facts is something that is wrong."""
SILENT_MS = 10_000
BEHIND_MS = 10_000
"""Lag above which the record is no longer of now."""
RECORDERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Reported:
    """What a recorder has said last."""

    heard_ms: int
    reason: str | None
    """Why it is degraded; None when it records."""
    lag: int
    lag_ms: int


@dataclass(slots=True)
class RecordHealth:
    """Everything that is known of the record."""

    dropped: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """By master: when it told so last, and how many."""
    recorders: dict[str, Reported] = field(default_factory=dict[str, Reported])

    def lost(self, master: str, count: int, now_ms: int) -> None:
        """Note that a master has dropped facts."""
        self.dropped[master] = (now_ms, count)

    def heard(self, recorder: str, report: Reported) -> None:
        """Note what a recorder says."""
        if recorder in self.recorders or len(self.recorders) < RECORDERS_MAX:
            self.recorders[recorder] = report

    def stopped(self, recorder: str) -> None:
        """Forget a recorder that stops in order."""
        self.recorders.pop(recorder, None)

    def wrong(self, now_ms: int) -> Iterator[tuple[str, str, str]]:
        """Yield the kind, the subject and the text of everything that is wrong now."""
        self.dropped = {one: told for one, told in self.dropped.items() if now_ms - told[0] < DROPPED_MS}
        for master, (_, count) in sorted(self.dropped.items()):
            yield "facts_dropped", master, f"{master} could not keep {count} facts: they are not in the record"
        for name, report in sorted(self.recorders.items()):
            silent_ms = now_ms - report.heard_ms
            if silent_ms >= SILENT_MS:
                yield "recorder_silent", name, f"the recorder {name} was last heard {silent_ms // 1_000} s ago"
            elif report.reason is not None:
                yield "recorder_degraded", name, f"the recorder {name} cannot write: {report.reason}"[:200]
            elif report.lag_ms >= BEHIND_MS:
                yield "recorder_behind", name, f"the recorder {name} is {report.lag_ms // 1_000} s behind"
