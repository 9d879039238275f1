"""What is remembered of definitions is what would be worked out anew, and is bounded."""

from __future__ import annotations

import json
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide import saga_known
from antiphon.decide.saga_desk import begin, digest_of
from antiphon.decide.saga_known import KNOWN_BYTES_MAX, KNOWN_MAX, known, said
from antiphon.decide.saga_plan import plan, problems
from antiphon.errors import InvalidSaga
from antiphon.messages.saga import SagaDefinition
from antiphon.messages.saga_desk import SagaSubmit
from antiphon.saga import Saga
from saga_world import draw_definition

ONE = Saga("one").step("a", "do", node="n", params={"at": "{{input.at}}", "of": ["{{input.shop.id}} {{saga.id}}"]})


@given(st.integers(0, 500))
def test_the_same_content_is_known_as_if_it_were_worked_out_anew(seed: int) -> None:
    definition = draw_definition(Random(seed))
    again = SagaDefinition.model_validate_json(definition.model_dump_json())
    known(definition)
    assert known(again).plan.order == plan(definition).order
    assert known(again).plan.steps == plan(definition).steps
    assert (known(again).inputs is None) == bool(problems(definition))


@given(st.integers(0, 100), st.booleans(), st.integers(0, 5))
def test_a_digest_is_that_of_the_canonical_json_of_all_that_matters(seed: int, waits: bool, delay_ms: int) -> None:
    definition = draw_definition(Random(seed))
    ask = SagaSubmit(id=f"s-{seed}", definition=definition, input={"b": 1, "a": "ä"}, wait=waits, delay_ms=delay_ms)
    whole = said(ask.model_copy(update={"id": None, "wait": False, "behalf": None}))
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"))
    assert digest_of(ask) == sha256(canonical.encode()).hexdigest()


def test_an_input_that_lacks_a_name_is_refused_each_time_it_does() -> None:
    assert known(ONE.definition).inputs == frozenset({"at", "shop"})
    good = SagaSubmit(definition=ONE.definition, input={"at": 1, "shop": {"id": 2}})
    bad = SagaSubmit(definition=ONE.definition, input={"at": 1})
    for _ in range(2):
        assert begin(good, "web", lambda _: None).input == good.input
        with pytest.raises(InvalidSaga, match="the input has no such name"):
            begin(bad, "web", lambda _: None)


def test_what_is_wrong_is_said_each_time() -> None:
    wrong = Saga("wrong").step("a", "do", node="n", after=["b"]).step("b", "do", node="n", after=["a"])
    definition = SagaDefinition(name="wrong", steps=wrong.steps)
    for _ in range(2):
        with pytest.raises(InvalidSaga, match="wait for each other"):
            begin(SagaSubmit(definition=definition), "web", lambda _: None)


def test_what_is_remembered_is_bounded() -> None:
    for at in range(KNOWN_MAX + 50):
        known(Saga(f"s-{at}").step("a", "do", node="n").definition)
    assert len(saga_known.remembered) == KNOWN_MAX
    large = Saga("large").step("a", "do", node="n", params={"text": "x" * KNOWN_BYTES_MAX}).definition
    assert known(large).plan.order == (1,)
    assert all(len(raw) <= KNOWN_BYTES_MAX for raw in saga_known.remembered)
