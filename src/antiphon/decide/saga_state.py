"""A saga as its history says: everything that was stored of it, and how each step stands.

`Saga` keeps what was stored, by place, and nothing that follows from it. So it is a join: the same messages in any
order, and any of them twice, give the same saga, which two streams without a common order and at-least-once delivery
ask for. What follows is worked out from it each time: `Leg` is one way of one step (doing it, or undoing it) over all
its rounds, `Standing` is all legs and what they mean together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace
from pydantic import JsonValue

from antiphon.decide.saga_log import Ticket, Way
from antiphon.decide.saga_plan import Plan, Planned
from antiphon.decide.saga_refs import Scope, Unresolved, resolve
from antiphon.messages.saga import STEPS_MAX
from antiphon.messages.saga_history import (
    SagaCause,
    SagaEnded,
    SagaOrdered,
    SagaParked,
    SagaResumed,
    SagaStarted,
    StepCommanded,
    StepOutcome,
    StepVoided,
)

E = TypeVar("E")
Outcome: TypeAlias = StepOutcome | StepVoided

UNRESOLVED: Final = "unresolved"
"""Code of a step whose references point at nothing: it is not commanded, and commanding it again cannot help."""


class Fate(StrEnum):
    """How a leg stands, all its rounds together."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """It was not done."""
    UNKNOWN = "unknown"
    """It may have been done."""
    SKIPPED = "skipped"
    """An operator let it be."""


class Command(msgspec.Struct, frozen=True, gc=False):
    """A command that was stored."""

    ticket: Ticket
    node: str
    seq: int
    at_ms: int
    said: StepCommanded

    def due_ms(self, grace_ms: int) -> int:
        """Return when it is to be taken for unknown."""
        return self.at_ms + self.said.timeout_ms + grace_ms


class Stored(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """What was said, and where and when it was stored.

    Attributes:
        is_link: whether it came with a link of the chain, so that no other outcome of the same command counts.
    """

    seq: int
    at_ms: int
    said: E
    is_link: bool = False


class Order(msgspec.Struct, frozen=True, gc=False):
    """An operator's order that was stored."""

    nonce: str
    seq: int
    at_ms: int
    said: SagaOrdered


class Saga(msgspec.Struct, frozen=True, gc=False):
    """What was stored of one saga.

    Attributes:
        id: its id.
        start: what it is, None before its start was read, and for good once it has ended and was purged.
        plan: the same, laid out.
        started_ms: the broker's stamp of the start.
        commands: by ticket.
        outcomes: by ticket and node; only that of the commanded node counts.
        orders: as they were stored.
        parks: by ticket.
        resumes: what operators ordered about those, and was followed, by ticket.
        end: how it ended.
        ended_ms: the broker's stamp of that.
        last: the last sequence of its chain, which the next link's compare-and-set expects; 0: there is none.
        newest_ms: the latest stamp of the broker that was read, so it is no earlier than that by now.
        is_foreign: a newer version has written what this one cannot read; it is not this one's to drive.
    """

    id: str
    start: SagaStarted | None = None
    plan: Plan | None = None
    started_ms: int = 0
    commands: Mapping[Ticket, Command] = msgspec.field(default_factory=dict[Ticket, Command])
    outcomes: Mapping[tuple[Ticket, str], Stored[Outcome]] = msgspec.field(
        default_factory=dict[tuple[Ticket, str], Stored[Outcome]]
    )
    orders: tuple[Order, ...] = ()
    parks: Mapping[Ticket, Stored[SagaParked]] = msgspec.field(default_factory=dict[Ticket, Stored[SagaParked]])
    resumes: Mapping[Ticket, Stored[SagaResumed]] = msgspec.field(default_factory=dict[Ticket, Stored[SagaResumed]])
    end: SagaEnded | None = None
    ended_ms: int = 0
    last: int = 0
    newest_ms: int = 0
    is_foreign: bool = False

    @property
    def begins_ms(self) -> int:
        """When its first step may be commanded."""
        if self.start is None:
            return self.started_ms
        return max(self.started_ms + self.start.delay_ms, self.start.start_at_ms)

    @property
    def deadline_ms(self) -> int:
        """When it is undone if it is not past its pivot."""
        return self.begins_ms + (0 if self.start is None else self.start.definition.deadline_ms)

    def outcome(self, ticket: Ticket) -> Stored[Outcome] | None:
        """Return what became of a command, from the node that was commanded."""
        command = self.commands.get(ticket)
        return None if command is None else self.outcomes.get((ticket, command.node))

    @property
    def is_at_work(self) -> bool:
        """Whether a command runs; else it waits for a time or a person, and nobody drives it."""
        return any(self.outcome(ticket) is None for ticket in self.commands)

    def latest(self, *orders: str) -> Order | None:
        """Return the last of these orders."""
        return next((one for one in reversed(self.orders) if one.said.order in orders), None)

    @property
    def is_paused(self) -> bool:
        """Whether an operator wants nothing more to be commanded; a cancel after it counts as going on."""
        order = self.latest("pause", "resume", "cancel")
        return order is not None and order.said.order == "pause"


