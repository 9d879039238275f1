"""The keeper: facts on their way into the record's stream, many in one message, each message stored exactly once.

It never blocks whoever tells a fact: what waits is bounded in number and in bytes, and what does not fit is dropped
and counted; the count is a fact itself, told as soon as something can be kept again. A message is appended over the
master's own subject by compare-and-set. So after a lost acknowledgement the next try is refused if the first had been
stored, and reading the subject tells which it was (SAGAS.md says the same of a coordinator's writes).
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import structlog

from antiphon.bus.assets import facts_of
from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Journal
from antiphon.errors import AntiphonError
from antiphon.messages.records import FACTS_MAX, FactsDropped, FactsKept

log = structlog.get_logger("antiphon.runtime")


@dataclass(frozen=True, slots=True)
class KeeperBounds:
    """The limits of what waits to be kept; `settings.py` names them for operators."""

    facts_max: int = 10_000
    bytes_max: int = 64 * 1024 * 1024
    batch_bytes_max: int = 512 * 1024
    """Of one message, unless one fact alone is larger."""
    fact_bytes_max: int = 1_000_000
    """Of one fact: with what is around it, it has to fit into a message of 1 MB."""
    linger_ms: int = 50
    """How long the first fact of a message waits for others."""
    retry_ms: int = 500
    stop_ms: int = 2_000
    """How long a stop waits for the rest to be kept."""


class Keeper:
    """The facts of one role on their way into the stream; a child of the supervisor, started once there is a store."""

    def __init__(self, bus: Bus, bounds: KeeperBounds | None = None) -> None:
        self.bus = bus
        self.bounds = bounds or KeeperBounds()
        self.kept = 0
        self.dropped = 0
        self._told_dropped = 0
        self._session = bus.draw()[:16]
        self._number = 0
        self._subject = FactsKept.route.template.subject(prefix=bus.prefix, writer=bus.name)
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._flushing = asyncio.Lock()
        """A stop comes while a message may be on its way; nobody else sends what is in it."""
        self._journal: Journal | None = None
        self._is_failing = False
        self._last: int | None = None
        """The last sequence over this master's subject; None where it has to be read."""

    def keep(self, kind: str, data: bytes) -> None:
        """Have an encoded fact kept, or count it as dropped."""
        size, bounds = len(data), self.bounds
        if (
            len(self._waiting) >= bounds.facts_max
            or self._bytes + size > bounds.bytes_max
            or size > bounds.fact_bytes_max
        ):
            self.dropped += 1
        else:
            self._put(kind, data)

    @property
    def waiting(self) -> int:
        """Facts that are not kept yet."""
        return len(self._waiting)

    async def start(self) -> None:
        """Nothing to do before the first fact: the stream is opened with the first message."""

    async def run(self) -> None:
        """Keep what gathers, for ever."""
        while True:
            await self._filled.wait()
            await self.bus.clock.sleep_ms(self.bounds.linger_ms)
            await self._flush()

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Keep what is left, within the bound."""
        if not is_crashed:
            try:
                await asyncio.wait_for(self._flush(), self.bounds.stop_ms / 1_000)
            except TimeoutError:
                self.dropped += len(self._waiting)
        if self.dropped > self._told_dropped:
            log.warning("facts.dropped", dropped=self.dropped - self._told_dropped, told=self.kept)

    def _put(self, kind: str, data: bytes) -> None:
        self._waiting.append((kind, data))
        self._bytes += len(data)
        self._filled.set()

    async def _flush(self) -> None:
        async with self._flushing:
            while self._waiting:
                await self._send()
            self._filled.clear()

    async def _send(self) -> None:
        """Keep the next message."""
        count = self._batch()
        self._number += 1
        head = f'{{"session":"{self._session}","number":{self._number},"facts":['.encode()
        batch = [self._waiting[at] for at in range(count)]
        inside = b",".join(b'{"kind":"%s","fact":%s}' % (kind.encode(), data) for kind, data in batch)
        await self._append(head + inside + b"]}")
        for _, data in batch:
            self._waiting.popleft()
            self._bytes -= len(data)
        self.kept += count
        await self._tell_dropped()

    def _batch(self) -> int:
        """Return how many of those that wait make the next message."""
        count = size = 0
        for kind, data in self._waiting:
            size += len(kind) + len(data) + 32
            if count == FACTS_MAX or (count and size > self.bounds.batch_bytes_max):
                break
            count += 1
        return count

    async def _append(self, data: bytes) -> None:
        """Return once the stream has it, however long that takes; what is told meanwhile waits or is dropped."""
        while True:
            try:
                if self._journal is None:
                    self._journal = await self.bus.transport.journal(facts_of(self.bus.prefix))
                if self._last is None:
                    found = await self._journal.last(self._subject)
                    self._last = found[-1].sequence if found else 0
                    if found and found[-1].data == data:  # the acknowledgement was lost, the message was not
                        break
                self._last = await self._journal.append(self._subject, data, over=self._subject, last=self._last)
            except AntiphonError as error:
                self._last = None
                if not self._is_failing:
                    self._is_failing = True
                    log.warning("facts.not_kept", error=f"{error.code}: {error.text}", waiting=len(self._waiting))
                await self.bus.clock.sleep_ms(self.bounds.retry_ms)
                continue
            if self._last is not None:
                break
        if self._is_failing:
            self._is_failing = False
            log.info("facts.kept_again", waiting=len(self._waiting))

    async def _tell_dropped(self) -> None:
        """Tell how many were dropped; this one fact finds room, so that a loss is never silent."""
        if self.dropped == self._told_dropped:
            return
        lost, self._told_dropped = self.dropped - self._told_dropped, self.dropped
        log.warning("facts.dropped", dropped=lost, told=self.kept)
        fact = FactsDropped(at_ms=self.bus.clock.wall_ms(), dropped=lost, total=self.dropped)
        self._put("FactsDropped", encode(fact))
        with suppress(AntiphonError):  # it is in the record in any case
            await self.bus.publish(fact)
