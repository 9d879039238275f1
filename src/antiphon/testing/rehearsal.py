"""A saga tried out in memory: its two streams, one coordinator, and nodes that are functions; no server, no clock.

```python
from antiphon import Saga
from antiphon.errors import HandlerFailed
from antiphon.testing import Rehearsal

checkout = Saga("checkout").step("charge", node="payments", compensate="refund").step("send", node="mail")


def no_mail(command):
    raise HandlerFailed("the mail server is on fire")


rehearsal = Rehearsal(checkout, {"charge": lambda command: {"id": 7}, "send": no_mail, "refund": lambda command: None})
view = rehearsal.run()
assert (view.state, view.cause.step) == ("compensated", "send")
assert [command.action for command in rehearsal.ran] == ["charge", "send", "send", "send", "refund"]
```

The streams obey the laws of the real ones: one message a subject, links by compare-and-set, the first outcome wins.
The coordinator is the real one's decisions (`decide/saga_drive.py`); time jumps to the next thing that happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from antiphon.decide import saga_desk
from antiphon.decide.saga import Append, Move, fold
from antiphon.decide.saga_drive import Answer, Arm, Done, GiveBack, Handling, Load, Write
from antiphon.decide.saga_log import Entry, Event, Link, Ticket, read, subject_of
from antiphon.decide.saga_retry import Again, after_failure, dice_of
from antiphon.decide.saga_state import Saga as Stored
from antiphon.decide.saga_view import view
from antiphon.errors import AntiphonError, HandlerFailed
from antiphon.messages.saga import SagaDefinition
from antiphon.messages.saga_desk import SagaOrder, SagaSubmit, SagaView
from antiphon.messages.saga_history import (
    OUTCOMES,
    SagaEnded,
    SagaTimerFired,
    StepCommanded,
    StepOutcome,
)
from antiphon.saga import Saga

NOON_MS: Final = 1_800_000_000_000
"""When rehearsals begin, by the broker's clock; a rehearsal gives the same history each time."""
LOOKS_MAX: Final = 100_000
"""Timers in one run; a saga that is looked at more often than this does not end."""

Handler = Callable[[StepCommanded], JsonValue]


class NoAnswer(Exception):
    """Raised by a handler whose node dies: nobody will hear what became of it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One message as a stream keeps it."""

    stream: str
    subject: str
    seq: int
    at_ms: int
    data: bytes


class Journal:
    """Both streams of one saga, and its timer, with the laws of the server."""

    def __init__(self, saga: str) -> None:
        self.saga = saga
        self.kept: list[Kept] = []
        self.timer_ms: int | None = None
        self._taken: set[str] = set()

    def append(self, event: Link, expected: int, at_ms: int, **keys: str) -> int | None:
        """Store a link if the chain's last sequence is still this one; return its sequence, or None."""
        chain = [one.seq for one in self.kept if f".saga.{self.saga}.k." in one.subject]
        return self.keep(event, at_ms, **keys) if max(chain, default=0) == expected else None

    def keep(self, event: Event, at_ms: int, **keys: str) -> int | None:
        """Store anything else; return its sequence, or None where its subject is taken."""
        subject = subject_of(event, self.saga, **keys)
        if subject in self._taken:
            return None
        stream = event.route.stream or ""
        seq = max((one.seq for one in self.kept if one.stream == stream), default=0) + 1
        self._taken.add(subject)
        self.kept.append(Kept(stream, subject, seq, at_ms, to_json(event, exclude_none=True)))
        return seq

    def arm(self, at_ms: int, *, is_first: bool) -> None:
        """Set the timer, or, with `is_first`, only if none is set."""
        if self.timer_ms is None or not is_first:
            self.timer_ms = at_ms

    def entries(self, stream: str | None = None) -> list[Entry]:
        """Return what is kept, read from its bytes as a coordinator reads it."""
        found = [read(one.subject, one.data, one.seq, one.at_ms) for one in self.kept if stream in (None, one.stream)]
        return [entry for entry in found if entry is not None]


