"""Sagas, feature by feature: what is said, what then happens, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from antiphon.decide.saga import GRACE_MS, IDLE_MS, Append, Void, fold, moves, wake_ms
from antiphon.decide.saga_log import Entry, Ticket, Way, chain_of, read, subject_of
from antiphon.decide.saga_retry import Again, GiveUp, after_failure, dice_of, wait_ms
from antiphon.decide.saga_state import Saga as Stored
from antiphon.decide.saga_view import line, view
from antiphon.errors import HandlerFailed, InvalidReply, Overloaded
from antiphon.messages.saga import ATTEMPTS_MAX, SagaCompensation, SagaRetry
from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaParked,
    SagaResumed,
    SagaTimerFired,
    SagaTimerSet,
    StepCommanded,
    StepOutcome,
    StepVoided,
)
from antiphon.messages.steps import StepEnd
from antiphon.saga import Saga
from antiphon.testing.rehearsal import NOON_MS, Handler, NoAnswer, Rehearsal, failing
from saga_laws import broken
from saga_storm import storm

CHECKOUT = (
    Saga("checkout")
    .step("verify", node="users", params={"user": "{{input.user}}"})
    .step("charge", node="bank", params={"amount": "{{input.amount}}"}, compensate="refund")
    .step("ship", node="store", params={"charge": "{{steps.charge.result.id}}"}, compensate="unship")
    .step("receipt", node="mail")
)
INPUT: dict[str, JsonValue] = {"user": "u1", "amount": 5}
ONCE = SagaRetry(attempts_max=1, rounds_max=1)


def good(command: StepCommanded) -> JsonValue:
    return {"id": f"{command.step}-7"}


def dead(_command: StepCommanded) -> JsonValue:
    raise NoAnswer


def bad(_command: StepCommanded) -> JsonValue:
    raise HandlerFailed("on fire")


def refused(_command: StepCommanded) -> JsonValue:
    raise InvalidReply("never that way")


def rehearse(
    saga: Saga, given: dict[str, JsonValue] | None = None, *, delay_ms: int = 0, **other: Handler
) -> Rehearsal:
    """A rehearsal in which everything succeeds but what is said otherwise."""
    actions = {step.action for step in saga.steps} | {step.compensate.action for step in saga.steps if step.compensate}
    return Rehearsal(saga, dict.fromkeys(actions, good) | other, given, delay_ms=delay_ms)


def ran(rehearsal: Rehearsal) -> list[str]:
    """The actions that handlers ran, in order, each once for all its attempts in a row."""
    actions = [command.action for command in rehearsal.ran]
    return [one for at, one in enumerate(actions) if at == 0 or actions[at - 1] != one]


def checked(rehearsal: Rehearsal) -> str:
    """How it stands after it ran; no law is broken on the way."""
    state = rehearsal.run().state
    assert broken(rehearsal.journal.kept, "rehearsal") == []
    assert (rehearsal.end is not None) == (state in ("completed", "compensated", "abandoned")), "whoever waits is told"
    return state


# -- forward


def test_steps_follow_each_other_and_see_what_came_before() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT)
    assert checked(rehearsal) == "completed"
    assert [command.params for command in rehearsal.ran] == [
        {"user": "u1"},
        {"amount": 5},
        {"charge": "charge-7"},
        {},
    ]
    assert [command.key for command in rehearsal.ran] == [f"rehearsal/{number}f" for number in (1, 2, 3, 4)]
    assert rehearsal.view.results["ship"] == {"id": "ship-7"}


def test_one_step_is_a_durable_action() -> None:
    rehearsal = rehearse(Saga("reindex").step("reindex", node="blog"), reindex=lambda _: 17)
    assert checked(rehearsal) == "completed"
    assert rehearsal.view.results == {"reindex": 17}
    assert len(rehearsal.journal.kept) == 4, "a start, a command, an outcome, an end"


def test_branches_run_at_once_and_meet_again() -> None:
    diamond = (
        Saga("diamond")
        .step("first", node="a")
        .step("left", node="a", after="first")
        .step("right", node="b", after="first")
        .step("last", node="a", after=["left", "right"])
    )
    assert diamond.waves == (("first",), ("left", "right"), ("last",))
    rehearsal = rehearse(diamond)
    assert checked(rehearsal) == "completed"
    events = [(one.event, one.step) for one in rehearsal.view.history]
    assert events.index(("commanded", "right")) < events.index(("succeeded", "left"))
    assert ran(rehearsal) == ["first", "left", "right", "last"]


def test_a_node_tries_again_by_itself() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, charge=failing(2, {"id": 1}))
    assert checked(rehearsal) == "completed"
    assert [one.attempts for one in rehearsal.view.steps] == [1, 3, 1, 1]
    assert len([one for one in rehearsal.view.history if one.event == "commanded"]) == 4, "no coordinator is involved"


def test_a_delayed_saga_waits_for_its_time() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, delay_ms=60_000)
    view_ = rehearsal.run(until_ms=50_000)
    assert (view_.state, rehearsal.ran) == ("scheduled", [])
    assert checked(rehearsal) == "completed"
    assert rehearsal.view.steps[0].began_ms is not None
    assert rehearsal.view.steps[0].began_ms >= NOON_MS + 60_000


def test_best_effort_fails_and_the_saga_goes_on() -> None:
    saga = (
        Saga("s")
        .step("a", node="n")
        .step("b", node="n", critical=False, retry=ONCE)
        .step("c", node="n", params={"b": "{{steps.b.result.id}}", "text": "<{{steps.b.result}}>"})
    )
    rehearsal = rehearse(saga, b=bad)
    assert checked(rehearsal) == "completed"
    assert rehearsal.ran[-1].params == {"b": None, "text": "<>"}, "what is not there reads as null"
    assert [one.state for one in rehearsal.view.steps] == ["succeeded", "failed", "succeeded"]


# -- backward


def test_what_was_done_is_undone_the_last_first() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, receipt=bad)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["verify", "charge", "ship", "receipt", "unship", "refund"]
    cause = rehearsal.view.cause
    assert cause is not None
    assert (cause.reason, cause.step, cause.code, cause.text) == ("step_failed", "receipt", "handler_failed", "on fire")
    refund = rehearsal.ran[-1]
    assert refund.key == "rehearsal/2b"
    assert refund.undo is not None
    assert (refund.undo.params, refund.undo.result, refund.undo.is_known) == ({"amount": 5}, {"id": "charge-7"}, True)


def test_a_step_without_compensation_has_nothing_to_undo() -> None:
    rehearsal = rehearse(Saga("s").step("look", node="n").step("fail", node="n"), fail=bad)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["look", "fail"]


def test_an_unknown_outcome_is_undone_as_well() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, charge=dead)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["verify", "charge", "refund"]
    undo = rehearsal.ran[-1].undo
    assert undo is not None
    assert (undo.params, undo.result, undo.is_known) == ({"amount": 5}, None, False)
    (voided,) = [one for one in rehearsal.view.history if one.event == "unknown"]
    (commanded,) = [one for one in rehearsal.view.history if (one.event, one.ticket) == ("commanded", "2f")]
    assert voided.at_ms - commanded.at_ms >= 30_000 + GRACE_MS


def test_a_step_that_failed_for_sure_is_not_undone() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, ship=refused)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["verify", "charge", "ship", "refund"]
    assert rehearsal.view.steps[2].attempts == 1, "what cannot help is not tried again"


def test_a_failing_branch_waits_for_the_other_and_undoes_it() -> None:
    saga = (
        Saga("s")
        .step("left", node="a", after=(), retry=ONCE)
        .step("right", node="b", after=(), compensate="unright")
        .step("join", node="a", after=["left", "right"])
    )
    rehearsal = rehearse(saga, left=bad)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["left", "right", "unright"]


def test_a_compensation_has_params_and_patience_of_its_own() -> None:
    undo = SagaCompensation(
        action="refund",
        params={"id": "{{result.id}}", "of": "{{steps.charge.result.id}}", "for": "{{input.user}}"},
        retry=SagaRetry(attempts_max=2, rounds_max=3, base_ms=1),
    )
    saga = Saga("s").step("charge", node="bank", compensate=undo).step("fail", node="n", retry=ONCE)
    rehearsal = rehearse(saga, {"user": "u1"}, fail=bad, refund=failing(5))
    assert checked(rehearsal) == "compensated"
    tickets = [one.ticket for one in rehearsal.view.history if one.event == "commanded"]
    assert tickets == ["1f", "2f", "1b", "1b2", "1b3"], "three rounds of two attempts"
    assert rehearsal.ran[-1].params == {"id": "charge-7", "of": "charge-7", "for": "u1"}
    assert {command.key for command in rehearsal.ran if command.action == "refund"} == {"rehearsal/1b"}


def test_the_deadline_turns_a_saga_back() -> None:
    saga = Saga("s", deadline_ms=5_000).step("a", node="n", compensate="una").step("b", node="n", timeout_ms=60_000)
    rehearsal = rehearse(saga, b=dead)
    assert checked(rehearsal) == "compensated"
    assert rehearsal.view.cause is not None
    assert rehearsal.view.cause.reason == "deadline"
    assert rehearsal.ran[1].timeout_ms < 5_000, "no step is given more time than the saga has"
    assert ran(rehearsal) == ["a", "b", "una"]


def test_references_that_point_at_nothing_fail_the_step_without_asking_a_node() -> None:
    saga = (
        Saga("s").step("a", node="n", compensate="una").step("b", node="n", params={"x": "{{steps.a.result.missing}}"})
    )
    rehearsal = rehearse(saga)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["a", "una"]
    assert rehearsal.view.cause is not None
    assert (rehearsal.view.cause.step, rehearsal.view.cause.code) == ("b", "unresolved")


# -- the pivot


PIVOT = (
    Saga("order")
    .step("reserve", node="store", compensate="release")
    .step("pay", node="bank", pivot=True, retry=SagaRetry(attempts_max=1, rounds_max=2, base_ms=1))
    .step("ship", node="store", retry=SagaRetry(attempts_max=1, rounds_max=2, base_ms=1))
)


def test_before_the_pivot_a_saga_turns_back() -> None:
    rehearsal = rehearse(PIVOT, pay=bad)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["reserve", "pay", "release"]


def test_past_the_pivot_it_only_goes_forward_round_after_round() -> None:
    rehearsal = rehearse(PIVOT, ship=failing(1, "sent"))
    assert checked(rehearsal) == "completed"
    assert [one.ticket for one in rehearsal.view.history if one.event == "commanded"] == ["1f", "2f", "3f", "3f2"]
    assert {command.key for command in rehearsal.ran if command.action == "ship"} == {"rehearsal/3f"}


def test_past_the_pivot_the_deadline_and_a_cancel_come_too_late() -> None:
    saga = Saga("s", deadline_ms=3_000).step("pay", node="bank", pivot=True).step("ship", node="n")
    rehearsal = rehearse(saga, ship=failing(2, "sent"))
    slow = rehearsal.handlers["ship"]

    def ship(command: StepCommanded) -> JsonValue:
        rehearsal.sleep_ms(9_000)
        return slow(command)

    rehearsal.handlers["ship"] = ship
    assert checked(rehearsal) == "completed"


def test_a_pivot_that_may_have_been_done_is_found_out_before_anything_is_undone() -> None:
    answers: Iterator[Handler] = iter([dead, good])

    def pay(command: StepCommanded) -> JsonValue:
        return next(answers)(command)

    rehearsal = rehearse(PIVOT, pay=pay)
    assert checked(rehearsal) == "completed"
    assert [one.ticket for one in rehearsal.view.history if one.step == "pay" and one.event == "commanded"] == [
        "2f",
        "2f2",
    ]


def test_what_nobody_finds_out_about_the_pivot_a_person_says() -> None:
    for outcome, state, last in (("succeeded", "completed", "ship"), ("failed", "compensated", "release")):
        rehearsal = rehearse(PIVOT, pay=dead)
        assert checked(rehearsal) == "parked"
        rehearsal.order("resolve", "pay", outcome=outcome)
        assert checked(rehearsal) == state
        assert ran(rehearsal)[-1] == last


def test_a_pivot_that_can_be_undone_is_undone_where_nobody_knows_of_it() -> None:
    saga = Saga("s").step("pay", node="bank", pivot=True, compensate="unpay")
    rehearsal = rehearse(saga, pay=dead)
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["pay", "unpay"]


# -- operators


def parked() -> Rehearsal:
    undo = SagaCompensation(action="refund", retry=ONCE)
    saga = Saga("s").step("charge", node="bank", compensate=undo).step("fail", node="n", retry=ONCE)
    rehearsal = rehearse(saga, fail=bad, refund=bad)
    assert checked(rehearsal) == "parked"
    return rehearsal


def test_what_cannot_be_undone_is_parked_for_a_person_who_may_order_it_again() -> None:
    rehearsal = parked()
    (step,) = [one for one in rehearsal.view.steps if one.is_parked]
    assert (step.step, step.ticket, step.undo, step.text) == ("charge", "1b", "failed", "on fire")
    rehearsal.handlers["refund"] = good
    rehearsal.order("retry")
    assert checked(rehearsal) == "compensated"
    assert rehearsal.view.left == ()
    assert [one.ticket for one in rehearsal.view.history if one.event == "commanded"] == ["1f", "2f", "1b", "1b2"]


def test_it_is_parked_again_where_that_did_not_help() -> None:
    rehearsal = parked()
    rehearsal.order("retry")
    assert checked(rehearsal) == "parked"
    assert [str(ticket) for ticket in rehearsal.stored.parks] == ["1b", "1b2"]


def test_what_is_skipped_is_left_and_named() -> None:
    rehearsal = parked()
    rehearsal.order("skip", text="the bank is gone")
    assert checked(rehearsal) == "compensated"
    assert rehearsal.view.left == ("charge",)


def test_what_a_person_did_by_hand_is_not_left() -> None:
    rehearsal = parked()
    rehearsal.order("resolve", "charge")
    assert checked(rehearsal) == "compensated"
    assert rehearsal.view.left == ()


@pytest.mark.parametrize("order", ["skip", "resolve"])
def test_past_the_pivot_a_person_lets_a_step_be_or_says_its_result(order: str) -> None:
    saga = PIVOT.step("tell", node="mail", params={"of": "{{steps.ship.result.id}}"})
    rehearsal = rehearse(saga, ship=bad)
    assert checked(rehearsal) == "parked"
    rehearsal.order(order, "ship", result={"id": "by hand"})
    assert checked(rehearsal) == "completed"
    assert rehearsal.ran[-1].params == {"of": "by hand" if order == "resolve" else None}


def test_abandoned_is_left_as_it_stands() -> None:
    rehearsal = parked()
    rehearsal.order("abandon")
    assert checked(rehearsal) == "abandoned"
    assert rehearsal.view.left == ("charge",)


def test_cancel_undoes_and_never_skips() -> None:
    saga = Saga("s").step("a", node="n", compensate="una").step("b", node="n", compensate="unb").step("c", node="n")
    rehearsal = rehearse(saga)

    def cancelled(command: StepCommanded) -> JsonValue:
        rehearsal.order("cancel", text="changed my mind")
        return good(command)

    rehearsal.handlers["b"] = cancelled
    assert checked(rehearsal) == "compensated"
    assert ran(rehearsal) == ["a", "b", "unb", "una"], "what runs ends first, and is undone then"
    assert rehearsal.view.cause is not None
    assert (rehearsal.view.cause.reason, rehearsal.view.cause.by) == ("cancelled", "ops")


def test_a_scheduled_saga_can_be_cancelled() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, delay_ms=60_000)
    rehearsal.run(until_ms=1_000)
    rehearsal.order("cancel")
    assert checked(rehearsal) == "compensated"
    assert rehearsal.ran == []


def test_while_it_is_paused_nothing_is_commanded() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT)

    def pausing(command: StepCommanded) -> JsonValue:
        rehearsal.order("pause")
        return good(command)

    rehearsal.handlers["charge"] = pausing
    assert checked(rehearsal) == "paused"
    assert ran(rehearsal) == ["verify", "charge"]
    rehearsal.order("resume")
    assert checked(rehearsal) == "completed"


def test_a_cancel_goes_on_with_a_paused_saga() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, delay_ms=1_000)
    rehearsal.order("pause")
    assert checked(rehearsal) == "paused"
    rehearsal.order("cancel")
    assert checked(rehearsal) == "compensated"


def test_a_paused_saga_still_notices_that_a_time_has_passed() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT)

    def pausing(_command: StepCommanded) -> JsonValue:
        rehearsal.order("pause")
        raise NoAnswer

    rehearsal.handlers["charge"] = pausing
    assert checked(rehearsal) == "paused"
    assert rehearsal.view.steps[1].state == "unknown"
    assert ran(rehearsal) == ["verify", "charge"], "but undoes nothing yet"


# -- the fold


@given(st.integers(0, 200), st.randoms(use_true_random=False))
def test_any_order_and_any_of_them_twice_gives_the_same_saga(seed: int, dice: Random) -> None:
    entries = storm(seed, 60).journal.entries()
    mixed = entries + dice.sample(entries, len(entries) // 2)
    dice.shuffle(mixed)
    once, again = Stored("s-1"), Stored("s-1")
    for entry in entries:
        once = fold(once, entry)
    for entry in mixed:
        again = fold(again, entry)
    assert once == again
    assert moves(once, once.newest_ms + 9_999) == moves(again, again.newest_ms + 9_999)


def started(saga: Saga = CHECKOUT) -> Stored:
    rehearsal = rehearse(saga, INPUT)
    return fold(Stored("rehearsal"), rehearsal.journal.entries()[0])


def told(saga: Stored, outcome: str, ticket: str = "1f", node: str = "users", at_ms: int = NOON_MS) -> Stored:
    parsed = Ticket.parse(ticket)
    return fold(saga, Entry(saga.id, 1, at_ms, StepOutcome.model_validate({"outcome": outcome}), parsed, node))


def commanded(saga: Stored, now_ms: int = NOON_MS) -> Stored:
    """The saga after its first move was stored."""
    move = moves(saga, now_ms)[0]
    assert isinstance(move, Append)
    return fold(saga, Entry(saga.id, saga.last + 1, now_ms, move.event, move.ticket, move.node))


def test_an_outcome_counts_only_from_the_node_that_was_commanded() -> None:
    saga = commanded(started())
    assert moves(told(saga, "failed", node="liar"), NOON_MS) == ()
    (move,) = moves(told(told(saga, "failed", node="liar"), "succeeded"), NOON_MS)
    assert move.ticket == Ticket(2, Way.FORTH)


def test_the_first_outcome_counts() -> None:
    saga = told(told(commanded(started()), "succeeded"), "failed")
    assert saga.outcomes[Ticket(1, Way.FORTH), "users"].said.outcome == "succeeded"


def test_every_link_expects_the_chain_as_it_was_read() -> None:
    saga = commanded(started())
    assert saga.last == 2
    (move,) = moves(told(saga, "succeeded"), NOON_MS)
    assert isinstance(move, Append)
    assert move.expected == 2


def test_a_time_that_has_passed_is_written_where_the_outcome_would_be() -> None:
    saga = commanded(started())
    due_ms = NOON_MS + 30_000 + GRACE_MS
    assert moves(saga, due_ms - 1) == ()
    (move,) = moves(saga, due_ms)
    assert isinstance(move, Void)
    assert subject_of(move.event, saga.id, **move.keys()) == "antiphon.v1.outcome.rehearsal.1f.users"


def test_the_brokers_stamps_count_where_a_coordinators_clock_is_behind() -> None:
    saga = told(commanded(started()), "succeeded", node="liar", at_ms=NOON_MS + 90_000)
    assert isinstance(moves(saga, NOON_MS)[0], Void)


def test_a_round_that_was_commanded_on_an_outcome_that_was_not_read_leaves_a_doubt() -> None:
    saga = Saga("s").step("pay", node="bank", pivot=True)
    stored = commanded(started(saga))
    command = stored.commands[Ticket(1, Way.FORTH)].said
    stored = fold(stored, Entry(stored.id, 9, NOON_MS, command, Ticket(1, Way.FORTH, 2), "bank"))
    stored = told(stored, "failed", "1f2", "bank")
    assert not any(isinstance(move.event, SagaEnded) for move in moves(stored, NOON_MS)), "the first may have done it"


def test_what_was_turned_back_stays_so_for_whoever_cannot_see_why() -> None:
    """The clock of whoever turned it back at the deadline was ahead of this one's."""
    saga = Saga("s").step("a", node="n", compensate="una").step("b", node="n")
    stored = told(commanded(started(saga)), "succeeded", node="n")
    ahead = moves(stored, stored.deadline_ms)[0]
    assert isinstance(ahead, Append)
    subject = subject_of(ahead.event, stored.id, **ahead.keys())
    entry = read(subject, to_json(ahead.event, exclude_none=True), 3, NOON_MS)  # as whoever did not write it sees it
    assert entry is not None
    undone = fold(stored, entry)
    assert moves(undone, NOON_MS) == (), "it waits for that, and does nothing forward meanwhile"
    (move,) = moves(told(undone, "succeeded", "1b", "n"), NOON_MS)
    assert isinstance(move.event, SagaEnded)
    assert move.event.state == "compensated"


