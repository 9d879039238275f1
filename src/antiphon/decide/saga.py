"""The saga itself: a fold over what was stored, and the next moves, a pure function of that and of the time.

Forward, each step is commanded when all that it comes after is done. A critical step that failed or whose outcome is
unknown, a cancel, or the deadline turns the saga back: what still runs ends first, then every step that was *or may
have been* done is undone, the last commanded first, one at a time. Once the pivot is done there is no back: what comes
after it is commanded round after round. What can be neither done nor undone is parked for an operator, and nothing is
ever dropped (Garcia-Molina and Salem, Sagas, 1987, with their backward and forward recovery).

Moves are for whoever can make them: a link of the chain is written by compare-and-set on `Saga.last`, a `Void` where
the first writer wins. So two coordinators that see different parts may decide at once and one of them is refused. That
covers what was written; that *nothing* is to be done only a fresh read can say (`decide/saga_drive.py`).

Everything that makes a move possible is stored for good or is time that has passed, so a move that was right on what
one coordinator had read is right on all that there is, with one care: a coordinator reads the chain first and the
outcomes after it, so that it never sees a link without the outcome that the link was decided on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace
from pydantic import JsonValue

from antiphon.decide.saga_known import known
from antiphon.decide.saga_log import Entry, Link, Ticket, Way
from antiphon.decide.saga_plan import Plan
from antiphon.decide.saga_refs import Unresolved, resolve
from antiphon.decide.saga_retry import Dice, dice_of, wait_ms
from antiphon.decide.saga_state import (
    UNRESOLVED,
    Command,
    Fate,
    Leg,
    Order,
    Saga,
    Standing,
    Stored,
    cause,
    is_passed,
    scope,
    standing,
)
from antiphon.decide.saga_view import ended
from antiphon.errors import InvalidSaga
from antiphon.messages.saga import TIMEOUT_MS_MIN, SagaRetry
from antiphon.messages.saga_history import (
    Ended,
    SagaEnded,
    SagaOrdered,
    SagaParked,
    SagaResumed,
    SagaStarted,
    StepCommanded,
    StepDone,
    StepOutcome,
    StepTold,
    StepVoided,
)

GRACE_MS: Final = 500
"""Between a command's deadline, after which its effect must not begin, and its being taken for unknown."""
IDLE_MS: Final = 600_000
"""An open saga is looked at at least this often, whatever was lost."""

K = TypeVar("K")
V = TypeVar("V")


class Append(msgspec.Struct, frozen=True, gc=False):
    """Write a link of the chain if the chain's last sequence is still `expected`.

    Attributes:
        event: what to write.
        expected: over the saga's whole chain, 0 for its start.
        ticket: of a command, a park or a resume.
        node: of a command.
    """

    event: Link
    expected: int
    ticket: Ticket | None = None
    node: str = ""

    def keys(self) -> dict[str, str]:
        """Return the keys of its subject besides the saga."""
        found = {} if self.ticket is None else {"ticket": str(self.ticket)}
        return found | ({"node": self.node} if self.node else {})


class Void(msgspec.Struct, frozen=True, gc=False):
    """Write that an outcome is unknown, if there is none yet."""

    event: StepVoided
    ticket: Ticket
    node: str

    def keys(self) -> dict[str, str]:
        """Return the keys of its subject besides the saga."""
        return {"ticket": str(self.ticket), "node": self.node}


class Keep(msgspec.Struct, frozen=True, gc=False):
    """Write an outcome that nothing follows from yet, if there is none yet."""

    event: StepOutcome
    ticket: Ticket
    node: str

    def keys(self) -> dict[str, str]:
        """Return the keys of its subject besides the saga."""
        return {"ticket": str(self.ticket), "node": self.node}


Move = Append | Void | Keep


def fold(saga: Saga, entry: Entry) -> Saga:
    """Return a saga with one more stored message; the order does not matter, and once is the same as twice."""
    assert entry.saga == saga.id, "an entry of another saga"
    last = max(saga.last, entry.seq) if entry.is_link else saga.last
    return replace(saga, **_said(saga, entry), last=last, newest_ms=max(saga.newest_ms, entry.at_ms))


