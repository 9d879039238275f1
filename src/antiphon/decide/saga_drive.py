"""One coordinator's handling of one event, sans-I/O: what to read, what to write, and when it may acknowledge.

Coordinators hold no lease and keep no state but a cache that may be stale. Compare-and-set stops two of them from both
driving a saga; it cannot stop one from deciding on stale state that *nothing* is to be done, for that writes nothing.
So nothing is only ever decided on a fresh read (without that line one saga in a thousand was left standing). There is
one exception, which saves a read on the way that most sagas take: after a command was written its outcome will come,
and whoever handles that decides again. The timer is what makes it come, so it is armed at every handling of the start
and not only at the first: whoever handled it before may have died in between.

The caller makes each effect, tells what came of it, and asks for the next:

    handling = Handling(entry, cached, is_again=redelivered)
    while not isinstance(effect := handling.next(now_ms), Done | GiveBack): ...

The event is stored already, but for an outcome that a node has just told: that is stored with what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from antiphon.decide.saga import Keep, Move, Void, fold, has_round_to_come, moves, wake_ms
from antiphon.decide.saga_log import Entry
from antiphon.decide.saga_retry import Dice, dice_of
from antiphon.decide.saga_state import Saga
from antiphon.decide.saga_together import followed, is_all
from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaStarted,
    SagaTimerFired,
    StepCommanded,
    StepOutcome,
    StepVoided,
)

READS_MAX: Final = 16
"""Reads in one handling; whoever was overtaken so often gives the event back and lets the others finish."""
AGAIN_MS: Final = 1_000
FOREIGN_MS: Final = 5_000
"""Before an event that this version cannot handle is offered again, to a newer one, it may be hoped."""


class Load(msgspec.Struct, frozen=True, gc=False):
    """Read everything of the saga, `sagas` first and `outcomes` after it, and call `loaded`.

    In this order no link is read without the outcome that it was decided on; from the leader, where there are replicas.
    """


class Write(msgspec.Struct, frozen=True, gc=False):
    """Make the move, and call `written` or, refused or without an answer in time, `refused`."""

    move: Move


class Arm(msgspec.Struct, frozen=True, gc=False):
    """Set the saga's timer, and call `armed`; with `is_first` only if none is set: that none was is what counts."""

    at_ms: int
    is_first: bool


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Tell who waits how the saga ended, and call `answered`; it may have been told before."""

    reply: str
    end: SagaEnded


class Done(msgspec.Struct, frozen=True, gc=False):
    """Acknowledge the event, and keep the saga in the cache if it is open."""

    saga: Saga


class GiveBack(msgspec.Struct, frozen=True, gc=False):
    """Do not acknowledge: the event is to come again, after so long."""

    delay_ms: int


Effect = Load | Write | Arm | Answer | Done | GiveBack


class Handling:
    """One event being handled.

    Args:
        entry: the event.
        cached: what this coordinator knows of the saga, None where it knows nothing.
        is_again: whether the event was delivered before: whatever was done then is in the streams. Of an outcome that
            was told, that to store it with what follows has failed: it is stored by itself.
        is_told: whether it is an outcome that is not stored yet, which is to be done first.
        dice: as for `moves`.
    """

    __slots__ = (
        "_dice",
        "_entry",
        "_is_again",
        "_is_all",
        "_is_answered",
        "_is_armed",
        "_is_followed",
        "_is_fresh",
        "_is_rested",
        "_is_told",
        "_reads",
        "_saga",
        "_sent",
        "is_kept",
    )

    def __init__(
        self,
        entry: Entry,
        cached: Saga | None,
        *,
        is_again: bool = False,
        is_told: bool = False,
        dice: Dice = dice_of,
    ) -> None:
        self._entry = entry
        self._dice = dice
        self._is_again = is_again
        self._is_told = is_told
        self.is_kept: bool | None = None
        """Whether the outcome that was told is what is stored of its command; None as long as nobody knows."""
        self._saga: Saga | None = None
        self._is_fresh = False
        self._is_followed = False
        """Whether something was written that another event will follow, whose handling decides again."""
        self._is_answered = False
        self._is_armed = False
        self._reads = 0
        self._sent: Move | None = None
        self._is_all = False
        """Whether nothing is left to do once what was sent is stored."""
        self._is_rested = False
        """Whether nothing is left to do."""
        if is_again:
            return
        if is_told:
            self._saga = cached
        elif isinstance(entry.event, SagaStarted):  # its first delivery: there was nothing before it
            self._saga = cached if cached is not None and cached.start is entry.event else fold(Saga(entry.saga), entry)
            self._is_followed = entry.event.first is not None
        elif isinstance(entry.event, StepOutcome | StepVoided) and cached is not None:
            self._saga = fold(cached, entry)

    @property
    def saga(self) -> Saga | None:
        """The saga as far as it is known here; None before it was read."""
        return self._saga

    def next(self, now_ms: int) -> Effect:
        """Return what to do now; the time is the broker's, as far as this coordinator can tell."""
        saga = self._saga
        if saga is None:
            return self._load()
        if self._is_told and self.is_kept is None:
            effect = self._told(saga, now_ms)
            if effect is not None:
                return effect
        return self._driven(saga, now_ms)

    def _driven(self, saga: Saga, now_ms: int) -> Effect:
        """Return what follows from all that is stored."""
        if saga.is_foreign and saga.end is None:
            return GiveBack(FOREIGN_MS)
        found = () if self._is_rested else moves(saga, now_ms, self._dice)
        for move in found[:1]:
            self._sent, self._is_all = move, is_all(found)
            return Write(move)
        if not (self._is_fresh or self._is_followed or saga.end is not None):
            return self._load()  # that there is nothing to do only a fresh read can say
        if saga.end is not None:
            return self._ended(saga, saga.end)
        return self._armed(saga, now_ms)

    def loaded(self, entries: Iterable[Entry]) -> None:
        """Take what was read of the saga; the event itself counts as read, if it was stored."""
        saga = Saga(self._entry.saga)
        for entry in entries if self._is_told else (*entries, self._entry):
            saga = fold(saga, entry)
        self._saga, self._is_fresh, self._is_followed, self._is_rested = saga, True, False, False

    def written(self, seq: int, at_ms: int) -> None:
        """Take that the move was stored, where and, as this coordinator's clock has it, when; a read corrects that."""
        move, saga = self._sent, self._saga
        assert move is not None
        assert saga is not None
        entry = Entry(saga.id, seq, at_ms, move.event, move.ticket, move.node)
        self._saga, self._sent = fold(saga, entry), None
        if self._is_told and self.is_kept is None:  # nothing else was sent before
            self.is_kept = True
        self._is_followed = isinstance(move, Void) or isinstance(move.event, StepCommanded)
        self._is_fresh = self._is_fresh and self._is_followed
        self._is_rested = self._is_all

    def refused(self) -> None:
        """Take that the move was not stored, or that nobody knows: the streams say, and it is decided again."""
        self._sent = self._saga = None
        self._is_rested = False

    def armed(self) -> None:
        """Take that the saga's timer is set, by this or by another one."""
        self._is_armed = True

    def answered(self) -> None:
        """Take that whoever waits was told."""
        self._is_answered = True

    def _told(self, saga: Saga, now_ms: int) -> Effect | None:
        """Return what stores the outcome that was told, None where that is decided."""
        entry = self._entry
        assert entry.ticket is not None
        command, there = saga.commands.get(entry.ticket), saga.outcomes.get((entry.ticket, entry.node))
        if there is not None:
            self.is_kept = there.said == entry.event
        elif saga.end is None and command is not None and command.node == entry.node:
            if self._is_again:  # where what follows cannot be stored, say its stream is full, this may be
                assert isinstance(entry.event, StepOutcome)
                self._sent, self._is_all = Keep(entry.event, entry.ticket, entry.node), False
            else:
                self._sent, self._is_all = followed(saga, entry, now_ms, self._dice)
            return Write(self._sent)
        elif not self._is_fresh:
            return self._load()
        else:  # it is over, or it never was
            self.is_kept = False
        return None

    def _load(self) -> Effect:
        self._reads += 1
        return Load() if self._reads <= READS_MAX else GiveBack(AGAIN_MS)

    def _ended(self, saga: Saga, end: SagaEnded) -> Effect:
        reply = None if saga.start is None else saga.start.reply
        if reply is None or self._is_answered:
            return Done(saga)
        return Answer(reply, end)

    def _armed(self, saga: Saga, now_ms: int) -> Effect:
        """Return the timer that this event asks for, and then that all is done.

        One timer is set at the start and at each firing, early enough for every command that will be written before it
        fires (`wake_ms`). Orders and rounds may want to be looked at earlier than that, so they set it anew.
        """
        event = self._entry.event
        is_first = isinstance(event, SagaStarted | SagaTimerFired)
        arms = is_first or isinstance(event, SagaOrdered) or has_round_to_come(saga, now_ms, self._dice)
        at_ms = wake_ms(saga, now_ms, self._dice) if arms and not self._is_armed else None
        return Done(saga) if at_ms is None else Arm(at_ms, is_first)