def test_nobody_drives_what_he_cannot_read() -> None:
    newer = read("antiphon.v1.saga.rehearsal.k.fork", b"{}", 2, NOON_MS)
    assert newer is not None
    saga = fold(started(), newer)
    assert saga.is_foreign
    assert moves(saga, NOON_MS) == ()


def test_what_a_node_writes_and_nobody_can_read_is_an_unknown_outcome() -> None:
    for data in (b"garbage", b'{"outcome": "maybe"}', b'{"outcome": "succeeded", "result": [NaN]}', b" " * 99_999):
        entry = read("antiphon.v1.outcome.rehearsal.1f.users", data, 1, NOON_MS)
        assert entry is not None
        saga = fold(commanded(started()), entry)
        cause = view(saga, NOON_MS)
        assert cause is not None
        assert cause.cause is not None
        assert (cause.cause.reason, cause.cause.code) == ("step_unknown", "malformed"), (
            "it was written: no other will be"
        )


@pytest.mark.parametrize(
    "text", ["", "1", "f1", "0f", "1f0", "1f1", "1f01", "1F", "100f", "1f1000", "1fa", "-1f", "1f\n"]
)
def test_what_is_no_ticket_is_none_so_that_each_has_one_spelling(text: str) -> None:
    assert Ticket.parse(text) is None


