"""What a saga may say: the order of its steps, all that can be wrong with one, files, and the class that writes it."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from antiphon.decide.saga_plan import checked, plan, problems, settled, verdict
from antiphon.errors import InvalidSaga, UnknownNode
from antiphon.messages.saga import PATIENT, STEPS_MAX, SagaCompensation, SagaDefinition, SagaRetry, SagaStep
from antiphon.saga import Saga
from saga_world import draw_definition

Step = dict[str, Any]


def saga(*steps: Step) -> SagaDefinition:
    return SagaDefinition.model_validate(
        {"name": "s", "steps": [{"node": "n", "action": "do", **step} for step in steps]}
    )


def codes(definition: SagaDefinition, **given_input: Any) -> list[tuple[str, str | None]]:
    return [(one.code, one.step) for one in problems(definition, given_input or None)]


def test_steps_follow_each_other_unless_they_say_otherwise() -> None:
    one = plan(saga({"name": "a"}, {"name": "b"}, {"name": "c", "after": ["a"]}, {"name": "d", "after": []}))
    assert [step.after for step in one.steps] == [(), (1,), (1,), ()]
    assert one.waves() == (("a", "d"), ("b", "c"))
    assert [sorted(step.before) for step in one.steps] == [[], [1], [1], []]


def test_a_step_may_be_listed_before_what_it_waits_for() -> None:
    one = plan(saga({"name": "last", "after": ["first"]}, {"name": "first", "after": []}))
    assert one.order == (2, 1)
    assert verdict(one.definition).waves == (("first",), ("last",))


@given(st.integers(0, 2**32))
def test_each_comes_after_what_it_waits_for(seed: int) -> None:
    one = plan(draw_definition(Random(seed)))
    places = {number: at for at, number in enumerate(one.order)}
    assert sorted(places) == list(range(1, len(one.steps) + 1))
    for step in one.steps:
        assert all(places[before] < places[step.number] for before in step.before)
        assert set(step.after) <= step.before


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        ([{"name": "a"}, {"name": "a"}], ("name", "a")),
        ([{"name": "a", "after": ["b"]}], ("unknown_step", "a")),
        ([{"name": "a", "after": ["a"]}], ("cycle", None)),
        ([{"name": "a", "after": ["b"]}, {"name": "b", "after": ["a"]}], ("cycle", None)),
        ([{"name": "a", "node": None}], ("node", "a")),
        ([{"name": "a", "where": "region=eu"}], ("node", "a")),
        ([{"name": "a", "node": None, "where": "region"}], ("where", "a")),
        ([{"name": "a", "pivot": True, "critical": False}], ("pivot", "a")),
        ([{"name": "a", "pivot": True}, {"name": "b", "pivot": True}], ("pivot", "b")),
        ([{"name": "a", "pivot": True}, {"name": "b", "compensate": {"action": "x"}}], ("pivot", "b")),
        ([{"name": "a", "pivot": True}, {"name": "b", "after": []}], ("pivot", "b")),
        ([{"name": "a", "params": {"x": "{{oops}}"}}], ("reference", "a")),
        ([{"name": "a", "params": {"x": "{{steps.b.result}}"}}], ("unknown_reference", "a")),
        ([{"name": "a", "params": {"x": "{{steps.a.result}}"}}], ("unknown_reference", "a")),
        ([{"name": "a", "params": {"x": "{{result.id}}"}}], ("unknown_reference", "a")),
        (
            [{"name": "a"}, {"name": "b", "after": [], "params": {"x": "{{steps.a.result}}"}}],
            ("unknown_reference", "b"),
        ),
        (
            [{"name": "a", "compensate": {"action": "x", "params": {"y": "{{steps.b.result}}"}}}, {"name": "b"}],
            ("unknown_reference", "a"),
        ),
        ([{"name": "a", "params": {"x": "{{input.nope}}"}}], ("unknown_reference", "a")),
    ],
)
def test_what_is_wrong_is_said(steps: list[Step], wrong: tuple[str, str | None]) -> None:
    assert codes(saga(*steps), user="u1") == [wrong]
    with pytest.raises(InvalidSaga):
        checked(saga(*steps), {"user": "u1"})


@pytest.mark.parametrize(
    "steps",
    [
        [{"name": "a", "node": None, "where": "region=eu, tier!=test"}],
        [{"name": "a", "critical": False, "after": []}, {"name": "b", "pivot": True, "after": []}],
        [{"name": "a", "pivot": True, "compensate": {"action": "x"}}, {"name": "b", "critical": False}],
        [{"name": "a"}, {"name": "b", "params": {"x": "{{steps.a.result.y}}", "z": "{{input.user}}"}}],
        [{"name": "a", "compensate": {"action": "x", "params": {"y": "{{result}} {{steps.a.result}} {{saga.id}}"}}}],
    ],
)
def test_what_makes_sense_has_no_problems(steps: list[Step]) -> None:
    assert codes(saga(*steps), user="u1") == []


def test_everything_is_said_at_once() -> None:
    definition = saga({"name": "a", "node": None, "after": ["x", "y"]}, {"name": "a", "where": "="})
    assert [one.code for one in problems(definition)] == [
        "name",
        "node",
        "unknown_step",
        "unknown_step",
        "node",
        "where",
    ]
    with pytest.raises(InvalidSaga) as raised:
        checked(definition)
    assert raised.value.text.splitlines()[1] == "a: say either its node or `where`"


def test_a_cycle_is_shown() -> None:
    steps = [{"name": name, "after": [after]} for name, after in ("ab", "bc", "cb", "da")]
    (problem,) = problems(saga(*steps))
    assert problem.text == "steps wait for each other: b -> c -> b"


def test_a_saga_that_is_too_large_to_keep_is_refused() -> None:
    big = [{"name": f"a{number}", "params": {"x": "x" * 30_000}} for number in range(10)]
    assert codes(saga(*big)) == [("too_large", None)]


def test_input_is_only_checked_where_it_is_known() -> None:
    definition = saga({"name": "a", "params": {"x": "{{input.nope}}"}})
    assert problems(definition) == ()
    assert verdict(definition, {}).waves == ()


def test_a_node_is_picked_once() -> None:
    definition = saga({"name": "a", "node": None, "where": "region=eu"}, {"name": "b"})
    assert [step.node for step in settled(definition, lambda step: f"for-{step.name}").steps] == ["for-a", "n"]
    with pytest.raises(UnknownNode, match="region=eu"):
        settled(definition, lambda _: None)


@pytest.mark.parametrize(
    "value",
    [
        {"x": float("nan")},
        {"x": [float("inf")]},
        {"x": 2**63},
        {"x": "x" * 40_000},
        {"x": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]},
        {str(number): 1 for number in range(65)},
        {"x" * 201: 1},
        {"x": object()},
    ],
)
def test_params_are_json_and_bounded(value: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SagaStep(name="a", action="b", params=value)


def test_nan_is_refused_from_json_too() -> None:
    with pytest.raises(ValidationError):
        SagaStep.model_validate_json('{"name": "a", "action": "b", "params": {"x": NaN}}')


# -- files


TOML = """
name = "checkout"
deadline_ms = 60_000

