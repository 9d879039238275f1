"""How a coordinator handles an event: what it reads, writes and arms before it acknowledges, and two bugs of old."""

from __future__ import annotations

import pytest

from antiphon.decide.saga import Append, Keep, Void, fold
from antiphon.decide.saga_drive import (
    AGAIN_MS,
    FOREIGN_MS,
    READS_MAX,
    Answer,
    Arm,
    Done,
    Effect,
    GiveBack,
    Handling,
    Load,
    Write,
)
from antiphon.decide.saga_log import Entry, Ticket, Way, read
from antiphon.decide.saga_state import Saga as Stored
from antiphon.decide.saga_together import commanded
from antiphon.messages.saga import SagaCompensation, SagaRetry
from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaParked,
    SagaResumed,
    SagaStarted,
    SagaTimerFired,
    StepOutcome,
    StepVoided,
)
from antiphon.saga import Saga
from antiphon.testing.rehearsal import NOON_MS, Journal
from saga_laws import broken
from saga_world import ID

TWO = Saga("two").step("a", node="n").step("b", node="n")
PAIR = Saga("pair").step("a", node="n", after=()).step("b", node="m", after=()).step("c", node="n", after=["a", "b"])
NOW_MS = NOON_MS + 1_000
LATE_MS = NOW_MS + 60_000


def begun(saga: Saga) -> Journal:
    journal = Journal(ID)
    start = SagaStarted(definition=saga.definition, caller="web", digest="0" * 64, reply="_I.web.0.0")
    assert journal.append(start, 0, NOON_MS) == 1
    return journal


def outcome(journal: Journal, ticket: str = "1f", node: str = "n", said: str = "succeeded") -> Entry:
    """The outcome of a command, stored."""
    event = StepOutcome.model_validate({"outcome": said})
    assert journal.keep(event, NOW_MS, ticket=ticket, node=node) is not None
    return journal.entries()[-1]


def known(journal: Journal) -> Stored:
    """The saga as the journal has it."""
    saga = Stored(ID)
    for entry in journal.entries():
        saga = fold(saga, entry)
    return saga


def drive(
    handling: Handling, journal: Journal, now_ms: int = NOW_MS, *, crash_before: type[Effect] | None = None
) -> list[str]:
    """Make every effect until it is over, or the coordinator dies before one; return their names."""
    done: list[str] = []
    while True:
        effect = handling.next(now_ms)
        if crash_before is not None and isinstance(effect, crash_before):
            return [*done, "crash"]
        done.append(name_of(effect))
        match effect:
            case Load():
                handling.loaded(journal.entries())
            case Write(Append() as move):
                seq = journal.append(move.event, move.expected, now_ms, **move.keys())
                handling.refused() if seq is None else handling.written(seq, now_ms)
            case Write(Void() | Keep() as move):
                seq = journal.keep(move.event, now_ms, **move.keys())
                handling.refused() if seq is None else handling.written(seq, now_ms)
            case Arm(at_ms, is_first):
                journal.arm(at_ms, is_first=is_first)
                handling.armed()
            case Answer():
                handling.answered()
            case _:
                return done


def name_of(effect: Effect) -> str:
    if isinstance(effect, Write):
        move = effect.move
        return f"{type(move.event).__name__} {move.ticket}" if move.ticket else type(move.event).__name__
    return type(effect).__name__


def test_the_hot_path_reads_nothing_until_the_end() -> None:
    journal = begun(TWO)
    start = Handling(journal.entries()[0], None)
    assert drive(start, journal) == ["StepCommanded 1f", "Arm", "Done"]
    cached = known(journal)
    assert drive(Handling(outcome(journal), cached), journal) == ["StepCommanded 2f", "Done"]
    cached = known(journal)
    assert drive(Handling(outcome(journal, "2f"), cached), journal) == ["SagaEnded", "Answer", "Done"]


def test_bug_a_decision_to_do_nothing_on_a_stale_state_is_made_again_on_a_fresh_one() -> None:
    """Without that line one saga in a thousand was left standing (SAGAS.md): compare-and-set catches no silence."""
    journal = begun(PAIR)
    drive(Handling(journal.entries()[0], None), journal)
    stale = known(journal)
    first = outcome(journal, "1f", "n")
    second = outcome(journal, "2f", "m")
    assert drive(Handling(first, stale), journal) == ["Load", "StepCommanded 3f", "Done"], "it saw only one of the two"
    assert drive(Handling(second, stale), journal) == ["Load", "Done"]


