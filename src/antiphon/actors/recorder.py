"""The recorder: says every second how the recording is, and answers for the record.

It writes nothing itself; `actors/recording.py` does, in a thread of its own, so that this stays awake.
"""

from __future__ import annotations

from typing import Final

import structlog

from antiphon.actors.recording import Recording
from antiphon.bus.bus import Bus, Call
from antiphon.errors import AntiphonError
from antiphon.messages.records import RecorderReported
from antiphon.messages.stats import StatsAnswer, StatsForget, StatsForgotten, StatsQuery
from antiphon.runtime.actor import Actor, ActorBounds, converses
from antiphon.stats import snapshot
from antiphon.stats.forgetting import forget
from antiphon.stats.sandbox import Sandbox

log = structlog.get_logger("antiphon.record")

REPORT_MS: Final = 1_000


class Recorder(Actor):
    """Tells how the record is, and what is in it."""

    name = "recorder"

    def __init__(self, bus: Bus, recording: Recording, sandbox: Sandbox, *, bounds: ActorBounds | None = None) -> None:
        super().__init__(bus, bounds=bounds)
        self.recording = recording
        self.sandbox = sandbox

    async def serving(self) -> None:
        """Begin to report."""
        await self._report()

    async def stopping(self) -> None:
        """Say that this is an end in order."""
        await self._tell("stopped")

    @converses(StatsQuery)
    async def query(self, call: Call[StatsQuery]) -> StatsAnswer:
        """Answer statements about the last day, in a worker that can do nothing else."""
        began_us, asked = self.bus.clock.now_us(), call.message
        tables, as_of_ms = await self.sandbox.ask(
            asked.statements, asked.rows_max, asked.format, self.bus.clock.wall_ms()
        )
        took_ms = (self.bus.clock.now_us() - began_us) // 1_000
        log.info("record.asked", caller=call.caller, statements=len(tables), took_ms=took_ms)
        return StatsAnswer.model_validate(
            {"tables": tables, "as_of_ms": as_of_ms, "took_ms": took_ms, "recorder": self.bus.name}
        )

    @converses(StatsForget)
    async def forget(self, call: Call[StatsForget]) -> StatsForgotten:
        """Take a caller out of the record."""
        who = call.message.who
        async with self.recording.paused():
            rows, files = await self.recording.blocking(self._forget, who)
        await self.sandbox.forget()
        log.warning("record.forgotten", who=who, by=call.caller, rows=rows, files=files)
        return StatsForgotten(rows=rows, files=files, recorder=self.bus.name)

    def _forget(self, who: str) -> tuple[int, int]:
        """Do all of it in the store's thread, so that whoever gives up waiting leaves nothing half done."""
        recording, now_ms = self.recording, self.bus.clock.wall_ms()
        recording.upkeep.changed()  # the snapshot that was there names files that are gone then, also where this fails
        done = forget(recording.store, who, now_ms)
        snapshot.write(recording.store, now_ms)
        return done

    async def _report(self) -> None:
        if self.recording.has_looked or self.recording.trouble is not None:
            await self._tell("recording" if self.recording.trouble is None else "degraded")
        self.tell_after(REPORT_MS, self._report)

    async def _tell(self, state: str) -> None:
        recording, now_ms = self.recording, self.bus.clock.wall_ms()
        behind_ms = max(0, now_ms - recording.written_ms) if recording.lag and recording.written_ms else 0
        fields = {
            "at_ms": now_ms,
            "state": state,
            "reason": (recording.trouble or "")[:200],
            "lag": recording.lag,
            "lag_ms": behind_ms,
            "rows": recording.rows,
            "dead": recording.dead,
            "gaps": recording.gaps,
            "snapshots": recording.upkeep.snapshots,
            "snapshots_ms": recording.upkeep.snapshots_ms,
        }
        try:
            await self.bus.publish(RecorderReported.model_validate(fields))
        except AntiphonError as error:
            log.debug("record.not_reported", error=error.code)