def moves(saga: Saga, now_ms: int, dice: Dice = dice_of) -> tuple[Move, ...]:
    """Return what may be written now, the most urgent first; nothing while the saga waits, and once it has ended.

    Make the first, add it to the saga, and ask again: each of the others expects the chain as it is now.

    Args:
        saga: what was read of it.
        now_ms: the broker's time; what was read proves a least one, which counts where it is later.
        dice: draws the jitter of rounds, the same for each coordinator.
    """
    if saga.start is None or saga.plan is None or saga.end is not None or saga.is_foreign:
        return ()
    now_ms = max(now_ms, saga.newest_ms)
    return tuple(_Turn(saga, saga.plan, now_ms, dice).moves())


def wake_ms(saga: Saga, now_ms: int, dice: Dice = dice_of) -> int | None:
    """Return when the saga is to be looked at again, later than now; None once it has ended.

    A command that is written after this was asked has its deadline no earlier than this plus the shortest timeout: so
    one timer is enough for all, and it is not set anew for each command.
    """
    if saga.start is None or saga.plan is None or saga.end is not None:
        return None
    now_ms = max(now_ms, saga.newest_ms)
    turn = _Turn(saga, saga.plan, now_ms, dice)
    return min(at_ms for at_ms in turn.dues() if at_ms > now_ms)


def has_round_to_come(saga: Saga, now_ms: int, dice: Dice = dice_of) -> bool:
    """Whether a command waits for its time to be given again, which may be earlier than the timer was set to."""
    if saga.start is None or saga.plan is None or saga.end is not None or saga.is_paused:
        return False
    if all(one.said.outcome == "succeeded" for one in saga.outcomes.values()):
        return False
    now_ms = max(now_ms, saga.newest_ms)
    return any(at_ms > now_ms for at_ms in _Turn(saga, saga.plan, now_ms, dice).rounds())


