"""JetStream's streams in this process: what a memory server keeps of what is published."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from antiphon.bus.protocol import Headers, JournalStream, Stored
from antiphon.decide.grants import allows
from antiphon.errors import NotConnected, Oversize

SUBJECTS_MAX = 1_024
"""As on the real server."""


class Publishing(Protocol):
    """What it needs of the transport that it is over."""

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection."""

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        """Send."""


class MemoryLog:
    """The messages of one stream; age is nothing that a test waits for, so nothing grows too old."""

    def __init__(self, stream: JournalStream) -> None:
        self.stream = stream
        self.sequence = 0
        self._bytes = 0
        self._kept: dict[int, Stored] = {}
        """By sequence, the oldest first."""
        self._of_subject: dict[str, deque[int]] = {}

    def store(self, subject: str, data: bytes) -> None:
        """Keep a message, and drop what is beyond the stream's limits; one that is too large is not kept."""
        if len(data) > self.stream.message_bytes_max:
            return
        self.sequence += 1
        self._kept[self.sequence] = Stored(subject, self.sequence, data)
        self._bytes += len(data)
        of_subject = self._of_subject.setdefault(subject, deque())
        of_subject.append(self.sequence)
        if len(of_subject) > self.stream.per_subject_max:
            self._drop(of_subject[0])
        while self._bytes > self.stream.bytes_max:
            self._drop(next(iter(self._kept)))

    def last(self, *patterns: str) -> list[Stored]:
        """Return the last message of each subject that matches, oldest first."""
        matching = (one for one in self._of_subject if any(allows(pattern, one) for pattern in patterns))
        return [self._kept[at] for at in sorted(self._of_subject[subject][-1] for subject in matching)]

    def _drop(self, sequence: int) -> None:
        gone = self._kept.pop(sequence)
        self._bytes -= len(gone.data)
        of_subject = self._of_subject[gone.subject]
        of_subject.remove(sequence)
        if not of_subject:
            del self._of_subject[gone.subject]


class MemoryJournal:
    """One connection's hold of a stream."""

    def __init__(self, transport: Publishing, log: MemoryLog) -> None:
        self._transport = transport
        self._log = log

    async def append(self, subject: str, data: bytes, *, over: str | None = None, last: int = 0) -> int | None:
        """Store and return the sequence; with `over`, only if the last one over those subjects is `last`."""
        self._transport.check()
        if len(data) > self._log.stream.message_bytes_max:
            raise Oversize(f"{len(data)} bytes; {self._log.stream.name} takes {self._log.stream.message_bytes_max}")
        if over is not None:
            known = self._log.last(over)
            if (known[-1].sequence if known else 0) != last:
                return None
        before = self._log.sequence
        await self._transport.publish(subject, data)
        if self._log.sequence == before:  # what lies between has lost it, or holds it back
            raise NotConnected(f"{subject} cannot be stored: no acknowledgement")
        return before + 1

    async def last(self, *patterns: str) -> list[Stored]:
        """Return the last message of each subject, oldest first."""
        self._transport.check()
        found = self._log.last(*patterns)
        if len(found) > SUBJECTS_MAX:
            raise Oversize(f"more than {SUBJECTS_MAX} subjects in {self._log.stream.name}")
        return found
