"""The streams of sagas as one master reads and writes them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from antiphon.bus.assets import outcomes_of, sagas_of, timers_of
from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Follow, Journal, Stored, Subscription
from antiphon.decide.saga import Append, Move
from antiphon.decide.saga_log import Entry, Ticket, chain_of, read, subject_of
from antiphon.errors import Oversize
from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaTimerFired,
    SagaTimerSet,
    StepOffered,
    StepOutcome,
    StepVoided,
)

CHUNK: Final = 512
"""Subjects asked for by name in one question, where a saga has more than the server finds by a pattern."""
TIMERS_FOLLOWED: Final = "coordinators"
"""The name that all masters share."""


@dataclass(frozen=True, slots=True)
class SagaBook:
    """The streams of sagas.

    Attributes:
        bus: the master's.
        sagas: histories.
        outcomes: what became of commands.
        timers: when each saga is to be looked at again.
        keep_ms: how long the end of a saga is kept, and with it its id.
    """

    bus: Bus
    sagas: Journal
    outcomes: Journal
    timers: Journal
    keep_ms: int

    @classmethod
    async def open(cls, bus: Bus, keep_ms: int) -> SagaBook:
        """Open all three; raises `NotConnected`."""
        transport, prefix = bus.transport, bus.prefix
        return cls(
            bus,
            await transport.journal(sagas_of(prefix)),
            await transport.journal(outcomes_of(prefix)),
            await transport.journal(timers_of(prefix)),
            keep_ms,
        )

    async def load(self, saga: str) -> list[Entry]:
        """Return all that is kept of a saga, its history first and the outcomes after it (`decide/saga_drive.py`)."""
        stored = await self._last(self.sagas, self._of(saga, "k.>"), self._of(saga, "x.*"))
        stored += await self._last(self.outcomes, f"{self.bus.prefix}.v1.outcome.{saga}.>")
        return [entry for entry in map(self.entry, stored) if entry is not None]

    def entry(self, stored: Stored) -> Entry | None:
        """Return a stored message as what it says of a saga."""
        return read(stored.subject, stored.data, stored.sequence, stored.at_ms, prefix=self.bus.prefix)

    async def make(self, saga: str, move: Move) -> int | None:
        """Make a move; return its sequence, None where another one was first. Raises `NotConnected`, `Overloaded`."""
        subject = subject_of(move.event, saga, prefix=self.bus.prefix, **move.keys())
        if isinstance(move, Append):
            keep_ms = self.keep_ms if isinstance(move.event, SagaEnded) else None
            over = chain_of(saga, prefix=self.bus.prefix)
            return await self.sagas.append(subject, encode(move.event), over=over, last=move.expected, keep_ms=keep_ms)
        return await self.outcomes.append(subject, encode(move.event))

    async def outcome(self, saga: str, ticket: Ticket, node: str, said: StepOutcome | StepVoided) -> int | None:
        """Store what became of a command; return the sequence, None where that is decided already."""
        subject = subject_of(said, saga, prefix=self.bus.prefix, ticket=str(ticket), node=node)
        return await self.outcomes.append(subject, encode(said))

    async def order(self, saga: str, said: SagaOrdered, nonce: str) -> int | None:
        """Store an order; return its sequence."""
        return await self.sagas.append(subject_of(said, saga, prefix=self.bus.prefix, nonce=nonce), encode(said))

    async def offer(self, saga: str, ticket: Ticket) -> bool:
        """Take it on to offer a command that may be offered once; return False where somebody has."""
        said = StepOffered(by=self.bus.name)
        subject = said.route.template.subject(prefix=self.bus.prefix, saga=saga, ticket=str(ticket))
        return await self.sagas.append(subject, encode(said), over=subject) is not None

    async def arm(self, saga: str, at_ms: int, *, is_first: bool = False) -> None:
        """Set the saga's timer; with `is_first` only if none is set."""
        await self.timers.schedule(
            subject_of(SagaTimerSet(at_ms=at_ms), saga, prefix=self.bus.prefix),
            encode(SagaTimerSet(at_ms=at_ms)),
            target=subject_of(SagaTimerFired(), saga, prefix=self.bus.prefix),
            at_ms=at_ms,
            is_first=is_first,
        )

    async def follow(self, take: Follow) -> Subscription:
        """Take the timers that have fired, with all other masters."""
        return await self.timers.follow(TIMERS_FOLLOWED, f"{self.bus.prefix}.v1.saga.*.t.fired", take)

    async def forget(self, saga: str, end: int) -> None:
        """Forget all of an ended saga but its end, which has that sequence."""
        await asyncio.gather(
            self.sagas.purge(self._of(saga, "k.>"), before=end),
            self.sagas.purge(self._of(saga, "x.*")),
            self.sagas.purge(self._of(saga, "d.*")),
            self.outcomes.purge(f"{self.bus.prefix}.v1.outcome.{saga}.>"),
            self.forget_timer(saga),
        )

    async def forget_timer(self, saga: str) -> None:
        """Forget the timer of a saga."""
        await self.timers.purge(self._of(saga, "t.*"))

    async def ids(self, below: str) -> list[str]:
        """Return the ids of all sagas that have something below, e.g. `k.start`, `k.park.*`; sorted."""
        found = await self.sagas.subjects(self._of("*", below))
        return sorted({self._id(one) for one in found})

    async def timed(self) -> set[str]:
        """Return the ids of all sagas that have a timer, or one that has fired and was not seen to."""
        return {self._id(one) for one in await self.timers.subjects(self._of("*", "t.*"))}

    def _id(self, subject: str) -> str:
        return subject[len(self.bus.prefix) :].split(".", 4)[3]

    def _of(self, saga: str, below: str) -> str:
        return f"{self.bus.prefix}.v1.saga.{saga}.{below}"

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