def test_bug_the_timer_is_armed_at_every_handling_of_the_start_and_not_only_at_the_first() -> None:
    """Whoever handled it first commanded, and died before it armed: then nobody would ever notice a dead node."""
    journal = begun(TWO)
    start = journal.entries()[0]
    assert drive(Handling(start, None), journal, crash_before=Arm) == ["StepCommanded 1f", "crash"]
    assert journal.timer_ms is None
    again = Handling(start, None, is_again=True)
    assert drive(again, journal) == ["Load", "Arm", "Done"], "nothing is left to write, but the timer is"
    assert journal.timer_ms is not None


@pytest.mark.parametrize("crash", [Load, Write, Arm, Answer, Done])
def test_whoever_dies_before_any_effect_leaves_the_event_to_another(crash: type[Effect]) -> None:
    journal = begun(TWO)
    events = journal.entries()
    while events:
        event = events.pop(0)
        drive(Handling(event, None), journal, crash_before=crash)
        assert drive(Handling(event, None, is_again=True), journal)[-1] == "Done"
        saga = known(journal)
        open_ = [one for one in saga.commands.values() if saga.outcome(one.ticket) is None]
        events += [outcome(journal, str(one.ticket), one.node) for one in open_]
    assert broken(journal.kept, ID) == []
    end = known(journal).end
    assert end is not None
    assert end.state == "completed"


def test_of_two_that_decide_at_once_one_is_refused_and_reads() -> None:
    journal = begun(TWO)
    start = journal.entries()[0]
    one, other = Handling(start, None), Handling(start, None)
    assert name_of(one.next(NOW_MS)) == name_of(other.next(NOW_MS)) == "StepCommanded 1f"
    assert drive(one, journal) == ["StepCommanded 1f", "Arm", "Done"]
    assert drive(other, journal) == ["StepCommanded 1f", "Load", "Arm", "Done"]
    assert [entry.ticket for entry in journal.entries() if entry.ticket] == [Ticket(1, Way.FORTH)]


def test_after_a_lost_answer_the_log_says_whether_it_was_written() -> None:
    journal = begun(TWO)
    handling = Handling(journal.entries()[0], None)
    effect = handling.next(NOW_MS)
    assert isinstance(effect, Write)
    assert isinstance(effect.move, Append)
    journal.append(effect.move.event, effect.move.expected, NOW_MS, **effect.move.keys())
    handling.refused()
    assert drive(handling, journal) == ["Load", "Arm", "Done"], "found, not repeated"


def test_a_zombie_that_writes_at_last_is_refused() -> None:
    journal = begun(TWO)
    zombie = Handling(journal.entries()[0], None)
    effect = zombie.next(NOW_MS)
    assert isinstance(effect, Write)
    assert isinstance(effect.move, Append)
    drive(Handling(journal.entries()[0], None, is_again=True), journal)
    assert journal.append(effect.move.event, effect.move.expected, NOW_MS, **effect.move.keys()) is None


def test_the_end_is_told_again_by_whoever_finds_it() -> None:
    journal = begun(Saga("one").step("a", node="n"))
    drive(Handling(journal.entries()[0], None), journal)
    told = outcome(journal)
    assert drive(Handling(told, known(journal)), journal, crash_before=Answer)[-1] == "crash"
    assert drive(Handling(told, None, is_again=True), journal) == ["Load", "Answer", "Done"]


def test_a_firing_timer_is_set_anew_while_the_saga_is_open() -> None:
    journal = begun(TWO)
    drive(Handling(journal.entries()[0], None), journal)
    journal.timer_ms = None
    fired = Entry(ID, 0, NOW_MS, SagaTimerFired())
    assert drive(Handling(fired, known(journal)), journal) == ["Load", "Arm", "Done"]
    journal.timer_ms = None
    late_ms = NOW_MS + 60_000
    assert drive(Handling(fired, None), journal, late_ms)[:3] == ["Load", "StepVoided 1f", "SagaEnded"]
    assert drive(Handling(fired, None), journal, late_ms) == ["Load", "Answer", "Done"]
    assert journal.timer_ms is None, "not after the end"


def test_a_timer_that_is_set_already_stays() -> None:
    journal = begun(TWO)
    drive(Handling(journal.entries()[0], None), journal)
    set_ms = journal.timer_ms
    drive(Handling(journal.entries()[0], None, is_again=True), journal, NOW_MS + 500)
    assert journal.timer_ms == set_ms


