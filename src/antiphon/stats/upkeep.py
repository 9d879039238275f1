"""The upkeep: does what `decide/upkeep.py` says is due, one job a call, in the store's thread."""

from __future__ import annotations

import time

import structlog

from antiphon.decide.upkeep import UpkeepBounds, UpkeepState, due
from antiphon.errors import RecordUnwritable
from antiphon.stats import segments, snapshot
from antiphon.stats.forgetting import finish
from antiphon.stats.store import Store

log = structlog.get_logger("antiphon.record")


class Upkeep:
    """Keeps one store in order."""

    def __init__(self, store: Store, bounds: UpkeepBounds | None = None) -> None:
        self.store = store
        self.bounds = bounds or UpkeepBounds()
        self.state = UpkeepState()
        self.snapshots = 0
        self.snapshots_ms = 0
        self._is_swept = False
        self._seen = -1

    def work(self, now_ms: int, *, is_behind: bool = False) -> None:
        """Do the most urgent job that is due; raises `RecordUnwritable`, and then it stays due."""
        self.state.is_behind = is_behind
        self.state.turn_back(now_ms)
        if not self._is_swept:
            segments.sweep(self.store)
            finish(self.store, now_ms)
            self._is_swept = True
        self._look(now_ms)
        job = due(self.state, now_ms, self.bounds)
        if job is None:
            return
        began = time.monotonic_ns()
        try:
            count = getattr(self, f"_{job}")(now_ms)
        except RecordUnwritable:
            self._is_swept = False  # or each try would leave files behind, on a disk that may be full
            raise
        took_ms = (time.monotonic_ns() - began) // 1_000_000
        if job == "snapshot":
            self.state.snapshot_took_ms = took_ms
            self.snapshots += 1
            self.snapshots_ms += took_ms
        elif count:
            log.info("record.upkeep", job=job, count=count, took_ms=took_ms)

    def changed(self) -> None:
        """Have a new snapshot as soon as one is allowed."""
        self.state.is_changed = True

    def _look(self, now_ms: int) -> None:
        rows, state = self.store.open_rows, self.state
        if rows != self._seen:
            self._seen, state.is_changed = rows, True
        state.open_rows = rows
        state.open_since_ms = None if not rows else now_ms if state.open_since_ms is None else state.open_since_ms

    def _seal(self, now_ms: int) -> int:
        count = segments.seal(self.store, now_ms)
        self.state.open_since_ms = None
        self.changed()
        return count

    def _compact(self, now_ms: int) -> int:
        count = segments.compact(self.store, now_ms, self.bounds.compact_rows_max)
        self.state.compacted_ms = now_ms
        if count:
            self.changed()
        return count

    def _discard(self, now_ms: int) -> int:
        if segments.expire(self.store, now_ms, self.bounds.keep_ms):
            self.changed()
        # the snapshot that is there names what was given up after it was made
        count = segments.discard(self.store, min(now_ms - self.bounds.discard_ms, self.state.snapshot_ms))
        self.state.discarded_ms = now_ms
        return count

    def _snapshot(self, now_ms: int) -> int:
        snapshot.write(self.store, now_ms)
        self.state.snapshot_ms = now_ms
        self.state.is_changed = False
        return 0