class _Turn:
    """One look at a saga at one time."""

    def __init__(self, saga: Saga, laid_out: Plan, now_ms: int, dice: Dice) -> None:
        self.saga = saga
        self.plan = laid_out
        self.now_ms = now_ms
        self.dice = dice
        self.stand: Standing = standing(saga, laid_out)
        self.cause = cause(saga, laid_out, self.stand, now_ms)

    def moves(self) -> Iterator[Move]:
        if self.saga.latest("abandon") is not None:
            yield self._end("abandoned")
            return
        yield from self._voids()
        yield from self._resumes()
        is_early = self.now_ms < self.saga.begins_ms
        if self.saga.is_paused or (is_early and self.cause is None):
            return
        yield from self._forward() if self.cause is None else self._backward()

    def dues(self) -> Iterator[int]:
        """Yield every time at which there could be something to do; some may have passed."""
        yield self.now_ms + IDLE_MS
        is_at_work = any(True for _ in self._running())
        yield from (command.due_ms(GRACE_MS) for command in self._running())
        if not self.saga.is_paused:
            yield self.saga.begins_ms
            if self.cause is None and not self.stand.is_committed:
                yield self.saga.deadline_ms
            rounds = list(self.rounds())
            yield from rounds
            is_at_work = is_at_work or bool(rounds)
        if is_at_work:
            yield self.now_ms + self.plan.shortest_ms

    def rounds(self) -> Iterator[int]:
        """Yield when each leg that is to be commanded again is due."""
        for number, leg in self._musts():
            at_ms = self._round_ms(number, leg)
            if at_ms is not None:
                yield at_ms

    # -- what came from outside: time that has passed, orders

    def _running(self) -> Iterator[Command]:
        return (one for ticket, one in self.saga.commands.items() if self.saga.outcome(ticket) is None)

    def _voids(self) -> Iterator[Void]:
        for command in self._running():
            if self.now_ms >= command.due_ms(GRACE_MS):
                text = f"no outcome within {command.said.timeout_ms} ms"
                yield Void(StepVoided(text=text), command.ticket, command.node)

    def _resumes(self) -> Iterator[Append]:
        """Yield what follows the first order for each ticket at which the saga is parked."""
        for ticket, parked in self.saga.parks.items():
            order = next((one for one in self.saga.orders if one.said.ticket == str(ticket)), None)
            if order is None or ticket in self.saga.resumes:
                continue
            said = order.said
            if said.order in ("retry", "skip", "resolve"):
                event = SagaResumed(
                    step=parked.said.step,
                    order=said.order,
                    by=said.by,
                    nonce=order.nonce,
                    outcome=said.outcome,
                    result=said.result,
                )
                yield Append(event, self.saga.last, ticket)

    # -- forward

    def _forward(self) -> Iterator[Move]:
        is_over = True
        for number, leg in self.stand.forth.items():
            if leg.params is not None:
                yield self._do(number, leg.ticket)
            is_over = is_over and is_passed(leg, self.plan.steps[number - 1])
        for number, leg in self._musts():
            yield from self._pursue(number, leg)
        if is_over:
            yield self._end("completed")

    def _musts(self) -> Iterator[tuple[int, Leg]]:
        """Yield the legs that ended without being done and for which there is no other way than to go on with them."""
        if self.cause is None:
            yield from (
                (number, leg)
                for number, leg in self.stand.forth.items()
                if leg.is_open and self.stand.is_committed and self.plan.step(number).critical
            )
            return
        turn = self._doubt()
        if turn is not None:
            yield turn
            return
        number = next((one for one in self.stand.to_undo(self.plan) if not self.stand.back[one].is_done), 0)
        if number and self.stand.back[number].is_open:
            yield number, self.stand.back[number]

    # -- backward

    def _backward(self) -> Iterator[Move]:
        if any(leg.fate is Fate.RUNNING for leg in self.stand.forth.values()):
            return  # nobody can tell yet whether it has to be undone, and it would have to be undone first
        doubt = self._doubt()
        if doubt is not None:
            yield from self._pursue(*doubt)
            return
        for number in self.stand.to_undo(self.plan):
            leg = self.stand.back[number]
            if leg.is_done:
                continue
            if leg.fate is Fate.WAITING:
                yield self._undo(number, leg.ticket)
            elif leg.is_open:
                yield from self._pursue(number, leg)
            return
        yield self._end("compensated")

    def _doubt(self) -> tuple[int, Leg] | None:
        """Return the pivot where nobody knows whether it was done and nothing could undo it: that must be found out."""
        if not self.plan.pivot or self.plan.step(self.plan.pivot).compensate is not None:
            return None
        leg = self.stand.forth[self.plan.pivot]
        return (self.plan.pivot, leg) if leg.fate is Fate.UNKNOWN else None

    # -- commands

    def _pursue(self, number: int, leg: Leg) -> Iterator[Append]:
        """Yield the next round of a leg that must be done, once it is due, or park it."""
        if leg.is_parked:
            return
        at_ms = self._round_ms(number, leg)
        if at_ms is None:
            step = self.plan.step(number).name
            event = SagaParked(step=step, code=leg.code or leg.fate, text=leg.text or "")
            yield Append(event, self.saga.last, leg.ticket)
        elif self.now_ms >= at_ms:
            ticket = leg.ticket if leg.is_ordered else leg.ticket.next()
            yield self._do(number, ticket) if ticket.way == Way.FORTH else self._undo(number, ticket)

    def _round_ms(self, number: int, leg: Leg) -> int | None:
        """Return when the next round of a leg is due, None where there is none without an operator."""
        if leg.is_parked or leg.last is None:
            return None
        if leg.is_ordered:
            return self.now_ms
        retry = self._retry(number, leg.ticket)
        if leg.is_hopeless or leg.ticket.round >= retry.rounds_max:
            return None
        return leg.ended_ms + wait_ms(retry, leg.ticket.round, self.dice(f"{self.saga.id}/{leg.ticket}"))

    def _retry(self, number: int, ticket: Ticket) -> SagaRetry:
        step = self.plan.step(number)
        undo = step.compensate
        return step.retry if ticket.way == Way.FORTH or undo is None else undo.retry

    def _do(self, number: int, ticket: Ticket) -> Append:
        step, leg = self.plan.step(number), self.stand.forth[number]
        timeout_ms = step.timeout_ms
        if self.cause is None and not self.stand.is_committed:  # it ends with the saga, but has time enough to work
            timeout_ms = min(timeout_ms, max(TIMEOUT_MS_MIN, self.saga.deadline_ms - self.now_ms))
        params = leg.params if leg.params is not None or leg.last is None else leg.last.said.params
        event = self._command(
            number, ticket, action=step.action, params=dict(params or {}), timeout_ms=timeout_ms, retry=step.retry
        )
        return Append(event, self.saga.last, ticket, step.node or "")

    def _undo(self, number: int, ticket: Ticket) -> Append:
        step, done = self.plan.step(number), self.stand.forth[number]
        undo = step.compensate
        assert undo is not None
        assert done.last is not None
        try:
            params = resolve(undo.params, scope(self.saga, self.plan, number, self.stand.forth))
        except Unresolved as error:
            parked = SagaParked(step=step.name, code=UNRESOLVED, text=str(error)[:200])
            return Append(parked, self.saga.last, ticket)
        what = StepDone(params=done.last.said.params, result=done.result, is_known=done.fate is Fate.SUCCEEDED)
        event = self._command(
            number, ticket, action=undo.action, params=params, timeout_ms=undo.timeout_ms, retry=undo.retry, undo=what
        )
        return Append(event, self.saga.last, ticket, done.last.node)

    def _command(
        self,
        number: int,
        ticket: Ticket,
        *,
        action: str,
        params: dict[str, JsonValue],
        timeout_ms: int,
        retry: SagaRetry,
        undo: StepDone | None = None,
    ) -> StepCommanded:
        start = self.saga.start
        assert start is not None
        return StepCommanded(
            step=self.plan.step(number).name,
            action=action,
            params=params,
            key=ticket.key(self.saga.id),
            timeout_ms=timeout_ms,
            retry=retry,
            saga=start.definition.name,
            caller=start.caller,
            groups=start.groups,
            delegate=start.delegate,
            undo=undo,
        )

    def _end(self, state: Ended) -> Append:
        return Append(ended(self.saga, self.plan, self.stand, state, self.cause), self.saga.last)


