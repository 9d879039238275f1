"""JetStream's streams in this process: what a memory server keeps of what is published."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol

import structlog

from antiphon.bus.protocol import Extent, Follow, Headers, JournalStream, Stored
from antiphon.clock import Clock, LoopClock, Timer
from antiphon.decide.grants import allows
from antiphon.errors import NotConnected, Overloaded, Oversize

log = structlog.get_logger("antiphon.bus")

SUBJECTS_MAX = 1_024
"""As on the real server."""
AGAIN_MS = 30_000
"""What was delivered and nobody was done with is delivered again after that."""
FULL_RETRY_MS = 5_000


class Publishing(Protocol):
    """What it needs of the transport that it is over."""

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection."""

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        """Send."""

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""


class MemoryLog:
    """The messages of one stream; age is nothing that a test waits for, so only timers that have fired grow too old."""

    def __init__(self, stream: JournalStream, clock: Clock | None = None) -> None:
        self.stream = stream
        self.sequence = 0
        self.followers: dict[str, MemoryConsumer] = {}
        self._clock = clock or LoopClock()
        self._created_us = self._clock.now_us()
        self._bytes = 0
        self._kept: dict[int, Stored] = {}
        """By sequence, the oldest first."""
        self._of_subject: dict[str, deque[int]] = {}
        self._timers: dict[str, Timer] = {}

    def store(self, subject: str, data: bytes) -> bool:
        """Keep a message, and drop what is beyond the stream's limits; return False for one that is not kept."""
        stream = self.stream
        if len(data) > stream.message_bytes_max or self.refusal(subject, data) is not None:
            return False
        self._stop_timer(subject)
        self.sequence += 1
        stored = self._kept[self.sequence] = Stored(subject, self.sequence, data, self._clock.wall_ms())
        self._bytes += len(data)
        of_subject = self._of_subject.setdefault(subject, deque())
        of_subject.append(self.sequence)
        if 0 <= stream.per_subject_max < len(of_subject):
            self._drop(of_subject[0])
        while self._bytes > stream.bytes_max:
            self._drop(next(iter(self._kept)))
        for consumer in self.followers.values():
            consumer.offer(stored)
        return True

    def refusal(self, subject: str, data: bytes) -> str | None:
        """Return why a message is not kept, None where it is."""
        stream = self.stream
        if stream.keeps_first and subject in self._of_subject:
            return "taken"
        return "full" if stream.refuses_when_full and self._bytes + len(data) > stream.bytes_max else None

    def last(self, *patterns: str) -> list[Stored]:
        """Return the last message of each subject that matches, oldest first."""
        found = {subject for pattern in patterns for subject in self._matching(pattern)}
        return [self._kept[at] for at in sorted(self._of_subject[subject][-1] for subject in found)]

    def subjects(self, pattern: str) -> list[str]:
        """Return all subjects that match, sorted."""
        return sorted(self._matching(pattern))

    def forget(self, pattern: str, before: int | None) -> None:
        """Forget what matches."""
        for subject in self.subjects(pattern):
            for at in list(self._of_subject[subject]):
                if before is None or at < before:
                    self._drop(at)

    def set_timer(self, subject: str, target: str, at_ms: int, keep_ms: int | None) -> None:
        """Store the message of a subject under another one, in time."""
        sequence = self.sequence

        def fire() -> None:
            del self._timers[subject]
            stored = self._kept.get(sequence)
            if stored is not None:
                self._drop(sequence)
                self.store(target, stored.data)
                if keep_ms is not None:
                    self._clock.call_after(keep_ms, partial(self.forget, target, self.sequence + 1))

        self._timers[subject] = self._clock.call_after(max(0, at_ms - self._clock.wall_ms()), fire)

    def _matching(self, pattern: str) -> list[str]:
        if "*" not in pattern and ">" not in pattern:
            return [pattern] if pattern in self._of_subject else []
        return [one for one in self._of_subject if allows(pattern, one)]

    def _stop_timer(self, subject: str) -> None:
        timer = self._timers.pop(subject, None)
        if timer is not None:
            timer.cancel()

    @property
    def extent(self) -> Extent:
        """Which stream it is, and what is kept of it."""
        return Extent(self._created_us, next(iter(self._kept), self.sequence + 1), self.sequence)

    @property
    def fill_permille(self) -> int:
        """How much of its bytes is taken."""
        return self._bytes * 1_000 // self.stream.bytes_max

    def read(self, after: int, *, messages_max: int, bytes_max: int) -> list[Stored]:
        """Return the next messages behind a sequence, at least one where there is any."""
        found: list[Stored] = []
        size = 0
        for one in (one for sequence, one in self._kept.items() if sequence > after):
            if found and (len(found) >= messages_max or size >= bytes_max):
                break
            found.append(one)
            size += len(one.data)
        return found

    def _drop(self, sequence: int) -> None:
        gone = self._kept.pop(sequence)
        self._bytes -= len(gone.data)
        of_subject = self._of_subject[gone.subject]
        of_subject.remove(sequence)
        if not of_subject:
            del self._of_subject[gone.subject]
            self._stop_timer(gone.subject)


