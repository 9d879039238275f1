"""Submitting twice, submitting something else under the same id, and orders that make sense or none."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from antiphon.bus.codec import encode
from antiphon.decide.saga import fold
from antiphon.decide.saga_desk import ORDERS_MAX, OWN_ORDERS_MAX, begin, check_same, digest_of, order
from antiphon.decide.saga_log import Entry
from antiphon.decide.saga_state import Saga as Stored
from antiphon.decide.saga_view import view
from antiphon.errors import (
    AlreadySubmitted,
    HandlerFailed,
    InvalidSaga,
    Malformed,
    NotAllowed,
    UnknownNode,
    UnknownSaga,
    WrongState,
)
from antiphon.messages.saga import DEADLINE_MS_MAX, SagaCompensation, SagaRetry, SagaStep
from antiphon.messages.saga_desk import START_AT_MS_MAX, SagaOrder, SagaSubmit, SagaView
from antiphon.messages.saga_history import StepCommanded
from antiphon.saga import Saga
from antiphon.testing.rehearsal import NoAnswer, Rehearsal

ONCE = SagaRetry(attempts_max=1, rounds_max=1)
ASKED = Saga("s").step("a", node="n", params={"x": "{{input.x}}"}, compensate="una").step("b", where="region=eu")


def submit(**other: Any) -> SagaSubmit:
    return ASKED.submission(**({"input": {"x": 1}, "id": "order-1"} | other))


def stored(ask: SagaSubmit, caller: str = "web") -> Stored:
    return fold(Stored("order-1"), Entry("order-1", 1, 0, begin(ask, caller, lambda _: "picked")))


def test_a_submission_is_kept_whole_with_its_nodes_picked() -> None:
    start = begin(
        submit(delay_ms=5, wait=True), "web", lambda step: f"for-{step.name}", delegate="gate", reply="_I.gate.1.2"
    )
    assert [step.node for step in start.definition.steps] == ["n", "for-b"]
    assert (start.caller, start.delegate, start.delay_ms, start.reply) == ("web", "gate", 5, "_I.gate.1.2")
    assert begin(submit(), "web", lambda _: "m", reply="_I.web.1.2").reply is None, "nobody waits"
    for odd in ("_I.web.1.$2", f"_I.web.1.{'2' * 250}", "_I.web.1.é"):
        assert begin(submit(wait=True), "web", lambda _: "m", reply=odd).reply is None, "others are not kept"


def test_what_makes_no_sense_is_not_begun() -> None:
    with pytest.raises(UnknownNode):
        begin(submit(), "web", lambda _: None)
    with pytest.raises(InvalidSaga, match="input"):
        begin(submit().model_copy(update={"input": {}}), "web", lambda _: "m")
    with pytest.raises(Malformed):
        begin(submit(delay_ms=5, start_at_ms=5), "web", lambda _: "m")


def test_whatever_may_be_submitted_can_be_shown() -> None:
    longest = Saga("s", deadline_ms=DEADLINE_MS_MAX, steps=(SagaStep(name="a", node="n", action="a"),))
    shown = view(stored(longest.submission(start_at_ms=START_AT_MS_MAX)), now_ms=0)
    assert shown is not None
    assert shown.deadline_ms == START_AT_MS_MAX + DEADLINE_MS_MAX
    assert datetime.fromtimestamp(shown.deadline_ms / 1_000, UTC).year == 2100
    with pytest.raises(InvalidSaga, match="start_at_ms"):
        submit(start_at_ms=START_AT_MS_MAX + 1)


def test_the_same_again_is_the_same_saga() -> None:
    check_same(stored(submit()), submit(), "web")
    check_same(stored(submit()), submit(wait=True), "web")
    check_same(stored(submit()), submit().model_copy(update={"behalf": "a.b.c"}), "web")


@pytest.mark.parametrize(
    ("ask", "caller"),
    [
        (submit(input={"x": 2}), "web"),
        (submit(delay_ms=1), "web"),
        (submit(start_at_ms=1), "web"),
        (ASKED.step("c", node="n").submission({"x": 1}, id="order-1"), "web"),
        (submit(), "mallory"),
    ],
)
def test_anything_else_under_that_id_is_refused(ask: SagaSubmit, caller: str) -> None:
    with pytest.raises(AlreadySubmitted):
        check_same(stored(submit()), ask, caller)
    with pytest.raises(AlreadySubmitted):
        check_same(Stored("order-1"), ask, caller)


def test_the_same_again_is_the_same_after_its_end_was_all_that_is_kept() -> None:
    rehearsal = Rehearsal(ASKED, {"a": lambda _: 1, "b": lambda _: 2}, {"x": 1})
    rehearsal.run()
    ended = fold(Stored("rehearsal"), rehearsal.journal.entries()[-1])
    assert ended.start is None
    check_same(ended, submit(id="rehearsal"), "rehearsal")
    with pytest.raises(AlreadySubmitted):
        check_same(ended, submit(id="rehearsal", input={"x": 2}), "rehearsal")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4))
def test_the_digest_does_not_depend_on_the_way(given_input: dict[str, JsonValue]) -> None:
    ask = SagaSubmit(definition=ASKED.definition, input=given_input)
    read = SagaSubmit.model_validate_json(ask.model_dump_json())
    turned = ask.model_copy(update={"input": dict(reversed(given_input.items())), "id": "other"})
    assert digest_of(ask) == digest_of(read) == digest_of(turned)


def test_the_digest_is_the_same_in_every_version() -> None:
    ask = Saga("reindex").step("reindex", node="blog").submission({"full": True})
    assert digest_of(ask)[:12] == "7084f42688d4"


# -- orders


def asked(order_: str, **other: JsonValue) -> SagaOrder:
    return SagaOrder.model_validate({"id": "rehearsal", "order": order_, **other})


def running() -> Stored:
    return Rehearsal(ASKED, {}, {"x": 1}).stored


def parked() -> Stored:
    def bad(_command: StepCommanded) -> JsonValue:
        raise HandlerFailed("on fire")

    undo = SagaCompensation(action="una", retry=ONCE)
    saga = Saga("s").step("a", node="n", compensate=undo).step("b", node="n", retry=ONCE)
    rehearsal = Rehearsal(saga, {"a": lambda _: 1, "b": bad, "una": bad})
    rehearsal.run()
    return rehearsal.stored


def test_an_order_names_the_ticket_that_it_is_for() -> None:
    one = order(asked("resolve", step="a", result={"id": 1}, text="by hand"), parked(), "ops", is_operator=True)
    assert (one.order, one.by, one.ticket, one.result, one.text) == ("resolve", "ops", "1b", {"id": 1}, "by hand")
    assert order(asked("skip", result=5), parked(), "ops", is_operator=True).result is None, "only resolve has a result"


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_whoever_submitted_a_saga_may_order_these(verb: str) -> None:
    assert order(asked(verb), running(), "rehearsal", is_operator=False).by == "rehearsal"


@pytest.mark.parametrize("verb", ["retry", "skip", "resolve", "abandon"])
def test_and_only_an_operator_these(verb: str) -> None:
    with pytest.raises(NotAllowed):
        order(asked(verb), parked(), "rehearsal", is_operator=False)


@pytest.mark.parametrize("verb", ["cancel", "abandon", "retry"])
def test_nobody_else_learns_that_there_is_such_a_saga(verb: str) -> None:
    with pytest.raises(UnknownSaga) as other:
        order(asked(verb), parked(), "mallory", is_operator=False)
    with pytest.raises(UnknownSaga) as none:
        order(asked(verb), Stored("rehearsal"), "mallory", is_operator=False)
    assert other.value.text == none.value.text


def test_a_saga_takes_so_many_orders_and_no_more() -> None:
    saga = running()
    for at in range(OWN_ORDERS_MAX):
        verb = "resume" if at % 2 else "pause"
        said = order(asked(verb), saga, "rehearsal", is_operator=False)
        saga = fold(saga, Entry(saga.id, saga.last + at + 1, 0, said, nonce=f"n{at}"))
    with pytest.raises(WrongState, match="100 orders"):
        order(asked("pause"), saga, "rehearsal", is_operator=False)
    said = order(asked("pause"), saga, "ops", is_operator=True)
    for at in range(OWN_ORDERS_MAX, ORDERS_MAX):
        saga = fold(saga, Entry(saga.id, saga.last + at + 1, 0, said, nonce=f"n{at}"))
    with pytest.raises(WrongState, match="1000 orders"):
        order(asked("pause"), saga, "ops", is_operator=True)
    assert order(asked("abandon"), saga, "ops", is_operator=True).order == "abandon"
    shown = view(saga, now_ms=0, has_history=True)
    assert shown is not None
    assert len(shown.history) == ORDERS_MAX + 1, "besides its start"


def test_what_stands_in_a_history_fits_into_one_answer() -> None:
    saga, text = running(), "\x01" * 200
    said = order(asked("pause", text=text), saga, "ops", is_operator=True)
    for at in range(ORDERS_MAX):
        saga = fold(saga, Entry(saga.id, at + 2, saga.newest_ms + 1, said, nonce=f"n{at}"))
    shown = view(saga, now_ms=0, has_history=True)
    assert shown is not None
    assert len(encode(shown)) < SagaView.size_max
    assert shown.history[-1].at_ms == saga.newest_ms, "the latest are shown"
    assert len(shown.history) > 100


def unresolved() -> Stored:
    saga = Saga("s").step("p", node="n", pivot=True).step("q", node="n", params={"x": "{{steps.p.result.missing}}"})
    rehearsal = Rehearsal(saga, {"p": lambda _: {}, "q": lambda _: 1})
    rehearsal.run()
    return rehearsal.stored


def doubtful() -> Stored:
    def dead(_command: StepCommanded) -> JsonValue:
        raise NoAnswer

    rehearsal = Rehearsal(Saga("s").step("p", node="n", pivot=True, retry=ONCE), {"p": dead})
    rehearsal.run()
    return rehearsal.stored


def twice_parked() -> Stored:
    def bad(_command: StepCommanded) -> JsonValue:
        raise HandlerFailed("on fire")

    saga = Saga("s").step("p", node="n", pivot=True)
    for name in "qr":
        saga = saga.step(name, node="n", after="p", retry=ONCE)
    rehearsal = Rehearsal(saga, {"p": lambda _: 1, "q": bad, "r": bad})
    rehearsal.run()
    return rehearsal.stored


def ended() -> Stored:
    rehearsal = Rehearsal(ASKED, {"a": lambda _: 1, "b": lambda _: 2}, {"x": 1})
    rehearsal.run()
    return rehearsal.stored


@pytest.mark.parametrize(
    ("saga", "said", "why"),
    [
        (ended(), {"order": "cancel"}, "has ended: completed"),
        (running(), {"order": "retry"}, "is not parked"),
        (running(), {"order": "resume"}, "is not paused"),
        (parked(), {"order": "skip", "step": "b"}, "is not parked at b"),
        (parked(), {"order": "resolve", "outcome": "failed"}, "only of a pivot"),
        (unresolved(), {"order": "retry"}, "point at nothing"),
        (unresolved(), {"order": "cancel"}, "past its pivot"),
        (twice_parked(), {"order": "retry"}, "say which of q, r"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(saga: Stored, said: dict[str, JsonValue], why: str) -> None:
    with pytest.raises(WrongState) as raised:
        order(SagaOrder.model_validate({"id": "rehearsal", **said}), saga, "ops", is_operator=True)
    assert why in raised.value.text


def test_of_a_pivot_a_person_may_say_that_it_failed() -> None:
    assert order(asked("resolve", outcome="failed"), doubtful(), "ops", is_operator=True).outcome == "failed"
    assert order(asked("skip", step="r"), twice_parked(), "ops", is_operator=True).ticket == "3f"