def _said(saga: Saga, entry: Entry) -> dict[str, Any]:
    """Return the fields of a saga that an entry changes; the timer says nothing of it."""
    match entry.event:
        case None:
            return {"is_foreign": True}
        case SagaStarted() as start:
            return _begun(saga, entry, start)
        case SagaEnded() as end:
            return {"end": end, "ended_ms": entry.at_ms} | _told(saga, entry, end.told)
        case SagaOrdered() as order:
            return {"orders": _ordered(saga, Order(entry.nonce, entry.seq, entry.at_ms, order))}
        case _:
            return {} if entry.ticket is None else _said_of(saga, entry, entry.ticket)


def _said_of(saga: Saga, entry: Entry, ticket: Ticket) -> dict[str, Any]:
    seq, at_ms = entry.seq, entry.at_ms
    match entry.event:
        case StepCommanded() as command:
            commands = _with(saga.commands, ticket, Command(ticket, entry.node, seq, at_ms, command))
            return {"commands": commands} | _told(saga, entry, command.told)
        case StepOutcome() | StepVoided() as said:
            return {"outcomes": _with(saga.outcomes, (ticket, entry.node), Stored(seq, at_ms, said))}
        case SagaParked() as parked:
            return {"parks": _with(saga.parks, ticket, Stored(seq, at_ms, parked))}
        case SagaResumed() as resumed:
            return {"resumes": _with(saga.resumes, ticket, Stored(seq, at_ms, resumed))}
        case _:
            return {}


def _begun(saga: Saga, entry: Entry, start: SagaStarted) -> dict[str, Any]:
    try:
        laid_out = known(start.definition).plan
    except InvalidSaga:  # it was checked before it was stored, by rules that this version does not know
        laid_out = None
    is_foreign = saga.is_foreign or laid_out is None or any(step.node is None for step in start.definition.steps)
    begun = {"start": start, "plan": laid_out, "started_ms": entry.at_ms, "is_foreign": is_foreign}
    if start.first is None or laid_out is None:
        return begun
    number = laid_out.number(start.first.step)
    ticket, node = Ticket(number, Way.FORTH), laid_out.step(number).node or ""
    first = Command(ticket, node, entry.seq, entry.at_ms, start.first)
    return begun | {"commands": _with(saga.commands, ticket, first)}


def _told(saga: Saga, entry: Entry, told: StepTold | None) -> dict[str, Any]:
    """Return the outcomes with one that came with a link."""
    ticket = None if told is None else Ticket.parse(told.ticket)
    if told is None or ticket is None:
        return {}
    key = (ticket, told.node)
    there = saga.outcomes.get(key)
    if there is not None and there.is_link:
        return {}
    return {"outcomes": {**saga.outcomes, key: Stored(entry.seq, entry.at_ms, told.said, is_link=True)}}


def _ordered(saga: Saga, order: Order) -> tuple[Order, ...]:
    if any(one.nonce == order.nonce for one in saga.orders):
        return saga.orders
    return tuple(sorted((*saga.orders, order), key=lambda one: one.seq))


def _with(mapping: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return mapping if key in mapping else {**mapping, key: value}