def test_a_round_to_come_sets_the_timer_earlier() -> None:
    undo = SagaCompensation(action="una", retry=SagaRetry(rounds_max=2, base_ms=400))
    journal = begun(Saga("s").step("a", node="n", compensate=undo).step("b", node="n"))
    drive(Handling(journal.entries()[0], None), journal)
    drive(Handling(outcome(journal), None), journal)
    drive(Handling(outcome(journal, "2f", said="failed"), None), journal)
    failed = outcome(journal, "1b", said="failed")
    handling = Handling(failed, known(journal), dice=lambda _: 0.5)
    assert drive(handling, journal) == ["Load", "Arm", "Done"]
    assert journal.timer_ms == NOW_MS + 200


def test_what_no_event_follows_is_followed_by_a_fresh_read() -> None:
    undo = SagaCompensation(action="una", retry=SagaRetry(rounds_max=1))
    journal = begun(Saga("s").step("a", node="n", compensate=undo).step("b", node="n"))
    drive(Handling(journal.entries()[0], None), journal)
    drive(Handling(outcome(journal), None), journal)
    drive(Handling(outcome(journal, "2f", said="failed"), None), journal)
    parking = Handling(outcome(journal, "1b", said="failed"), known(journal))
    assert drive(parking, journal) == ["SagaParked 1b", "Load", "Done"], "nobody answers to a park"
    order = SagaOrdered(order="skip", by="ops", ticket="1b")
    journal.keep(order, NOW_MS, nonce="n1")
    ordered = Handling(journal.entries()[-1], known(journal))
    assert drive(ordered, journal) == ["Load", "SagaResumed 1b", "SagaEnded", "Answer", "Done"]
    kinds = [type(one.event) for one in journal.entries()]
    assert kinds.count(SagaParked) == kinds.count(SagaResumed) == kinds.count(SagaEnded) == 1


def test_of_two_orders_for_one_park_the_first_is_followed() -> None:
    undo = SagaCompensation(action="una", retry=SagaRetry(rounds_max=1))
    journal = begun(Saga("s").step("a", node="n", compensate=undo).step("b", node="n"))
    drive(Handling(journal.entries()[0], None), journal)
    drive(Handling(outcome(journal), None), journal)
    drive(Handling(outcome(journal, "2f", said="failed"), None), journal)
    drive(Handling(outcome(journal, "1b", said="failed"), None), journal)
    journal.keep(SagaOrdered(order="retry", by="ops", ticket="1b"), NOW_MS, nonce="n1")
    first = journal.entries()[-1]
    journal.keep(SagaOrdered(order="skip", by="ana", ticket="1b"), NOW_MS, nonce="n2")
    second = journal.entries()[-1]
    assert drive(Handling(second, None), journal) == ["Load", "SagaResumed 1b", "StepCommanded 1b2", "Arm", "Done"]
    assert drive(Handling(first, None), journal) == ["Load", "Arm", "Done"]
    (resumed,) = [one.event for one in journal.entries() if isinstance(one.event, SagaResumed)]
    assert (resumed.order, resumed.by, resumed.nonce) == ("retry", "ops", "n1")
    drive(Handling(outcome(journal, "1b2", said="failed"), None), journal)
    assert known(journal).end is None, "the order to skip was for the round before: it does not skip this one"


def joint(saga: Saga) -> Journal:
    """A saga that was begun together with its first command."""
    journal = Journal(ID)
    start = SagaStarted(definition=saga.definition, caller="web", digest="0" * 64, reply="_I.web.0.0")
    assert journal.append(commanded(ID, start, NOON_MS)[0], 0, NOON_MS) == 1
    return journal


def told(ticket: str = "1f", node: str = "n", said: str = "succeeded") -> Entry:
    """The outcome of a command, as its node tells."""
    return Entry(ID, 0, NOW_MS, StepOutcome.model_validate({"outcome": said}), Ticket.parse(ticket), node)


def test_what_is_told_is_stored_with_what_follows_from_it() -> None:
    journal = joint(TWO)
    assert drive(Handling(journal.entries()[0], None), journal) == ["Arm", "Done"]
    first = Handling(told(), known(journal), is_told=True)
    assert drive(first, journal) == ["StepCommanded 2f", "Done"]
    second = Handling(told("2f"), known(journal), is_told=True)
    assert drive(second, journal) == ["SagaEnded", "Answer", "Done"]
    assert (first.is_kept, second.is_kept, len(journal.kept)) == (True, True, 3)
    assert broken(journal.kept, ID) == []


