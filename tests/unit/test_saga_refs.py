"""References: what they look like, what they become, and that nothing is read for references twice."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from antiphon.decide.saga_refs import BadReference, Scope, Unresolved, parse, references, resolve

SCOPE = Scope(
    saga="order-1",
    input={"user": "u1", "n": 5, "deep": {"list": [{"id": "x"}, None]}},
    results={"charge": {"id": 7, "ok": True, "no": None}, "plain": "text", "none": None},
    own={"id": 9},
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("{{input.user}}", "u1"),
        ("{{ input.user }}", "u1"),
        ("{{input.n}}", 5),
        ("{{input.deep.list.0.id}}", "x"),
        ("{{input.deep.list.1}}", None),
        ("{{input.deep}}", {"list": [{"id": "x"}, None]}),
        ("{{input}}", {"user": "u1", "n": 5, "deep": {"list": [{"id": "x"}, None]}}),
        ("{{steps.charge.result.id}}", 7),
        ("{{steps.charge.result.ok}}", True),
        ("{{steps.plain.result}}", "text"),
        ("{{result.id}}", 9),
        ("{{saga.id}}", "order-1"),
        ("{{saga.id}}/{{input.n}}", "order-1/5"),
        ("{{steps.charge.result.ok}}!", "true!"),
        ("<{{steps.charge.result.no}}>", "<>"),
        (r"\{{input.user}}", "{{input.user}}"),
        (r"a \{{ b", "a {{ b"),
        ("}} alone, { and }", "}} alone, { and }"),
    ],
)
def test_what_a_text_becomes(text: str, value: JsonValue) -> None:
    assert resolve({"p": text}, SCOPE) == {"p": value}


def test_they_are_found_however_deep() -> None:
    params: dict[str, JsonValue] = {"a": [{"b": "{{input.user}} {{saga.id}}"}], "{{input.n}}": "{{steps.x.result}}"}
    assert [one.text for one in references(params)] == ["input.user", "saga.id", "steps.x.result"], "names stay names"
    assert resolve({"a": [{"b": ["{{input.n}}"]}]}, SCOPE) == {"a": [{"b": [5]}]}


@pytest.mark.parametrize("name", ["none", "never"])
def test_a_step_without_a_result_reads_as_null_and_so_does_everything_below(name: str) -> None:
    assert resolve({"p": f"{{{{steps.{name}.result.a.b}}}}"}, SCOPE) == {"p": None}


@pytest.mark.parametrize(
    "text",
    [
        "{{steps.charge.result.idd}}",
        "{{steps.plain.result.id}}",
        "{{input.nope}}",
        "{{input.deep.list.2}}",
        "{{input.deep.list.-1}}",
        "{{input.deep.list.x}}",
        "{{steps.charge.result.no.more}}",
        "in {{input.deep}}",
    ],
)
def test_what_points_at_nothing_is_an_error(text: str) -> None:
    with pytest.raises(Unresolved):
        resolve({"p": text}, SCOPE)


@pytest.mark.parametrize(
    "text",
    [
        "{{",
        "{{}}",
        "{{ }}",
        "{{inputs.x}}",
        "{{inputx}}",
        "{{steps.a}}",
        "{{steps.a.results.b}}",
        "{{steps.A.result}}",
        "{{input..x}}",
        "{{input.}}",
        "{{input.x y}}",
        "{{saga.name}}",
        "{{input.{{saga.id}}}}",
        "{{" + "x" * 300 + "}}",
        "{{input.x\n}} {{",
    ],
)
def test_what_is_no_reference_is_an_error_as_soon_as_it_is_read(text: str) -> None:
    with pytest.raises(BadReference):
        parse(text)
    with pytest.raises(Unresolved):
        resolve({"p": text}, SCOPE)


texts = st.text(alphabet="{}\\.ab", max_size=12) | st.sampled_from(["{{input.n}}", "{{saga.id}}", r"\{{"])


@given(texts)
def test_what_a_reference_brings_in_is_not_read_again(smuggled: str) -> None:
    scope = Scope("s", {"x": smuggled}, {"a": {"y": smuggled}})
    found = resolve({"one": "{{input.x}}", "in": "<{{steps.a.result.y}}>"}, scope)
    assert found == {"one": smuggled, "in": f"<{smuggled}>"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_params_without_references_stay_as_they_are(params: dict[str, JsonValue]) -> None:
    if "{{" not in str(params):
        assert resolve(params, SCOPE) == params


def test_what_comes_out_is_bounded_as_what_went_in() -> None:
    big = Scope("s", {"x": "x" * 10_000})
    assert len(str(resolve({"p": "{{input.x}}"}, big))) > 10_000
    with pytest.raises(Unresolved, match="32768"):
        resolve({"p": "{{input.x}}" * 4}, big)
    nested: JsonValue = "end"
    for _ in range(10):
        nested = [nested]
    deep = Scope("s", {"x": nested})
    assert resolve({"p": "{{input.x}}"}, deep) == {"p": nested}
    with pytest.raises(Unresolved, match="deep"):
        resolve({"p": [[[[[["{{input.x}}"]]]]]]}, deep)


@pytest.mark.parametrize(
    ("params", "given"),
    [
        ({"p": "{{input.a}}" * 2_900}, {"a": "y" * 32_000}),
        ({"p": ["{{input}}"] * 2_400}, {"a": ["y"] * 8_000}),
        ({"p": {f"k{at}": ["{{input.a}} and more"] * 30 for at in range(40)}}, {"a": "y" * 32_000}),
    ],
)
def test_a_few_bytes_that_name_many_megabytes_are_not_put_together(
    params: dict[str, JsonValue], given: dict[str, JsonValue]
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Unresolved, match="more than 32768 bytes"):
            resolve(params, Scope("order-1", given))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024, "what is too large is refused before it is there"


def test_what_fits_exactly_fits() -> None:
    text = "y" * (32 * 1024 - len('{"p":""}'))
    half = text[: len(text) // 2]
    assert resolve({"p": "{{input.a}}"}, Scope("order-1", {"a": text})) == {"p": text}
    assert resolve({"p": "{{input.a}}{{input.a}}"}, Scope("order-1", {"a": half})) == {"p": half + half}
