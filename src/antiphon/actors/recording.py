"""The recording: reads the streams from where the store is, and writes what it reads, one stretch after another.

Each turn asks a stream for the next messages, then which stream that was. Only if it still is the one that the
position belongs to are they written, together with the new position; a stream that was made again in between is seen.
While the disk refuses, nothing is lost as long as the stream keeps it: the same stretch is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import structlog

from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Reader
from antiphon.decide.reading import begun
from antiphon.decide.record_batch import source, streams, taken
from antiphon.decide.record_bounds import RecordingBounds
from antiphon.errors import NotConnected, RecordUnwritable
from antiphon.runtime.threads import Threads
from antiphon.stats.store import Store
from antiphon.stats.upkeep import Upkeep

log = structlog.get_logger("antiphon.record")

R = TypeVar("R")

ABSENT_MS = 2_000
"""How often is looked for a stream that there never was; one that is gone may be made again this moment."""
STOPPED_MS = 60_000
"""One that was told to stop waits for its end."""


class Recording:
    """What a recorder does all the time; a child of the supervisor."""

    def __init__(
        self, bus: Bus, store: Store, threads: Threads, upkeep: Upkeep, bounds: RecordingBounds | None = None
    ) -> None:
        self.bus = bus
        self.store = store
        self.threads = threads
        self.upkeep = upkeep
        self.bounds = bounds or RecordingBounds()
        self.rows = self.dead = self.gaps = 0
        self.lags: dict[str, int] = {}
        self.written_ms = 0
        """The time of the last message that was written, by the server's clock."""
        self.has_looked = False
        """Whether every stream has been asked once, so that the lag is known."""
        self.trouble: str | None = None
        """Why nothing can be written now."""
        self._readers: dict[str, Reader] = {}
        self._absent: dict[str, int | None] = {}
        """When is looked again for a stream that there is not; None for one that there is."""
        self._turning = asyncio.Lock()
        self._is_stopping = False

    @property
    def lag(self) -> int:
        """Messages that are not read yet, as the streams said last."""
        return sum(self.lags.values())

    async def start(self) -> None:
        """Open the store; a disk that refuses now may take it later."""
        self._is_stopping = False
        for name in set(streams(self.bounds.shards)) - self._readers.keys():
            one = source(name)
            stream = one.server_name.format(prefix=self.bus.prefix, stream=name)
            self._readers[name] = await self.bus.transport.reader(stream, is_masters=one.is_masters)
        try:
            await self.blocking(self.store.open, self.bus.clock.wall_ms())
        except RecordUnwritable as error:
            self._degraded(error)

    async def run(self) -> None:
        """Record, for ever."""
        while True:
            async with self._turning:
                wait_ms = STOPPED_MS if self._is_stopping else await self._turn()
            if wait_ms:
                await self.bus.clock.sleep_ms(wait_ms)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """End the turn, write nothing more, and close the file."""
        del is_crashed
        self._is_stopping = True
        async with self._turning:
            await self.blocking(self.store.close)

    @asynccontextmanager
    async def paused(self) -> AsyncGenerator[None]:
        """Let the turn end, and begin none meanwhile."""
        async with self._turning:
            yield

    async def _turn(self) -> int:
        """Read each stream once and return how long to wait for more."""
        count = 0
        try:
            await self.blocking(self.store.open, self.bus.clock.wall_ms())
            for stream in streams(self.bounds.shards):
                count += await self._take(stream)
            await self.blocking(partial(self.upkeep.work, self.bus.clock.wall_ms(), is_behind=self.lag > 0))
        except RecordUnwritable as error:
            self._degraded(error)
            return self.bounds.retry_ms
        except NotConnected:
            self._absent.clear()  # a stream may be gone; that a server is, the bus says in the log
            return self.bounds.wait_ms
        self.has_looked = True
        if self.trouble is not None:
            log.info("record.writes_again", was=self.trouble)
            self.trouble = None
        return 0 if count >= self.bounds.rows else self.bounds.wait_ms

    async def _take(self, stream: str) -> int:
        """Read and write the next stretch of a stream; return how many rows it was, a whole batch where more waits."""
        reader, position = self._readers[stream], self.store.positions.get(stream)
        after = 0 if position is None else position.sequence
        bounds, clock = self.bounds, self.bus.clock
        if not await self._is_there(stream):
            return 0
        found = await reader.read(after, messages_max=bounds.messages_max, bytes_max=bounds.bytes_max)
        extent = await reader.extent()
        if extent is None:
            self._absent[stream] = 0
            return 0
        first = after + 1 if not source(stream).is_whole else found[0].sequence if found else extent.first
        begin, gap = begun(position, extent.created_us, first, extent.last)
        if begin != position:
            if gap is not None:
                self.gaps += 1
                log.error("record.gap", stream=stream, first=gap.first, last=gap.last, reason=gap.reason)
            await self.blocking(self.store.begin, stream, begin, gap, clock.wall_ms())
            return bounds.rows  # what was read is of another stretch: read again, at once
        self.lags[stream] = max(0, extent.last - (found[-1].sequence if found else after))
        if not found:
            return 0
        messages = taken(found)
        rows, dead = await self.blocking(self.store.write, stream, extent.created_us, messages, clock.wall_ms())
        self.rows += rows
        self.written_ms = max(self.written_ms, found[-1].at_ms)
        if dead:
            self.dead += dead
            log.warning("record.dead_facts", stream=stream, count=dead)
        is_full = len(found) >= bounds.messages_max or sum(len(one.data) for one in found) * 2 >= bounds.bytes_max
        return bounds.rows if is_full and self.lags[stream] else int(rows)

    async def _is_there(self, stream: str) -> bool:
        """Whether there is such a stream: a server does not answer who reads one that there is not."""
        again_ms, now_ms = self._absent.get(stream, 0), self.bus.clock.now_ms()
        if again_ms is None:
            return True
        if now_ms < again_ms:
            return False
        is_there = await self._readers[stream].extent() is not None
        pause_ms = 0 if stream in self.store.positions else ABSENT_MS
        self._absent[stream] = None if is_there else now_ms + pause_ms
        if not is_there:
            self.lags[stream] = 0
        return is_there

    def _degraded(self, error: RecordUnwritable) -> None:
        if self.trouble is None:
            log.error("record.not_writable", reason=error.text)
        self.trouble = error.text

    async def blocking(self, call: Callable[..., R], *args: Any) -> R:
        """Run something of the store's in its thread, behind what runs there."""
        result: R = await asyncio.shield(asyncio.ensure_future(self.threads.run(call, *args)))
        return result
