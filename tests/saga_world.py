"""Sagas under every fault: coordinators that crash, freeze and write late, lost acknowledgements, nodes that lie.

One saga, the journal of `antiphon.testing.rehearsal`, several coordinators that run the real decisions one effect at a
time. Everything that a network can do is a method; whoever calls them in whatever order plays the faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from pydantic import JsonValue

from antiphon.decide import saga_desk
from antiphon.decide.saga import Append, Move, Void, fold, moves
from antiphon.decide.saga_drive import Answer, Arm, Done, Effect, GiveBack, Handling, Load, Write
from antiphon.decide.saga_log import Entry, Ticket
from antiphon.decide.saga_plan import problems
from antiphon.decide.saga_state import Saga
from antiphon.decide.saga_together import commanded
from antiphon.errors import RequestError
from antiphon.messages.saga import SagaCompensation, SagaDefinition, SagaRetry, SagaStep
from antiphon.messages.saga_desk import SagaOrder, SagaSubmit
from antiphon.messages.saga_history import (
    OUTCOMES,
    SAGAS,
    SagaEnded,
    SagaOrdered,
    SagaStarted,
    SagaTimerFired,
    StepCommanded,
    StepOutcome,
)
from antiphon.testing.rehearsal import Journal
from saga_laws import broken

ID = "s-1"
START_MS = 1_000_000
SETTLES_MAX = 3_000


@dataclass
class Event:
    """What a consumer delivers until it is acknowledged."""

    entry: Entry
    deliveries: int = 0
    is_done: bool = False


@dataclass(eq=False)
class Flight:
    """A write on its way to the server, whoever waits for it still or no more."""

    move: Move
    seq: int | None = None
    is_taken: bool = False


@dataclass
class Coordinator:
    """One coordinator: a cache that may be stale, and at most one event in its hands."""

    lag_ms: int = 0
    cache: Saga | None = None
    event: Event | None = None
    handling: Handling | None = None
    flight: Flight | None = None
    half: list[Entry] | None = None
    """The chain, read before the outcomes."""

    def crash(self) -> None:
        self.cache = self.event = self.handling = self.flight = self.half = None


@dataclass
class World:
    """Everything, and what may happen to it."""

    definition: SagaDefinition
    delay_ms: int = 0
    is_joint: bool = True
    """Whether a start brings its first command along."""
    now_ms: int = START_MS
    coordinators: list[Coordinator] = field(default_factory=lambda: [Coordinator(), Coordinator(300), Coordinator(900)])
    events: list[Event] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    tasks: list[Entry] = field(default_factory=list)
    """Commands that a node could run now, or again."""
    tellings: list[tuple[Entry, StepOutcome]] = field(default_factory=list)
    orders: list[SagaOrdered] = field(default_factory=list)
    """Judged, and not yet stored."""
    answers: list[SagaEnded] = field(default_factory=list)
    nonces: int = 0

    def __post_init__(self) -> None:
        self.journal = Journal(ID)
        ask = SagaSubmit(id=ID, definition=self.definition, delay_ms=self.delay_ms, wait=True)
        start = saga_desk.begin(ask, "web", lambda step: "any", reply="_I.web.0.0")
        if self.is_joint:
            start, _ = commanded(ID, start, self.now_ms)
        assert self.take(Append(start, 0)) == 1
        assert self.take(Append(start, 0)) is None, "submitted twice is submitted once"

    @property
    def saga(self) -> Saga:
        """As everything that is stored says."""
        saga = Saga(ID)
        for entry in self.journal.entries():
            saga = fold(saga, entry)
        return saga

    def check(self) -> None:
        laws = broken(self.journal.kept, ID)
        assert laws == [], "\n".join([*laws, *self.story()])
        end = self.saga.end
        assert all(answer == end for answer in self.answers), "whoever waits is told the one end"

    def story(self) -> list[str]:
        return [
            f"{one.at_ms - START_MS:>9} {one.stream} {one.seq} {one.subject} {one.data[:160]!r}"
            for one in self.journal.kept
        ]

    # -- the server

    def take(self, move: Move) -> int | None:
        """Store what a move writes, if the laws of the server allow it."""
        keys = move.keys()
        if isinstance(move, Append):
            seq = self.journal.append(move.event, move.expected, self.now_ms, **keys)
        else:
            seq = self.journal.keep(move.event, self.now_ms, **keys)
        if seq is not None:
            entry = self.journal.entries()[-1]
            if isinstance(move.event, StepCommanded):
                self.tasks.append(entry)
            elif isinstance(move, Void) or (isinstance(move, Append) and move.expected == 0):
                self.events.append(Event(entry))
            if isinstance(move.event, SagaStarted) and move.event.first is not None:
                [command] = fold(Saga(ID), entry).commands.values()
                self.tasks.append(Entry(ID, entry.seq, entry.at_ms, command.said, command.ticket, command.node))
        return seq

    def pass_ms(self, ms: int) -> None:
        self.now_ms += ms

    def fire(self, times: int = 1) -> bool:
        """Let the timer fire if it is due; the server may store it twice."""
        timer_ms = self.journal.timer_ms
        if timer_ms is None or timer_ms > self.now_ms:
            return False
        self.journal.timer_ms = None
        fired = Entry(ID, 0, self.now_ms, SagaTimerFired(at_ms=timer_ms))
        self.events += [Event(fired) for _ in range(times)]
        return True

    def land(self, flight: Flight) -> None:
        """Let a write arrive at the server."""
        if not flight.is_taken:
            flight.is_taken, flight.seq = True, self.take(flight.move)

    # -- coordinators

    def deliver(self, who: Coordinator, event: Event) -> None:
        if who.handling is None and not event.is_done:
            who.event = event
            who.handling = Handling(event.entry, who.cache, is_again=event.deliveries > 0)
            event.deliveries += 1

    def advance(self, who: Coordinator) -> None:
        """Let a coordinator make one effect, or half of one."""
        if who.handling is None or who.flight is not None:
            return
        if who.half is not None:
            half, who.half = who.half, None
            who.handling.loaded([*half, *self.journal.entries(OUTCOMES)])
            return
        self.make(who, who.handling, who.handling.next(self.now_ms - who.lag_ms))

    def make(self, who: Coordinator, handling: Handling, effect: Effect) -> None:
        match effect:
            case Load():
                who.half = self.journal.entries(SAGAS)
            case Write(move):
                who.flight = Flight(move)
                self.flights.append(who.flight)
            case Arm(at_ms, is_first):
                self.journal.arm(at_ms, is_first=is_first)
                handling.armed()
            case Answer(_, end):
                self.answers.append(end)
                handling.answered()
            case Done(saga):
                assert who.event is not None
                who.event.is_done = True
                who.cache = saga if saga.start is not None and saga.end is None else None
                who.event = who.handling = None
            case GiveBack():
                who.event = who.handling = None

    def acknowledge(self, who: Coordinator) -> None:
        """Let the server's answer to a write arrive."""
        if who.handling is None or who.flight is None or not who.flight.is_taken:
            return
        seq, who.flight = who.flight.seq, None
        who.handling.refused() if seq is None else who.handling.written(seq, self.now_ms)

    def lose(self, who: Coordinator) -> None:
        """Let a coordinator wait in vain for an answer; the write may arrive yet."""
        if who.handling is not None and who.flight is not None:
            who.flight = None
            who.handling.refused()

    # -- nodes and operators

    def work(self, task: Entry, outcome: str, *, is_retryable: bool = True, result: JsonValue = None) -> None:
        """Let a node run a command, once more perhaps, and come to an outcome that it has yet to tell."""
        given = result if outcome == "succeeded" else None
        said = StepOutcome.model_validate({"outcome": outcome, "result": given, "retryable": is_retryable})
        self.tellings.append((task, said))

    def tell(self, telling: tuple[Entry, StepOutcome], *, node: str | None = None) -> None:
        """Let an outcome arrive; the stream takes the first."""
        task, said = telling
        seq = self.journal.keep(said, self.now_ms, ticket=str(task.ticket), node=node or task.node)
        if seq is not None:
            self.events.append(Event(self.journal.entries(OUTCOMES)[-1]))

    def report(self, who: Coordinator, telling: tuple[Entry, StepOutcome], *, is_again: bool = False) -> None:
        """Let an outcome arrive at a coordinator that has to store it; if it dies the node tells it again, or never."""
        task, said = telling
        if who.handling is not None:
            self.tellings.append(telling)
            return
        entry = Entry(ID, 0, self.now_ms - who.lag_ms, said, task.ticket, task.node)
        who.event = Event(entry)
        who.handling = Handling(entry, who.cache, is_again=is_again, is_told=True)

    def judge(self, order: str, step: str | None = None, outcome: str = "succeeded") -> None:
        """Let an operator give an order that makes sense now; it is stored later."""
        ask = SagaOrder.model_validate(
            {"id": ID, "order": order, "step": step, "outcome": outcome, "result": {"id": 0}}
        )
        try:
            self.orders.append(saga_desk.order(ask, self.saga, "ops", is_operator=True))
        except RequestError:
            return

    def store(self, order: SagaOrdered) -> None:
        self.nonces += 1
        self.journal.keep(order, self.now_ms, nonce=f"n{self.nonces}")
        self.events.append(Event(self.journal.entries(SAGAS)[-1]))

    # -- when the faults stop

    def settle(self, dice: Random) -> None:
        """Let everything that is under way happen, while no time passes; nodes do what they are told, mostly."""
        for who in self.coordinators[1:]:
            who.crash()
        who = self.coordinators[0]
        self.lose(who)
        for _ in range(SETTLES_MAX):
            for flight in self.flights:
                self.land(flight)
            self.flights.clear()
            for order in self.orders:
                self.store(order)
            self.orders.clear()
            self.events = [event for event in self.events if not event.is_done]
            if who.handling is not None:
                self.acknowledge(who)
                self.advance(who)
            elif self.events:
                self.deliver(who, self.events[0])
            elif self.tasks:
                outcome = dice.choice(["succeeded"] * 9 + ["failed"])
                self.work(self.tasks.pop(0), outcome, is_retryable=dice.random() < 0.5, result={"id": 7})
                self.report(who, self.tellings.pop())
            elif not self.fire():
                return
        raise AssertionError("\n".join(["it does not settle", *self.story()]))

    def rest(self, dice: Random) -> None:
        """Let the faults stop: it ends, or it waits for a person, and an open saga always has a timer."""
        for _ in range(SETTLES_MAX):
            self.settle(dice)
            self.check()
            saga = self.saga
            # what the history alone makes possible was done when the last event was handled, whoever was stale
            assert moves(saga, saga.newest_ms) == (), "\n".join(["something is left to do", *self.story()])
            if saga.end is not None:
                return
            assert self.journal.timer_ms is not None, "\n".join(["an open saga without a timer", *self.story()])
            parked = sorted(saga.parks.keys() - saga.resumes.keys())
            if saga.is_paused:
                self.judge("resume")
            elif parked:
                order = dice.choice(["retry", "retry", "skip", "resolve"])
                self.judge(order, self.name_of(parked[0]), dice.choice(["succeeded", "failed"]))
            else:
                self.now_ms = max(self.now_ms, self.journal.timer_ms)
        raise AssertionError("\n".join(["it neither ends nor waits for a person", *self.story()]))

    def name_of(self, ticket: Ticket) -> str:
        return self.definition.steps[ticket.step - 1].name