class Leg(msgspec.Struct, frozen=True, gc=False):
    """One way of one step, over all its rounds.

    Attributes:
        ticket: the round that it is about now: the last, or the one that an operator ordered and that is still to come.
        fate: how it stands.
        first: its first command, which its place in the order of dispatch goes by.
        last: its last command.
        params: what to command, where it is this leg's turn.
        result: what it returned, or what an operator said that it should have.
        code: why it failed or is unknown.
        text: the same for people.
        is_hopeless: whether the same command again cannot help.
        is_parked: whether an operator is to decide.
        is_ordered: whether an operator ordered a round that was not commanded yet.
        attempts: runs of the handler in all rounds.
        ended_ms: when the last round ended, or when it could begin.
    """

    ticket: Ticket
    fate: Fate = Fate.WAITING
    first: Command | None = None
    last: Command | None = None
    params: Mapping[str, JsonValue] | None = None
    result: JsonValue = None
    code: str | None = None
    text: str | None = None
    is_hopeless: bool = False
    is_parked: bool = False
    is_ordered: bool = False
    attempts: int = 0
    ended_ms: int = 0

    @property
    def is_done(self) -> bool:
        """Whether what comes after it may go on."""
        return self.fate in DONE

    @property
    def is_open(self) -> bool:
        """Whether it ended without being done."""
        return self.fate in OPEN


