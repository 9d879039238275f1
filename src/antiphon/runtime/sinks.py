"""Sinks: where alerts go besides the log and the bus, e.g. a pager; each with a buffer and a life of its own.

A sink that is slow or raises delays nobody else: its alerts wait in its own bounded buffer, and what does not fit is
dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

import structlog

from antiphon.messages.alerts import AlertCleared, AlertRaised

log = structlog.get_logger("antiphon.sinks")

BUFFER_MAX = 1_000
TIMEOUT_S = 10.0


class Sink(Protocol):
    """Where alerts go."""

    @property
    def name(self) -> str:
        """What the log calls it."""
        ...

    async def send(self, alert: AlertRaised | AlertCleared) -> None:
        """Pass one on; what it raises is logged, and the alert is not sent again."""


class SinkSpool:
    """One sink and what waits for it; a child of the supervisor."""

    def __init__(self, sink: Sink, *, buffer_max: int = BUFFER_MAX, timeout_s: float = TIMEOUT_S) -> None:
        self.sink = sink
        self.buffer_max = buffer_max
        self.timeout_s = timeout_s
        self.dropped = 0
        self._buffer: deque[AlertRaised | AlertCleared] = deque()
        self._filled = asyncio.Event()

    def put(self, alert: AlertRaised | AlertCleared) -> None:
        """Have an alert sent."""
        if len(self._buffer) >= self.buffer_max:
            self.dropped += 1
            return
        self._buffer.append(alert)
        self._filled.set()

    async def start(self) -> None:
        """Nothing to do before the first alert."""

    async def run(self) -> None:
        """Send what has gathered, for ever."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._buffer:
                await self._send(self._buffer.popleft())

    async def stop(self, *, is_crashed: bool = False) -> None:  # noqa: ARG002 - as every child
        """Say what was never sent."""
        if self.dropped or self._buffer:
            log.warning("sink.dropped", sink=self.sink.name, dropped=self.dropped + len(self._buffer))

    async def _send(self, alert: AlertRaised | AlertCleared) -> None:
        try:
            async with asyncio.timeout(self.timeout_s):
                await self.sink.send(alert)
        except Exception as error:
            # somebody else's code, as a node author's handler is: its bug must not end the monitor
            log.exception("sink.failed", sink=self.sink.name, alert=alert.alert.id, error=type(error).__name__)