[[steps]]
name = "charge"
node = "bank"
action = "charge_card"
params = { amount = "{{input.amount}}", tags = ["a", 1, true] }
retry = { attempts_max = 5 }
compensate = { action = "refund", params = { id = "{{result.id}}" } }

[[steps]]
name = "send"
where = "region=eu"
action = "send"
critical = false
"""


def test_a_file_says_the_same_as_python(tmp_path: Path) -> None:
    written = (
        Saga("checkout", deadline_ms=60_000)
        .step(
            "charge",
            "charge_card",
            node="bank",
            params={"amount": "{{input.amount}}", "tags": ["a", 1, True]},
            retry=SagaRetry(attempts_max=5),
            compensate=SagaCompensation(action="refund", params={"id": "{{result.id}}"}),
        )
        .step("send", where="region=eu", critical=False)
    )
    (tmp_path / "checkout.toml").write_text(TOML)
    (tmp_path / "checkout.json").write_text(written.definition.model_dump_json())
    assert Saga.load(tmp_path / "checkout.toml").definition == written.definition
    assert Saga.load(str(tmp_path / "checkout.json")).definition == written.definition
    assert Saga.of(written.definition).definition == written.definition


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "name = 'a'", "a.toml: steps: Field required"),
        ("a.toml", "name = ", "Invalid value"),
        ("a.json", "{", "Expecting property name"),
        ("a.json", "[]", "valid dictionary"),
        ("a.json", "[" * 100_000, "too deep to read"),
        ("a.toml", "name = 'a'\nsteps = " + "[" * 5_000 + "]" * 5_000, "too deep to read"),
        ("a.yaml", "name: a", "a saga is a .toml or a .json file"),
        ("a.json", '{"name": "a", "nmae": 1, "steps": []}', "a.json: nmae: there is no such key"),
        (
            "a.json",
            '{"name": "a", "steps": [{"name": "a", "acton": "b"}]}',
            "a.json: steps.0.acton: there is no such key",
        ),
        (
            "a.json",
            '{"name": "a", "steps": [{"name": "a", "action": "b", "compensate": {"retry": {"x": 1}}}]}',
            "retry.x",
        ),
        (
            "a.json",
            '{"name": "a", "steps": [{"name": "a", "action": "b", "node": "n", "timeout_ms": 1}]}',
            "timeout_ms",
        ),
        ("a.json", '{"name": "a", "steps": [{"name": "a", "action": "b"}]}', "a: say either its node or `where`"),
        (
            "a.toml",
            "name = 'a'\n[[steps]]\nname = 'a'\naction = 'b'\nnode='n'\nparams = { at = 2026-11-23 }",
            "params.at",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidSaga) as raised:
        Saga.load(tmp_path / name)
    assert said in raised.value.text


def test_params_of_a_file_may_have_any_name() -> None:
    steps = [{"name": "a", "action": "b", "node": "n", "params": {"steps": [{"any": {"thing": 1}}]}}]
    assert SagaDefinition.model_validate({"name": "a", "steps": steps}).steps[0].params["steps"] == [
        {"any": {"thing": 1}}
    ]


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidSaga, match="No such file"):
        Saga.load(tmp_path / "none.toml")


# -- the class


def test_a_saga_never_changes() -> None:
    base = Saga("s").step("a", node="n")
    longer = base.step("b", node="n")
    assert (len(base.steps), len(longer.steps)) == (1, 2)
    assert repr(longer) == "Saga('s', 2 steps)"


def test_defaults_are_those_of_the_message() -> None:
    (step,) = Saga("s").step("a", node="n", compensate="undo").definition.steps
    assert step == SagaStep(name="a", node="n", action="a", compensate=SagaCompensation(action="undo"))
    assert step.compensate is not None
    assert step.compensate.retry == PATIENT
    assert Saga("s").step("a", node="n").step("b", node="n", after="a").steps[1].after == ("a",)
    assert Saga("s").step("a", node="n", after=()).steps[0].after == ()


def test_what_is_out_of_bounds_is_said_where_it_is_said() -> None:
    with pytest.raises(InvalidSaga, match="name"):
        Saga("no name")
    with pytest.raises(InvalidSaga, match="timeout_ms"):
        Saga("s").step("a", node="n", timeout_ms=5)
    with pytest.raises(InvalidSaga, match="deadline_ms"):
        Saga("s", deadline_ms=0)
    with pytest.raises(InvalidSaga, match="steps"):
        _ = Saga("s").definition
    many = Saga("s")
    for number in range(STEPS_MAX):
        many = many.step(f"a{number}", node="n")
    assert many.problems == ()
    with pytest.raises(InvalidSaga):
        many.step("more", node="n")


def test_a_submission_is_the_message() -> None:
    asked = Saga("s").step("a", node="n", params={"x": "{{input.x}}"})
    ask = asked.submission({"x": 1}, id="order-1", delay_ms=5, wait=True)
    assert json.loads(ask.model_dump_json(exclude_defaults=True)) == {
        "id": "order-1",
        "definition": {
            "name": "s",
            "steps": [{"name": "a", "node": "n", "action": "a", "params": {"x": "{{input.x}}"}}],
        },
        "input": {"x": 1},
        "delay_ms": 5,
        "wait": True,
    }
    with pytest.raises(InvalidSaga, match=r"input\.x"):
        asked.submission()