DONE: Final = (Fate.SUCCEEDED, Fate.SKIPPED)
OPEN: Final = (Fate.FAILED, Fate.UNKNOWN)
FORTH: Final = tuple(Leg(Ticket(number, Way.FORTH)) for number in range(STEPS_MAX + 1))
"""The leg of doing each step before anything is said of it, by number."""
BACK: Final = tuple(Leg(Ticket(number, Way.BACK)) for number in range(STEPS_MAX + 1))


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How all steps stand.

    Attributes:
        forth: the legs of doing, by number.
        back: the legs of undoing, of the steps that have something that undoes them, by number.
        is_committed: past the pivot.
        is_undoing: something was commanded to be undone, so there is no way forward any more.
    """

    forth: Mapping[int, Leg]
    back: Mapping[int, Leg]
    is_committed: bool
    is_undoing: bool

    def to_undo(self, plan: Plan) -> list[int]:
        """Return the steps that were or may have been done and can be undone, the last commanded first."""
        found = [
            number
            for number, leg in self.forth.items()
            if leg.fate in (Fate.SUCCEEDED, Fate.UNKNOWN) and plan.step(number).compensate is not None
        ]
        return sorted(found, key=lambda number: -_seq(self.forth[number].first))

    def left(self, plan: Plan) -> tuple[str, ...]:
        """Return the names of the steps that have an effect, or may have, and that nothing has undone."""
        return tuple(
            plan.step(number).name
            for number, leg in self.forth.items()
            if leg.fate in (Fate.SUCCEEDED, Fate.UNKNOWN, Fate.RUNNING)
            and plan.step(number).compensate is not None
            and self.back[number].fate is not Fate.SUCCEEDED
        )


_asked: list[tuple[Saga, Standing]] = []
"""The last answer: one event asks several times of the same saga, and a saga never changes."""


def standing(saga: Saga, plan: Plan) -> Standing:
    """Return how all steps of a saga stand."""
    if _asked and _asked[0][0] is saga:
        return _asked[0][1]
    found = _standing(saga, plan)
    _asked[:] = [(saga, found)]
    return found


def _standing(saga: Saga, plan: Plan) -> Standing:
    forth: dict[int, Leg] = {}
    for number in plan.order:
        one = plan.steps[number - 1]
        leg = _leg(saga, FORTH[number], is_pivot=number == plan.pivot)
        if leg.fate is Fate.WAITING and _is_ready(one, plan, forth):
            ready_ms = max((forth[at].ended_ms for at in one.after), default=saga.begins_ms)
            leg = _turn(replace(leg, ended_ms=ready_ms), one.step.params, scope(saga, plan, number, forth))
        forth[number] = leg
    if not plan.is_listed_in_order:
        forth = dict(sorted(forth.items()))
    is_undoing = any(ticket.way == Way.BACK for ticket in (*saga.commands, *saga.parks))
    back = {number: _leg(saga, BACK[number]) if is_undoing else BACK[number] for number in plan.undoable}
    is_committed = plan.pivot > 0 and forth[plan.pivot].is_done
    return Standing(forth, back, is_committed, is_undoing)


def _is_ready(one: Planned, plan: Plan, forth: Mapping[int, Leg]) -> bool:
    """Whether all that a step waits for has been passed; a loop, for this is asked most of all."""
    for at in one.after:  # noqa: SIM110 - see above
        if not is_passed(forth[at], plan.steps[at - 1]):
            return False
    return True


def scope(saga: Saga, plan: Plan, number: int, forth: Mapping[int, Leg]) -> Scope:
    """Return what a step's references may point at; its own result, too, once it has one."""
    assert saga.start is not None
    seen = plan.steps[number - 1].before | {number}
    results = {plan.step(at).name: forth[at].result for at in seen if at in forth and forth[at].is_done}
    return Scope(saga.id, saga.start.input, results, results.get(plan.step(number).name))


def is_passed(leg: Leg, one: Planned) -> bool:
    """Whether what comes after a step may go on: it is done, or it was best effort and has ended."""
    return leg.is_done or (leg.is_open and not one.step.critical)


def cause(saga: Saga, plan: Plan, stand: Standing, now_ms: int) -> SagaCause | None:
    """Return why a saga is undone, the earliest reason where there are several; None: it goes forward."""
    if stand.is_committed:
        return None
    reasons = list(_reasons(saga, plan, stand, now_ms))
    return min(reasons, key=lambda one: one[0])[1] if reasons else None


def _reasons(saga: Saga, plan: Plan, stand: Standing, now_ms: int) -> Iterator[tuple[int, SagaCause]]:
    for number, leg in stand.forth.items():
        if leg.is_open and plan.step(number).critical:
            reason = SagaCause(
                reason="step_failed" if leg.fate is Fate.FAILED else "step_unknown",
                step=plan.step(number).name,
                code=leg.code,
                text=leg.text,
            )
            yield leg.ended_ms, reason
    for order in saga.orders:
        if order.said.order == "cancel":
            yield order.at_ms, SagaCause(reason="cancelled", by=order.said.by, text=order.said.text or None)
    if now_ms >= saga.deadline_ms or stand.is_undoing:
        yield saga.deadline_ms, SagaCause(reason="deadline")


