"""The spool that facts leave a process by: it never blocks the hot path.

A fact is encoded where it happens and put into a bounded buffer; a task sends what has gathered. When the buffer is
full, or there is no connection, facts are dropped and counted. This is for whoever listens now; a `Keeper` takes the
same facts for the record (`runtime/keeping.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.errors import AntiphonError
from antiphon.messages.base import Fact
from antiphon.runtime.keeping import Keeper

log = structlog.get_logger("antiphon.runtime")


class Facts:
    """The facts of one role on their way to the bus."""

    def __init__(self, bus: Bus, *, buffer_max: int = 10_000, is_on: bool = True, keeper: Keeper | None = None) -> None:
        self.bus = bus
        self.keeper = keeper
        self.is_on = is_on
        self.buffer_max = buffer_max
        self.told = 0
        self.dropped = 0
        self._buffer: deque[tuple[str, bytes]] = deque()
        self._filled = asyncio.Event()
        self._kinds: dict[str, str] = {}

    def tell(self, fact: Fact, **keys: str) -> None:
        """Put a fact into the buffer."""
        if self.is_on:
            self.tell_encoded(self.subject(type(fact), **keys), encode(fact))

    def subject(self, kind: type[Fact], **keys: str) -> str:
        """Return the subject under which this role tells a kind of fact."""
        subject = kind.route.template.subject(prefix=self.bus.prefix, writer=self.bus.name, **keys)
        self._kinds[subject] = kind.__name__
        return subject

    def tell_encoded(self, subject: str, data: bytes) -> None:
        """Put a fact that is already encoded into the buffer, under a subject that `subject` gave."""
        if self.keeper is not None:
            self.keeper.keep(self._kinds[subject], data)
        if len(self._buffer) >= self.buffer_max:
            self.dropped += 1
            return
        self._buffer.append((subject, data))
        self._filled.set()

    async def start(self) -> None:
        """Nothing to do before the first fact."""

    async def run(self) -> None:
        """Send what has gathered, for ever."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            await self._send()

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Send what is left."""
        if not is_crashed:
            await self._send()
        if self.dropped:
            log.warning("facts.dropped", dropped=self.dropped, told=self.told)

    async def _send(self) -> None:
        while self._buffer:
            subject, data = self._buffer.popleft()
            try:
                await self.bus.transport.publish(subject, data)
                self.told += 1
            except AntiphonError:
                self.dropped += 1
