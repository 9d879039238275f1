"""The laws of filters: what is written is what is compared, and whatever is written does nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.filters import Comparison, of, parse
from antiphon.errors import Malformed
from antiphon.messages.registry import NodeEntry, NodeList

PLAIN = st.text("abcxyz019_./:-", min_size=1, max_size=8)
QUOTED = st.text(st.characters(exclude_characters='"', exclude_categories=["Cs"]), max_size=8).map(lambda t: f'"{t}"')
NUMBERS = st.decimals(-(10**9), 10**9, places=3).map(lambda n: f"{n:f}")
JOINS = st.sampled_from([",", " , ", " and ", "\tand "])


def node(name: str = "blog", **more: Any) -> NodeEntry:
    return NodeEntry.model_validate({"node": name, "status": "active", "instances": [], **more})


def is_shown(entry: NodeEntry, **asked: Any) -> bool:
    return of(NodeList.model_validate(asked))(entry)


BLOG = node(
    topics=["python"], capabilities=["search"], weight=70, version="1.2", metadata={"region": "eu", "rank": "7.5"}
)


@pytest.mark.parametrize(
    ("asked", "is_in"),
    [
        ({}, True),
        ({"status": "active"}, True),
        ({"status": "down"}, False),
        ({"capability": "search"}, True),
        ({"capability": "act"}, False),
        ({"topic": "python"}, True),
        ({"topic": "java"}, False),
        ({"name": "b*g"}, True),
        ({"name": "shop-*"}, False),
        ({"name": "BLOG"}, False),
        ({"after": "blof"}, True),
        ({"after": "blog"}, False),
        ({"where": "region=eu"}, True),
        ({"where": "region = us"}, False),
        ({"where": "region=eu, tier!=test and weight>50"}, True),
        ({"where": "region=eu,weight>70"}, False),
        ({"where": "weight>=70,weight<=70.0"}, True),
        ({"where": "rank<8"}, True),
        ({"where": "rank<7"}, False),
        ({"where": "version=1.2"}, True),
        ({"where": "balancer=random"}, False),
        ({"where": "tier>1"}, False),
        ({"where": "tier<1"}, False),
        ({"where": "region<1"}, False),
        ({"where": '"region"="eu"'}, True),
        ({"where": "region=eu", "topic": "java"}, False),
    ],
)
def test_examples(asked: dict[str, Any], is_in: bool) -> None:
    assert is_shown(BLOG, **asked) is is_in


def test_what_a_node_says_of_itself_in_its_metadata_comes_first() -> None:
    assert is_shown(node(weight=1, metadata={"weight": "60"}), where="weight>50")


@pytest.mark.parametrize(
    "where",
    ["", " ", ",", "region", "region=", "=eu", "a=b,", "a=b and", "a=b c=d", "a==b", "a=>1", "a>x", 'a="b', "a>1e9"],
)
def test_what_is_no_expression_is_refused_with_its_place(where: str) -> None:
    with pytest.raises(Malformed, match=r"^where: "):
        of(NodeList(where=where))


@given(st.text(max_size=60))
def test_no_text_does_anything_but_compare(where: str) -> None:
    try:
        comparisons = parse(where)
    except Malformed:
        return
    for comparison in comparisons:
        assert comparison.holds(BLOG) in (True, False)


def text_of(text: str) -> str:
    return text[1:-1] if text.startswith('"') else text


@given(
    st.lists(
        st.one_of(
            st.tuples(PLAIN | QUOTED, st.sampled_from(["=", "!="]), PLAIN | QUOTED, JOINS),
            st.tuples(PLAIN | QUOTED, st.sampled_from(["<", "<=", ">", ">="]), NUMBERS, JOINS),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_what_is_compared(terms: list[tuple[str, str, str, str]]) -> None:
    written = "".join(f"{key} {sign} {value}{join}" for key, sign, value, join in terms)
    written = written.removesuffix(terms[-1][3])
    assert parse(written) == tuple(Comparison(text_of(key), sign, text_of(value)) for key, sign, value, _ in terms)


SIGNS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@given(st.sampled_from(sorted(SIGNS)), st.integers(-999, 999), st.integers(-999, 999))
def test_numbers_compare_as_numbers(sign: str, said: int, value: int) -> None:
    entry = node(metadata={"rank": str(said)})
    assert is_shown(entry, where=f"rank{sign}{value}") is SIGNS[sign](said, value)


@given(st.sampled_from(sorted(SIGNS)), st.integers(-9, 9))
def test_what_is_not_said_is_unequal_and_nothing_else(sign: str, value: int) -> None:
    assert is_shown(node(), where=f"rank{sign}{value}") is (sign == "!=")