def _turn(leg: Leg, params: Mapping[str, JsonValue], scope: Scope) -> Leg:
    """Return the leg whose turn it is, with its params; one whose references point at nothing has failed.

    That is stored nowhere, and need not be: the results that it follows from are.
    """
    try:
        return replace(leg, params=resolve(params, scope))
    except Unresolved as error:
        return replace(leg, fate=Fate.FAILED, code=UNRESOLVED, text=str(error)[:200], is_hopeless=True)


def _leg(saga: Saga, leg: Leg, *, is_pivot: bool = False) -> Leg:
    """Return one way of one step, of which nothing was said, as all its rounds leave it."""
    ticket, is_in_doubt = leg.ticket, False
    while ticket in saga.commands or ticket in saga.parks or ticket in saga.resumes:
        # a round that runs, with another after it, has an outcome that was not read: the next one was commanded on it
        is_in_doubt = is_in_doubt or leg.fate in (Fate.UNKNOWN, Fate.RUNNING)
        leg = _round(saga, leg, ticket, may_fail=is_pivot)
        if leg.is_done or (ticket in saga.resumes and not leg.is_ordered):
            return leg
        ticket = ticket.next()
    if leg.fate is Fate.FAILED and is_in_doubt:  # an earlier round may have done it
        leg = replace(leg, fate=Fate.UNKNOWN)
    return leg


def _round(saga: Saga, leg: Leg, ticket: Ticket, *, may_fail: bool) -> Leg:
    """Return a leg after one more round."""
    command = saga.commands.get(ticket)
    if command is not None:
        told = saga.outcomes.get((ticket, command.node))
        leg = _commanded(leg, ticket, command, told)
    parked, resumed = saga.parks.get(ticket), saga.resumes.get(ticket)
    if parked is not None:
        code, text = leg.code or parked.said.code, leg.text or parked.said.text
        fate = Fate.FAILED if command is None else leg.fate
        is_parked = resumed is None
        leg = replace(leg, ticket=ticket, fate=fate, code=code, text=text, is_parked=is_parked, ended_ms=parked.at_ms)
    return leg if resumed is None else _resumed(leg, ticket, resumed, may_fail=may_fail)


def _commanded(leg: Leg, ticket: Ticket, command: Command, told: Stored[Outcome] | None) -> Leg:
    """Return a leg whose round was commanded; what was said of the round before is said no more."""
    first = leg.first or command
    if told is None:
        return Leg(ticket, Fate.RUNNING, first, command, attempts=leg.attempts)
    said = told.said
    return Leg(
        ticket,
        Fate(said.outcome),
        first,
        command,
        result=said.result if said.outcome == "succeeded" else None,
        code=said.code,
        text=said.text,
        is_hopeless=said.outcome == "failed" and not said.retryable,
        attempts=leg.attempts + said.attempts,
        ended_ms=told.at_ms,
    )


def _resumed(leg: Leg, ticket: Ticket, resumed: Stored[SagaResumed], *, may_fail: bool) -> Leg:
    said, at_ms = resumed.said, resumed.at_ms
    match said.order:
        case "retry":
            return replace(leg, ticket=ticket.next(), is_ordered=True)
        case "skip":
            return replace(leg, fate=Fate.SKIPPED, result=None, ended_ms=at_ms)
        case "resolve" if said.outcome == "failed":
            # of the pivot alone it means something that it was not done: the saga may turn back
            fate = Fate.FAILED if may_fail else Fate.SKIPPED
            return replace(leg, fate=fate, result=None, is_hopeless=True, ended_ms=at_ms)
        case "resolve":
            return replace(leg, fate=Fate.SUCCEEDED, result=said.result, ended_ms=at_ms)


def _seq(command: Command | None) -> int:
    return 0 if command is None else command.seq