class MemoryConsumer:
    """What several follow under one name: each message goes to one of them that can be reached."""

    def __init__(self, log: MemoryLog, pattern: str) -> None:
        self.pattern = pattern
        self.members: list[MemoryFollower] = []
        self._log = log
        self._turn = 0
        self._waiting: deque[Stored] = deque(log.last(pattern))

    def offer(self, stored: Stored) -> None:
        """Deliver a message that was stored, now or when somebody is there."""
        if allows(self.pattern, stored.subject):
            self._waiting.append(stored)
            self.deliver()

    def deliver(self) -> None:
        """Hand what waits to whoever can be reached, in turn."""
        able = [one for one in self.members if one.is_reachable]
        while able and self._waiting:
            self._turn += 1
            able[self._turn % len(able)].begin(self._waiting.popleft())

    def again(self, stored: Stored) -> None:
        """Deliver once more what nobody was done with, unless it was replaced."""
        if stored in self._log.last(stored.subject):
            self._waiting.append(stored)
            self.deliver()


class MemoryFollower:
    """One of those who share a consumer."""

    def __init__(self, transport: Publishing, consumer: MemoryConsumer, take: Follow, clock: Clock) -> None:
        self._transport = transport
        self._consumer = consumer
        self._follow = take
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        consumer.members.append(self)
        consumer.deliver()
        transport.on_reconnect(consumer.deliver)

    @property
    def is_reachable(self) -> bool:
        """Whether its connection is there."""
        try:
            self._transport.check()
        except NotConnected:
            return False
        return True

    def begin(self, stored: Stored) -> None:
        """Work on a message."""
        task = asyncio.get_running_loop().create_task(self._work(stored), name=f"memory:{stored.subject}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Take no more, and return when what was begun has ended."""
        with suppress(ValueError):
            self._consumer.members.remove(self)
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _work(self, stored: Stored) -> None:
        is_done = False
        try:
            is_done = await self._follow(stored)
        except Exception:
            log.exception("bus.receiver_bug", subject=stored.subject)
        finally:
            if not is_done or not self.is_reachable:
                self._clock.call_after(AGAIN_MS, lambda: self._consumer.again(stored))


class MemoryJournal:
    """One connection's hold of a stream."""

    def __init__(self, transport: Publishing, log: MemoryLog, clock: Clock | None = None) -> None:
        self._transport = transport
        self._log = log
        self._clock = clock or LoopClock()

    async def append(
        self, subject: str, data: bytes, *, over: str | None = None, last: int = 0, keep_ms: int | None = None
    ) -> int | None:
        """Store and return the sequence; with `over`, only if the last one over those subjects is `last`."""
        assert not self._log.stream.no_ack, "nobody would say that it was stored"
        del keep_ms  # age is nothing that a test waits for
        self._transport.check()
        if len(data) > self._log.stream.message_bytes_max:
            raise Oversize(f"{len(data)} bytes; {self._log.stream.name} takes {self._log.stream.message_bytes_max}")
        if over is not None:
            known = self._log.last(over)
            if (known[-1].sequence if known else 0) != last:
                return None
        refusal = self._log.refusal(subject, data)
        if refusal == "full":
            raise Overloaded(f"the stream {self._log.stream.name} is full", retry_after_ms=FULL_RETRY_MS)
        if refusal is not None:
            return None
        before = self._log.sequence
        await self._transport.publish(subject, data)
        if self._log.sequence == before:  # what lies between has lost it, or holds it back
            raise NotConnected(f"{subject} cannot be stored: no acknowledgement")
        return before + 1

    async def schedule(
        self, subject: str, data: bytes, *, target: str, at_ms: int, is_first: bool = False, keep_ms: int | None = None
    ) -> bool:
        """Have the server store the same under `target` at a time, UTC."""
        if await self.append(subject, data, over=subject if is_first else None) is None:
            return False
        self._log.set_timer(subject, target, at_ms, keep_ms)
        return True

    async def follow(self, name: str, pattern: str, take: Follow) -> MemoryFollower:
        """Take what is stored under a pattern; of all who follow under a name one gets each."""
        self._transport.check()
        consumer = self._log.followers.get(name)
        if consumer is None:
            consumer = self._log.followers[name] = MemoryConsumer(self._log, pattern)
        return MemoryFollower(self._transport, consumer, take, self._clock)

    async def last(self, *patterns: str) -> list[Stored]:
        """Return the last message of each subject, oldest first."""
        self._transport.check()
        found = self._log.last(*patterns)
        if len(found) > SUBJECTS_MAX:
            raise Oversize(f"more than {SUBJECTS_MAX} subjects in {self._log.stream.name}")
        return found

    async def subjects(self, pattern: str) -> list[str]:
        """Return all subjects that match a pattern, sorted."""
        self._transport.check()
        return self._log.subjects(pattern)

    async def now_ms(self) -> int:
        """Return the server's time, UTC."""
        self._transport.check()
        return self._clock.wall_ms()

    async def fill_permille(self) -> int:
        """Return how much of its bytes is taken, 1,000 where it is full."""
        self._transport.check()
        return self._log.fill_permille

    async def purge(self, pattern: str, *, before: int | None = None) -> None:
        """Forget what matches a pattern."""
        self._transport.check()
        self._log.forget(pattern, before)


class MemoryReader:
    """A stream as it is read from its beginning to its end."""

    def __init__(self, transport: Publishing, logs: Mapping[str, MemoryLog], stream: str) -> None:
        self._transport = transport
        self._logs = logs
        self._stream = stream

    async def extent(self) -> Extent | None:
        """Return which stream it is and what is kept of it; None where there is none."""
        self._transport.check()
        log = self._logs.get(self._stream)
        return None if log is None else log.extent

    async def read(self, after: int, *, messages_max: int, bytes_max: int) -> list[Stored]:
        """Return the next messages behind a sequence, at least one where there is any."""
        self._transport.check()
        log = self._logs.get(self._stream)
        return [] if log is None else log.read(after, messages_max=messages_max, bytes_max=bytes_max)