def draw_definition(dice: Random) -> SagaDefinition:
    """Return any saga that makes sense: sequential or not, with or without a pivot, best effort here and there."""
    count = dice.randint(1, 5)
    pivot = dice.choice([0, dice.randint(1, count)])
    is_sequential = dice.random() < 0.3
    steps: list[SagaStep] = []
    for number in range(1, count + 1):
        is_behind = 0 < pivot < number
        is_critical = number == pivot or dice.random() < 0.8
        before = [one.name for one in steps]
        musts = [one.name for one in steps if one.critical]
        after = [name for name in before if dice.random() < 0.4]
        if number == pivot:
            after = musts
        elif is_behind and (is_critical or dice.random() < 0.5):
            after = sorted({*after, steps[pivot - 1].name})
        compensate = None
        if dice.random() < (0.3 if number == pivot else 0.7) and not is_behind:
            undo_retry = SagaRetry(rounds_max=dice.randint(1, 3), base_ms=dice.choice([1, 500]))
            compensate = SagaCompensation(
                action=f"undo-{number}", timeout_ms=dice.choice([1_000, 3_000]), retry=undo_retry
            )
        step = SagaStep(
            name=f"a{number}",
            node=f"n{dice.randint(1, 2)}",
            action=f"do-{number}",
            params=draw_params(dice, [] if is_sequential else after),
            after=None if is_sequential else tuple(after),
            timeout_ms=dice.choice([1_000, 2_000, 5_000]),
            retry=SagaRetry(rounds_max=dice.randint(1, 3), base_ms=dice.choice([1, 500])),
            compensate=compensate,
            critical=is_critical,
            pivot=number == pivot,
        )
        steps.append(step)
    definition = SagaDefinition(name="any", steps=tuple(steps), deadline_ms=dice.choice([3_000, 20_000, 3_600_000]))
    return definition if not problems(definition) else draw_definition(dice)


def draw_params(dice: Random, after: Sequence[str]) -> dict[str, JsonValue]:
    if not after or dice.random() < 0.5:
        return {}
    path = "missing" if dice.random() < 0.15 else "id"
    return {"of": f"{{{{steps.{dice.choice(after)}.result.{path}}}}}"}