def test_what_nothing_follows_from_yet_is_stored_by_itself() -> None:
    journal = begun(PAIR)
    drive(Handling(journal.entries()[0], None), journal)
    first = Handling(told("1f"), known(journal), is_told=True)
    assert drive(first, journal) == ["StepOutcome 1f", "Load", "Done"], "that nothing does only a fresh read can say"
    again = Handling(told("1f"), known(journal), is_told=True)
    assert drive(again, journal) == ["Load", "Done"]
    other = Handling(told("1f", said="failed"), known(journal), is_told=True)
    assert drive(other, journal) == ["Load", "Done"]
    assert (first.is_kept, again.is_kept, other.is_kept) == (True, True, False)


def test_of_two_outcomes_the_one_that_a_link_followed_counts() -> None:
    journal = joint(TWO)
    stale = known(journal)
    journal.keep(StepVoided(), LATE_MS, ticket="1f", node="n")
    late = Handling(told(), stale, is_told=True)
    assert drive(late, journal, LATE_MS) == ["StepCommanded 2f", "Done"], "nobody had acted on it"
    saga = known(journal)
    there = saga.outcome(Ticket(1, Way.FORTH))
    assert there is not None
    assert there.said.outcome == "succeeded"
    assert fold(saga, journal.entries()[-1]) == saga
    assert broken(journal.kept, ID) == []


def test_an_outcome_comes_too_late_where_somebody_acted_on_another_one() -> None:
    journal = joint(TWO)
    stale = known(journal)
    journal.keep(StepVoided(), LATE_MS, ticket="1f", node="n")
    drive(Handling(journal.entries()[-1], known(journal)), journal, LATE_MS)
    late = Handling(told(), stale, is_told=True)
    assert drive(late, journal, LATE_MS) == ["StepCommanded 2f", "Load", "Answer", "Done"]
    assert late.is_kept is False
    nobody = Handling(told("2f"), stale, is_told=True)
    assert drive(nobody, journal) == ["Load", "Answer", "Done"]
    assert nobody.is_kept is False


def test_what_was_told_and_may_have_been_stored_is_looked_for() -> None:
    journal = joint(TWO)
    handling = Handling(told(), known(journal), is_told=True)
    effect = handling.next(NOW_MS)
    assert isinstance(effect, Write)
    assert isinstance(effect.move, Append)
    journal.append(effect.move.event, effect.move.expected, NOW_MS, **effect.move.keys())
    handling.refused()
    assert drive(handling, journal) == ["Load", "Done"]
    assert handling.is_kept is True


def test_what_could_not_be_stored_with_what_follows_is_stored_by_itself() -> None:
    journal = joint(TWO)
    handling = Handling(told(), None, is_again=True, is_told=True)
    assert drive(handling, journal) == ["Load", "StepOutcome 1f", "StepCommanded 2f", "Done"]
    assert handling.is_kept is True
    assert broken(journal.kept, ID) == []


def test_one_that_begins_later_has_no_command_yet() -> None:
    start = SagaStarted(definition=TWO.definition, caller="web", digest="0" * 64, delay_ms=1)
    assert commanded(ID, start, NOON_MS) == (start, False)


def test_whoever_is_overtaken_too_often_gives_the_event_back() -> None:
    handling = Handling(begun(TWO).entries()[0], None, is_again=True)
    for _ in range(READS_MAX):
        assert handling.next(NOW_MS) == Load()
        handling.loaded([])
        assert isinstance(handling.next(NOW_MS), Write)
        handling.refused()
    assert handling.next(NOW_MS) == GiveBack(AGAIN_MS)


def test_what_a_newer_version_began_is_given_back_for_a_newer_version() -> None:
    journal = begun(TWO)
    newer = read("antiphon.v1.saga.s-1.k.fork", b"{}", 2, NOON_MS)
    assert newer is not None
    handling = Handling(journal.entries()[0], None, is_again=True)
    assert handling.next(NOW_MS) == Load()
    handling.loaded([newer])
    assert handling.next(NOW_MS) == GiveBack(FOREIGN_MS)


def test_an_event_of_no_saga_is_acknowledged() -> None:
    stray = read("antiphon.v1.outcome.s-1.1f.liar", b'{"outcome": "succeeded"}', 1, NOON_MS)
    assert stray is not None
    handling = Handling(stray, None)
    assert handling.next(NOW_MS) == Load()
    handling.loaded([])
    assert isinstance(handling.next(NOW_MS), Done)


def test_a_garbled_outcome_does_not_hold_a_saga_up() -> None:
    journal = begun(Saga("one").step("a", node="n"))
    drive(Handling(journal.entries()[0], None), journal)
    garbled = read("antiphon.v1.outcome.s-1.1f.n", b"\x00", 1, NOW_MS)
    assert garbled is not None
    assert drive(Handling(garbled, known(journal)), journal) == ["SagaEnded", "Answer", "Done"]
