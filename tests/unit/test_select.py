"""The laws of the expected set, and of what makes an answer sufficient."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.registry import NodeView, RegistryView
from antiphon.decide.select import Requirement, select
from antiphon.errors import UnknownNode
from antiphon.messages.search import SearchAsk

NAMES = [f"n{at}" for at in range(6)]
SUBSET = st.frozensets(st.sampled_from(NAMES))


def registry(searching: frozenset[str], others: frozenset[str] = frozenset()) -> RegistryView:
    nodes = {
        name: NodeView(name, frozenset({"search"} if name in searching else ()), (), ("a",))
        for name in sorted(searching | others)
    }
    return RegistryView(nodes, tuple(node for node in nodes.values() if "search" in node.capabilities))


def ask(nodes: frozenset[str] = frozenset(), required: frozenset[str] = frozenset()) -> SearchAsk:
    return SearchAsk(query="q", nodes=tuple(nodes), required=tuple(required))


@given(SUBSET, SUBSET)
def test_everybody_who_can_search_is_expected_when_nobody_is_named(
    searching: frozenset[str], others: frozenset[str]
) -> None:
    assert [node.node for node in select(registry(searching, others), ask())] == sorted(searching)


@given(SUBSET, SUBSET, SUBSET)
def test_the_named_and_the_required_are_expected_or_the_unknown_is_named(
    searching: frozenset[str], named: frozenset[str], required: frozenset[str]
) -> None:
    view = registry(searching, frozenset(NAMES) - searching)
    unknown = (named | required) - searching
    if unknown:
        with pytest.raises(UnknownNode, match="|".join(unknown)):
            select(view, ask(named, required))
    else:
        expected = [node.node for node in select(view, ask(named, required))]
        assert expected == sorted((named | required) if named else searching)


@given(SUBSET, SUBSET, SUBSET, SUBSET, st.floats(0, 1))
def test_what_is_sufficient(
    expected: frozenset[str],
    some: frozenset[str],
    required: frozenset[str],
    optional: frozenset[str],
    min_coverage: float,
) -> None:
    answered = some & expected
    required &= expected  # `select` sees to that
    needs = Requirement(required, optional, min_coverage)
    if not required <= answered:
        assert not needs.is_met(answered, expected)
    elif answered == expected:
        assert needs.is_met(answered, expected), "everything is always enough"
    more = answered | (frozenset([min(expected - answered)]) if expected - answered else frozenset())
    if needs.is_met(answered, expected):
        assert needs.is_met(more, expected), "one more answer never makes it worse"
    assert Requirement(required, optional, 0.0).is_met(answered, expected) is (required <= answered)


def test_the_optional_do_not_count() -> None:
    needs = Requirement(optional=frozenset({"n0"}), min_coverage=0.5)
    expected = frozenset({"n0", "n1", "n2"})
    assert needs.is_met(frozenset({"n1"}), expected)
    assert not needs.is_met(frozenset({"n0"}), expected)
