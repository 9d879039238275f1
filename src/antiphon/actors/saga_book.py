"""The streams of sagas as one master reads and writes them: in one or several shards, a saga's by the hash of its id.

Where every write waits for the disk, one stream does one write after the other; several do theirs side by side. A shard
is a set of streams whose subjects begin with a prefix of its own, so nothing else knows of shards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from antiphon.bus.assets import SAGA_BYTES_MAX, outcomes_of, sagas_of, timers_of
from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Journal, Stored, Subscription
from antiphon.decide.saga import Append, Move
from antiphon.decide.saga_log import Entry, Ticket, chain_of, read, subject_of
from antiphon.errors import Oversize
from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaTimerFired,
    SagaTimerSet,
    StepOffered,
)

CHUNK: Final = 512
"""Subjects asked for by name in one question, where a saga has more than the server finds by a pattern."""
TIMERS_FOLLOWED: Final = "coordinators"
"""The name that all masters share."""
FIRED_KEEP_MS: Final = 3_600_000
"""A timer that has fired goes by itself, so nobody has to purge it. One that no master has taken by then is set again
by the first that looks through all sagas."""

Take = Callable[[Entry], Awaitable[bool]]
"""Takes a timer that has fired; returns whether it is done with it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The streams of some of the sagas.

    Attributes:
        prefix: what their subjects begin with.
        sagas: histories.
        outcomes: what became of commands.
        timers: when each saga is to be looked at again.
    """

    prefix: str
    sagas: Journal
    outcomes: Journal
    timers: Journal

    @classmethod
    async def open(cls, bus: Bus, prefix: str, bytes_max: int) -> Shard:
        """Open all three; raises `NotConnected`."""
        journal = bus.transport.journal
        streams = (sagas_of(prefix, bytes_max), outcomes_of(prefix, bytes_max), timers_of(prefix))
        sagas, outcomes, timers = [await journal(stream) for stream in streams]
        return cls(prefix, sagas, outcomes, timers)

    def entry(self, stored: Stored) -> Entry | None:
        """Return a stored message as what it says of a saga."""
        return read(stored.subject, stored.data, stored.sequence, stored.at_ms, prefix=self.prefix)

    def of(self, saga: str, below: str) -> str:
        """Return a pattern of subjects."""
        return f"{self.prefix}.v1.saga.{saga}.{below}"

    def id(self, subject: str) -> str:
        """Return the saga of a subject."""
        return subject[len(self.prefix) :].split(".", 4)[3]


@dataclass(frozen=True, slots=True)
class SagaBook:
    """The streams of sagas.

    Attributes:
        bus: the master's.
        shards: where they are.
        keep_ms: how long the end of a saga is kept, and with it its id.
    """

    bus: Bus
    shards: tuple[Shard, ...]
    keep_ms: int

    @classmethod
    async def open(cls, bus: Bus, keep_ms: int, shards: int = 1, bytes_max: int = SAGA_BYTES_MAX) -> SagaBook:
        """Open all streams; raises `NotConnected`."""
        prefixes = [bus.prefix, *(f"{bus.prefix}-{at}" for at in range(1, shards))]
        opened = [await Shard.open(bus, prefix, bytes_max // shards) for prefix in prefixes]
        return cls(bus, tuple(opened), keep_ms)

    def shard(self, saga: str) -> Shard:
        """Return where a saga is."""
        if len(self.shards) == 1:
            return self.shards[0]
        return self.shards[int.from_bytes(blake2b(saga.encode(), digest_size=8).digest(), "big") % len(self.shards)]

    async def load(self, saga: str) -> list[Entry]:
        """Return all that is kept of a saga, its history first and the outcomes after it (`decide/saga_drive.py`)."""
        at = self.shard(saga)
        stored = await self._last(at.sagas, at.of(saga, "k.>"), at.of(saga, "x.*"))
        stored += await self._last(at.outcomes, f"{at.prefix}.v1.outcome.{saga}.>")
        return [entry for entry in map(at.entry, stored) if entry is not None]

    async def make(self, saga: str, move: Move) -> int | None:
        """Make a move; return its sequence, None where another one was first. Raises `NotConnected`, `Overloaded`."""
        at = self.shard(saga)
        subject = subject_of(move.event, saga, prefix=at.prefix, **move.keys())
        if isinstance(move, Append):
            keep_ms = self.keep_ms if isinstance(move.event, SagaEnded) else None
            over = chain_of(saga, prefix=at.prefix)
            return await at.sagas.append(subject, encode(move.event), over=over, last=move.expected, keep_ms=keep_ms)
        return await at.outcomes.append(subject, encode(move.event))

    async def order(self, saga: str, said: SagaOrdered, nonce: str) -> int | None:
        """Store an order; return its sequence, None where the saga has ended, so that nothing comes after an end."""
        at = self.shard(saga)
        subject = subject_of(said, saga, prefix=at.prefix, nonce=nonce)
        return await at.sagas.append(subject, encode(said), over=at.of(saga, "k.end"))

    async def offer(self, saga: str, ticket: Ticket) -> bool:
        """Take it on to offer a command that may be offered once; return False where somebody has."""
        at, said = self.shard(saga), StepOffered(by=self.bus.name)
        subject = said.route.template.subject(prefix=at.prefix, saga=saga, ticket=str(ticket))
        return await at.sagas.append(subject, encode(said), over=subject) is not None

    async def arm(self, saga: str, at_ms: int, *, is_first: bool = False, end: int = 0) -> None:
        """Set the saga's timer; with `is_first` only if none is set, with `end` to forget a history by then."""
        at, said = self.shard(saga), SagaTimerSet(at_ms=at_ms, end=end)
        target = subject_of(SagaTimerFired(), saga, prefix=at.prefix)
        subject = subject_of(said, saga, prefix=at.prefix)
        await at.timers.schedule(
            subject, encode(said), target=target, at_ms=at_ms, is_first=is_first, keep_ms=FIRED_KEEP_MS
        )

    async def follow(self, take: Take) -> list[Subscription]:
        """Take the timers that have fired, with all other masters."""

        def taking(at: Shard) -> Callable[[Stored], Awaitable[bool]]:
            async def fired(stored: Stored) -> bool:
                entry = at.entry(stored)
                return entry is None or await take(entry)

            return fired

        return [await at.timers.follow(TIMERS_FOLLOWED, at.of("*", "t.fired"), taking(at)) for at in self.shards]

    async def now_ms(self) -> int:
        """Return the broker's time, UTC."""
        return await self.shards[0].timers.now_ms()

    async def fill_permille(self) -> int:
        """Return how full the fullest of the histories and the outcomes is; the timers give up what is old."""
        journals = (journal for at in self.shards for journal in (at.sagas, at.outcomes))
        return max(await asyncio.gather(*(one.fill_permille() for one in journals)))

    async def forget(self, saga: str, end: int, *, has_offers: bool) -> None:
        """Forget all of an ended saga but its end, which has that sequence; its timer has fired and goes by itself.

        Its start goes last: what is left by somebody who died over it is found by that, and forgotten again.

        Args:
            saga: its id.
            end: the sequence of its end. No link and no order comes after that.
            has_offers: whether something of it may have been offered once at most, which may be noted after its end.
        """
        at = self.shard(saga)
        await at.outcomes.purge(f"{at.prefix}.v1.outcome.{saga}.>")
        if has_offers:
            await at.sagas.purge(at.of(saga, "d.*"))
        await at.sagas.purge(at.of(saga, ">"), before=end)

    async def ids(self, below: str) -> list[str]:
        """Return the ids of all sagas that have something below, e.g. `k.start`, `k.park.*`; sorted."""
        found = await asyncio.gather(*(at.sagas.subjects(at.of("*", below)) for at in self.shards))
        return sorted({at.id(one) for at, some in zip(self.shards, found, strict=True) for one in some})

    async def timed(self) -> set[str]:
        """Return the ids of all sagas that have a timer, or one that has fired and was not seen to."""
        found = await asyncio.gather(*(at.timers.subjects(at.of("*", "t.*")) for at in self.shards))
        return {at.id(one) for at, some in zip(self.shards, found, strict=True) for one in some}

    @staticmethod
    async def _last(journal: Journal, *patterns: str) -> list[Stored]:
        try:
            return await journal.last(*patterns)
        except Oversize:
            names = [name for pattern in patterns for name in await journal.subjects(pattern)]
        found: list[Stored] = []
        for at in range(0, len(names), CHUNK):
            found += await journal.last(*names[at : at + CHUNK])
        return found