@given(st.builds(Ticket, st.integers(1, 99), st.sampled_from([Way.FORTH, Way.BACK]), st.integers(1, 999)))
def test_a_ticket_is_read_as_it_was_written(ticket: Ticket) -> None:
    assert Ticket.parse(str(ticket)) == ticket


COMMAND = StepCommanded(step="a", action="a", key="s/1f", timeout_ms=1_000, saga="s", caller="web")


@pytest.mark.parametrize(
    ("event", "keys"),
    [
        (COMMAND, {"node": "n", "ticket": "1f"}),
        (SagaParked(step="a", code="x"), {"ticket": "1b2"}),
        (SagaResumed(step="a", order="skip", by="ops", nonce="n1"), {"ticket": "1b2"}),
        (SagaOrdered(order="cancel", by="ops"), {"nonce": "n1"}),
        (SagaTimerSet(at_ms=1), {}),
        (SagaTimerFired(at_ms=1), {}),
        (StepOutcome(outcome="failed"), {"node": "n", "ticket": "1f"}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_subjects_are_read_as_they_are_written(event: StepCommanded, keys: dict[str, str]) -> None:
    subject = subject_of(event, "s", **keys)
    entry = read(subject, event.model_dump_json().encode(), 5, 6)
    assert entry is not None
    assert (entry.saga, entry.seq, entry.at_ms, entry.event) == ("s", 5, 6, event)
    assert ("" if entry.ticket is None else str(entry.ticket)) == keys.get("ticket", "")
    assert (entry.node, entry.nonce) == (keys.get("node", ""), keys.get("nonce", ""))
    assert entry.is_link == subject.startswith(chain_of("s")[:-1])
    other = read(subject.replace("antiphon.", "other."), event.model_dump_json().encode(), 5, 6, prefix="other")
    assert other == entry


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "x",
        "antiphon.v1.saga.submit.web",
        "antiphon.v2.saga.s.k.end",
        "antiphon.v1.saga.s.x",
        "antiphon.v1.outcome.s.marker.n",
        "antiphon.v1.outcome.s.1f",
        "antiphon.v1.saga.*.k.end",
    ],
)
def test_what_says_nothing_of_a_saga_is_no_entry(subject: str) -> None:
    assert read(subject, b"{}", 1, 1) is None


def test_a_purged_saga_is_what_its_end_says() -> None:
    rehearsal = rehearse(CHECKOUT, INPUT, receipt=bad)
    rehearsal.run()
    end = rehearsal.journal.entries()[-1]
    assert isinstance(end.event, SagaEnded)
    kept, whole = fold(Stored("rehearsal"), end), rehearsal.view
    assert moves(kept, NOON_MS) == ()
    assert wake_ms(kept, NOON_MS) is None
    short = view(kept, NOON_MS)
    assert short is not None
    assert (short.state, short.steps, short.cause, short.caller) == (
        whole.state,
        whole.steps,
        whole.cause,
        whole.caller,
    )


# -- the timer


def test_one_timer_is_early_enough_for_every_command() -> None:
    saga = Saga("s").step("a", node="n", timeout_ms=60_000).step("b", node="n", timeout_ms=2_000)
    now_ms = NOON_MS + 10
    stored = commanded(started(saga), now_ms)
    assert wake_ms(stored, now_ms) == now_ms + 2_000, "b may be commanded right after this"
    assert wake_ms(stored, now_ms + 59_000) == now_ms + 60_000 + GRACE_MS


def test_the_timer_waits_for_the_beginning_and_for_the_deadline() -> None:
    late = rehearse(CHECKOUT, INPUT, delay_ms=5_000)
    saga = fold(Stored("rehearsal"), late.journal.entries()[0])
    assert wake_ms(saga, NOON_MS) == saga.begins_ms == saga.started_ms + 5_000
    short = started(Saga("s", deadline_ms=2_000).step("a", node="n"))
    assert wake_ms(commanded(short, short.started_ms), short.started_ms) == short.deadline_ms


def test_an_open_saga_is_looked_at_now_and_then_whatever_was_lost() -> None:
    saga = parked().stored
    assert wake_ms(saga, saga.newest_ms) == saga.newest_ms + IDLE_MS


# -- waits


@given(st.integers(1, 2_000), st.floats(0, 1, exclude_max=True), st.integers(1, 1_000), st.integers(1, 100_000))
def test_waits_are_drawn_below_a_cap_that_doubles(tries: int, dice: float, base_ms: int, cap_ms: int) -> None:
    retry = SagaRetry(base_ms=base_ms, cap_ms=cap_ms)
    assert 0 <= wait_ms(retry, tries, dice) <= min(cap_ms, base_ms * 2 ** min(tries - 1, 60))


def test_all_coordinators_throw_the_same_dice() -> None:
    assert dice_of("s-1/2b") == 0.02701464753470617, "in every process, and in the next version"
    draws = [dice_of(str(number)) for number in range(2_000)]
    assert all(0 <= one < 1 for one in draws)
    assert 0.45 < sum(draws) / len(draws) < 0.55


def test_what_a_node_does_when_its_handler_fails() -> None:
    retry = SagaRetry(attempts_max=3, base_ms=100)
    assert after_failure(HandlerFailed("x"), retry, attempts=1, left_ms=1_000, dice=0.5) == Again(50)
    assert after_failure(HandlerFailed("x"), retry, attempts=3, left_ms=1_000, dice=0.5).__class__ is GiveUp
    assert after_failure(HandlerFailed("x"), retry, attempts=1, left_ms=50, dice=0.5).__class__ is GiveUp
    full = Overloaded("full", retry_after_ms=400)
    assert after_failure(full, retry, attempts=1, left_ms=1_000, dice=0.5) == Again(450)
    verdict = after_failure(InvalidReply("y"), retry, attempts=1, left_ms=1_000, dice=0.5)
    assert verdict == GiveUp("invalid_reply", "y", is_retryable=False)


# -- views


def test_a_line_says_where_a_saga_stands() -> None:
    one = line(parked().stored, NOON_MS)
    assert one is not None
    assert (one.state, one.done, one.total, one.step, one.text) == ("parked", 1, 2, "charge", "on fire")
    rehearsal = rehearse(CHECKOUT, INPUT, receipt=bad)
    rehearsal.run()
    one = line(rehearsal.stored, NOON_MS)
    assert one is not None
    assert (one.state, one.step, one.text) == ("compensated", None, "step_failed receipt")
    assert (line(Stored("none"), NOON_MS), view(Stored("none"), NOON_MS)) == (None, None)


def test_a_history_is_in_the_order_in_which_it_happened() -> None:
    rehearsal = parked()
    rehearsal.order("skip")
    rehearsal.run()
    assert [(one.event, one.ticket) for one in rehearsal.view.history] == [
        ("started", None),
        ("commanded", "1f"),
        ("succeeded", "1f"),
        ("commanded", "2f"),
        ("failed", "2f"),
        ("commanded", "1b"),
        ("failed", "1b"),
        ("parked", "1b"),
        ("ordered", "1b"),
        ("resumed", "1b"),
        ("ended", None),
    ]


def test_results_that_do_not_fit_are_named() -> None:
    big = "x" * 30_000
    saga = Saga("s")
    for number in range(12):
        saga = saga.step(f"a{number}", node="n", after=())
    rehearsal = Rehearsal(saga, {f"a{number}": lambda _: big for number in range(12)})
    assert checked(rehearsal) == "completed"
    assert len(rehearsal.view.results) == 8
    assert rehearsal.view.cut == ("a8", "a9", "a10", "a11")


def test_voids_say_so() -> None:
    assert StepVoided().outcome == "unknown"


def test_what_nodes_count_can_always_be_added_up() -> None:
    with pytest.raises(ValidationError):
        StepEnd(outcome="succeeded", attempts=2**53)
    most = StepOutcome(outcome="succeeded", attempts=ATTEMPTS_MAX).model_dump_json().replace("1000", str(2**53))
    entry = read("antiphon.v1.outcome.rehearsal.1f.n", most.encode(), 9, NOON_MS)
    assert entry is not None
    assert isinstance(entry.event, StepOutcome)
    assert (entry.event.outcome, entry.event.attempts) == ("unknown", 1), "as any outcome that cannot be read"