class Rehearsal:
    """One saga, tried out.

    Args:
        saga: what to try.
        handlers: what each action does; it raises an `AntiphonError` to fail, `NoAnswer` to die.
        given: the saga's input.
        id: its id.
        delay_ms: how much later it begins.

    Raises:
        InvalidSaga: it makes no sense.
    """

    def __init__(
        self,
        saga: Saga | SagaDefinition,
        handlers: Mapping[str, Handler],
        given: Mapping[str, JsonValue] | None = None,
        *,
        id: str = "rehearsal",  # noqa: A002 - it is what the wire calls it
        delay_ms: int = 0,
    ) -> None:
        definition = saga.definition if isinstance(saga, Saga) else saga
        self.handlers = dict(handlers)
        self.journal = Journal(id)
        self.now_ms = NOON_MS
        self.ran: list[StepCommanded] = []
        """What handlers were called with, each attempt."""
        self.end: SagaEnded | None = None
        """What whoever waits was told."""
        self._events: list[Entry] = []
        self._commands: list[Entry] = []
        ask = SagaSubmit(id=id, definition=definition, input=dict(given or {}), delay_ms=delay_ms, wait=True)
        start = saga_desk.begin(ask, "rehearsal", lambda step: f"any-{step.action}", reply="_I.rehearsal.0.0")
        self._make(Append(start, 0))

    @property
    def stored(self) -> Stored:
        """The saga as its history says."""
        saga = Stored(self.journal.saga)
        for entry in self.journal.entries():
            saga = fold(saga, entry)
        return saga

    @property
    def view(self) -> SagaView:
        """The saga as it stands, with its history."""
        found = view(self.stored, self.now_ms, has_history=True)
        assert found is not None
        return found

    def run(self, *, until_ms: int | None = None) -> SagaView:
        """Let everything happen until the saga has ended, is parked or paused, or so much time has passed."""
        end_ms = None if until_ms is None else self.now_ms + until_ms
        for _ in range(LOOKS_MAX):
            while self._events or self._commands:
                self._handle(self._events.pop(0)) if self._events else self._work(self._commands.pop(0))
            timer_ms = self.journal.timer_ms
            is_waiting = self.view.state in ("parked", "paused") and not self._is_running
            if timer_ms is None or self.stored.end is not None or is_waiting:
                break
            if end_ms is not None and timer_ms > end_ms:
                self.now_ms = end_ms
                break
            self._fire(timer_ms)
        return self.view

    def order(self, order: str, step: str | None = None, *, by: str = "ops", **said: JsonValue) -> None:
        """Give an order as an operator; raises `WrongState` where it makes no sense."""
        ask = SagaOrder.model_validate({"id": self.journal.saga, "order": order, "step": step, **said})
        event = saga_desk.order(ask, self.stored, by, is_operator=True)
        self._tick()
        self.journal.keep(event, self.now_ms, nonce=f"o{len(self.journal.kept)}")
        self._events.append(self.journal.entries()[-1])

    def sleep_ms(self, ms: int) -> None:
        """Let time pass; handlers may call it."""
        self.now_ms += ms

    @property
    def _is_running(self) -> bool:
        saga = self.stored
        return any(saga.outcome(ticket) is None for ticket in saga.commands)

    def _tick(self) -> None:
        self.now_ms += 1

    def _fire(self, at_ms: int) -> None:
        self.now_ms = max(self.now_ms, at_ms)
        self.journal.timer_ms = None
        self._events.append(Entry(self.journal.saga, 0, self.now_ms, SagaTimerFired(at_ms=at_ms)))

    def _handle(self, event: Entry) -> None:
        """Handle one event as a coordinator does."""
        handling = Handling(event, None)
        while not isinstance(effect := handling.next(self.now_ms), Done | GiveBack):
            match effect:
                case Load():
                    handling.loaded(self.journal.entries())
                case Write(move):
                    seq = self._make(move)
                    handling.refused() if seq is None else handling.written(seq, self.now_ms)
                case Arm(at_ms, is_first):
                    self.journal.arm(at_ms, is_first=is_first)
                    handling.armed()
                case Answer(_, end):
                    self.end = end
                    handling.answered()

    def _make(self, move: Move) -> int | None:
        self._tick()
        journal, keys = self.journal, move.keys()
        if isinstance(move, Append):
            seq = journal.append(move.event, move.expected, self.now_ms, **keys)
        else:
            seq = journal.keep(move.event, self.now_ms, **keys)
        if seq is not None:
            entry = journal.entries()[-1]
            (self._commands if isinstance(move.event, StepCommanded) else self._events).append(entry)
        return seq

    def _work(self, entry: Entry) -> None:
        """Do what a node does with a command."""
        command, ticket = entry.event, entry.ticket
        assert isinstance(command, StepCommanded)
        assert ticket is not None
        outcome = self._outcome(command, ticket, entry.at_ms)
        self._tick()
        if outcome is not None and self.journal.keep(outcome, self.now_ms, ticket=str(ticket), node=entry.node):
            self._events.append(self.journal.entries(OUTCOMES)[-1])

    def _outcome(self, command: StepCommanded, ticket: Ticket, at_ms: int) -> StepOutcome | None:
        began_ms = self.now_ms
        for attempt in range(1, command.retry.attempts_max + 1):
            self.ran.append(command)
            try:
                result = self.handlers[command.action](command)
            except NoAnswer:
                return None
            except AntiphonError as error:
                left_ms = at_ms + command.timeout_ms - self.now_ms
                dice = dice_of(f"{command.key}/{ticket.round}/{attempt}")
                verdict = after_failure(error, command.retry, attempts=attempt, left_ms=left_ms, dice=dice)
                if isinstance(verdict, Again):
                    self.sleep_ms(verdict.delay_ms)
                    continue
                failed = StepOutcome(outcome="failed", code=verdict.code, text=verdict.text, attempts=attempt)
                took_ms = self.now_ms - began_ms
                return failed.model_copy(update={"retryable": verdict.is_retryable, "took_ms": took_ms})
            return StepOutcome(outcome="succeeded", result=result, attempts=attempt, took_ms=self.now_ms - began_ms)
        raise AssertionError("after_failure gives up at the last attempt")


def failing(times: int, then: JsonValue = None, error: AntiphonError | None = None) -> Handler:
    """Return a handler that fails so often and then returns a result."""
    left = [times]

    def handler(_command: StepCommanded) -> JsonValue:
        left[0] -= 1
        if left[0] >= 0:
            raise error or HandlerFailed("not yet")
        return then

    return handler
