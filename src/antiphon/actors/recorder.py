"""The recorder: says every second how the recording is, and answers for the record.

It writes nothing itself; `actors/recording.py` does, in a thread of its own, so that this stays awake.
"""

from __future__ import annotations

from typing import Final

import structlog

from antiphon.actors.recording import Recording
from antiphon.bus.bus import Bus
from antiphon.errors import AntiphonError
from antiphon.messages.records import RecorderReported
from antiphon.runtime.actor import Actor, ActorBounds

log = structlog.get_logger("antiphon.record")

REPORT_MS: Final = 1_000


class Recorder(Actor):
    """Tells how the record is."""

    name = "recorder"

    def __init__(self, bus: Bus, recording: Recording, *, bounds: ActorBounds | None = None) -> None:
        super().__init__(bus, bounds=bounds)
        self.recording = recording

    async def serving(self) -> None:
        """Begin to report."""
        await self._report()

    async def stopping(self) -> None:
        """Say that this is an end in order."""
        await self._tell("stopped")

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
        }
        try:
            await self.bus.publish(RecorderReported.model_validate(fields))
        except AntiphonError as error:
            log.debug("record.not_reported", error=error.code)
