"""Contracts are hostile input: none makes a master fetch, hang or crash, and each says which field is wrong."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from antiphon.acting.declared import declare, schema_of
from antiphon.decide.contract import SIZE_MAX, check, size, violation
from antiphon.errors import InvalidReply, InvalidSetting, Malformed, Oversize
from antiphon.messages.actions import ActionContract


class Address(BaseModel):
    title: str = "home"
    street: str = Field(max_length=20)


class Order(BaseModel):
    count: int = Field(ge=1, le=9)
    when: dt.date | None = None
    to: list[Address] = []


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


def contract(params: Any = None, **more: Any) -> ActionContract:
    return ActionContract(name="act", params=params, **more)


def test_params_are_checked_by_the_schema_and_the_field_is_named() -> None:
    one = contract(schema_of(Order, "validation"))
    check(one)
    assert violation(one, {"count": 3, "when": "2026-11-23", "to": [{"street": "x"}]}) is None
    cases: list[tuple[dict[str, Any], str]] = [
        ({"count": 0}, "params.count"),
        ({"count": "3"}, "params.count"),
        ({"count": 1, "to": [{"street": "x"}, {"street": 7}]}, "params.to.1.street"),
        ({}, "count"),
    ]
    for params, field in cases:
        wrong = violation(one, params)
        assert wrong is not None
        assert field in wrong


def test_an_error_never_shows_a_value() -> None:
    wrong = violation(contract(schema_of(Order, "validation")), {"count": "hunter2"})
    assert wrong is not None
    assert "hunter2" not in wrong


def test_what_takes_nothing_takes_nothing() -> None:
    assert violation(contract(), {}) is None
    assert violation(contract(), {"a": 1}) is not None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "$ref": "#"},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}},
        {"type": "object", "properties": {"a": {"$ref": "file:///etc/hostname"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/nothing"}}},
        {"type": "object", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"type": "object", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"items": {"$ref": "#/$defs/a"}}}},
        {"type": "object", "$id": "http://elsewhere/x"},
        {"type": "object", "properties": {"a": {"$dynamicRef": "#x"}}},
        {"type": "object", "properties": {"a": {"pattern": "("}}},
        {"type": "object", "properties": {"a": {"pattern": r"(a)\1"}}},
        {"type": "object", "properties": 3},
        {"type": "array"},
        {"$defs": 3, "type": "object"},
    ],
)
def test_hostile_schemas_are_refused(schema: Any) -> None:
    with pytest.raises(Malformed):
        check(contract(schema))


def test_a_schema_that_doubles_at_each_level_is_refused_before_it_is_compiled() -> None:
    defs: dict[str, Any] = {
        f"d{at}": {"anyOf": [{"$ref": f"#/$defs/d{at + 1}"}, {"$ref": f"#/$defs/d{at + 1}"}]} for at in range(40)
    }
    began = time.perf_counter()
    with pytest.raises(Malformed, match=str(SIZE_MAX)):
        check(contract({"type": "object", "$defs": defs | {"d40": {}}, "properties": {"a": {"$ref": "#/$defs/d0"}}}))
    assert time.perf_counter() - began < 1


def test_a_pattern_that_backtracks_for_ever_elsewhere_is_matched_at_once() -> None:
    one = contract({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    check(one)
    began = time.perf_counter()
    assert violation(one, {"a": "a" * 5_000 + "!"}) is not None
    assert time.perf_counter() - began < 1


json_schemas = st.recursive(
    st.sampled_from([{}, {"type": "string"}, {"$ref": "#/$defs/a"}, True, 3, "x", None]),
    lambda inner: st.dictionaries(
        st.sampled_from(["properties", "items", "anyOf", "$defs", "a", "b", "type", "$ref"]),
        inner | st.lists(inner, max_size=3),
    ),
    max_leaves=12,
)


@given(json_schemas, st.dictionaries(st.sampled_from("ab"), st.integers() | st.text() | st.none()))
def test_whatever_a_contract_says_a_master_refuses_it_or_checks_by_it(schema: Any, params: dict[str, Any]) -> None:
    if not isinstance(schema, dict):
        return
    one = contract({**schema, "type": "object"})
    try:
        check(one)
    except Malformed:
        return
    assert size(one.params or {}) <= SIZE_MAX
    violation(one, params)


@pytest.mark.parametrize(
    "more",
    [
        {"aggregates": {"nothing": "sum"}, "result": schema_of(Order, "serialization")},
        {"aggregates": {"when": "sum"}, "result": {"properties": {"when": {"type": "string"}}}},
        {"compensates": "act"},
        {"effect": "read", "has_dry_run": True},
    ],
)
def test_contracts_that_make_no_sense_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        check(contract(**more))


# -- the author's side


def test_titles_that_pydantic_makes_are_left_out_and_a_field_of_that_name_stays() -> None:
    schema: Any = schema_of(Order, "validation")
    assert "title" not in schema
    assert "title" in schema["$defs"]["Address"]["properties"]
    assert schema["$defs"]["Address"]["properties"]["title"]["default"] == "home"


def test_a_model_that_refers_to_itself_is_cut_there_and_its_model_checks_the_rest() -> None:
    schema = schema_of(Tree, "validation")
    check(contract(schema))
    deep: dict[str, Any] = {"name": "a", "children": [{"name": "b", "children": [{"name": 3}]}]}
    assert violation(contract(schema), deep) is None
    with pytest.raises(Malformed, match="children"):
        declare("act", lambda params: None, params=Tree, result=None).arguments(deep, None)  # type: ignore[arg-type]


def test_a_handler_is_called_with_what_it_takes() -> None:
    def taking(params: Order) -> None: ...
    def wanting(params: Order, context: object) -> None: ...
    def bare() -> None: ...

    assert declare("act", taking, params=Order, result=None).has_context is False
    assert declare("act", wanting, params=Order, result=None).has_context is True
    assert declare("act", bare, params=None, result=None).has_context is False
    assert declare("act", taking, params=None, result=None).has_context is True
    for handler, params in ((bare, Order), (wanting, None)):
        with pytest.raises(InvalidSetting):
            declare("act", handler, params=params, result=None)


def test_a_result_is_what_was_declared_or_an_error() -> None:
    one = declare("act", lambda: None, params=None, result=Order)
    assert one.told({"count": 3}) == {"count": 3, "when": None, "to": []}
    assert one.told(Order(count=3, when=dt.date(2026, 11, 23))) == {"count": 3, "when": "2026-11-23", "to": []}
    with pytest.raises(InvalidReply, match="count"):
        one.told({"count": 99})
    free = declare("act", lambda: None, params=None, result=None)
    assert free.told([1, {"a": None}]) == [1, {"a": None}]
    with pytest.raises(InvalidReply):
        free.told(object())
    with pytest.raises(Oversize):
        free.told("x" * 40_000)


def test_a_contract_that_does_not_fit_is_refused_where_it_is_written() -> None:
    class Wide(BaseModel):
        a: str = Field(description="x" * 9_000)

    with pytest.raises(InvalidSetting, match="bound"):
        declare("act", lambda params: None, params=Wide, result=None)
