"""The laws of a fleet file: applied twice is applied once, unknown keys are refused, nothing unmentioned is touched."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide import cards
from antiphon.decide.fleet_file import Change, FleetFile, changes, parse
from antiphon.errors import InvalidSetting
from antiphon.messages.card import FIELDS, NodeCard, Wish
from antiphon.messages.operators import NodeRegister, NodeRemove, NodeUpdate

NAMES = st.sampled_from(["blog", "shop", "crm"])
LABELS = st.sampled_from(["eu", "us", "python", ""])
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "description": st.text("ab\n", max_size=3),
        "topics": st.lists(LABELS, max_size=2),
        "collections": st.lists(LABELS, max_size=2),
        "capabilities": st.lists(st.just("search"), max_size=1),
        "weight": st.integers(0, 3),
        "instances_min": st.integers(0, 2),
        "balancer": st.sampled_from(["random", "round_robin"]),
        "status": st.sampled_from(["active", "draining", "suspended"]),
        "metadata": st.dictionaries(st.sampled_from(["region", "tier"]), LABELS, max_size=2),
        "max_parallel_requests": st.integers(1, 3),
        "rate_per_minute": st.integers(1, 3),
        "documents": st.integers(0, 3),
    },
)
FLEETS = st.dictionaries(NAMES, SPECS, max_size=3).map(lambda nodes: parse({"nodes": nodes}))
Cards = dict[str, NodeCard]


def applied(before: Cards, steps: list[Change]) -> Cards:
    """What the registry does with the requests."""
    after = dict(before)
    for step in steps:
        match step.request:
            case NodeRegister():
                after[step.node] = cards.registered(after.get(step.node), step.request, "op", 1)
            case NodeUpdate():
                after[step.node] = cards.updated(after.get(step.node), step.request, "op", 1)
            case NodeRemove():
                del after[step.node]
    return after


@given(FLEETS, FLEETS, st.booleans())
def test_applying_twice_changes_nothing_the_second_time(first: FleetFile, second: FleetFile, prune: bool) -> None:
    registered = applied({}, changes(first, {}))
    assert changes(first, registered, prune=True) == []
    after = applied(registered, changes(second, registered, prune=prune))
    assert changes(second, after, prune=prune) == []


@given(FLEETS, FLEETS)
def test_without_prune_what_is_not_mentioned_stays(first: FleetFile, second: FleetFile) -> None:
    before = applied({}, changes(first, {}))
    after = applied(before, changes(second, before))
    for node, card in before.items():
        spec = second.nodes.get(node)
        if spec is None:
            assert after[node] is card
            continue
        for name in {*FIELDS, "status"} - {"metadata"}:
            said = getattr(spec, name)
            assert getattr(after[node], name) == (getattr(card, name) if said is None else said)
        assert (after[node].metadata or {}) == (card.metadata or {}) | (spec.metadata or {})


@given(FLEETS, FLEETS)
def test_with_prune_the_file_is_the_whole_truth(first: FleetFile, second: FleetFile) -> None:
    before = applied({}, changes(first, {}))
    after = applied(before, changes(second, before, prune=True))
    fresh = applied({}, changes(second, {}))
    assert after.keys() == fresh.keys()
    for node, card in after.items():
        for name in set(FIELDS) - {"metadata"}:
            assert getattr(card, name) == getattr(fresh[node], name)
        assert (card.metadata or {}) == (fresh[node].metadata or {})
        if second.nodes[node].status is None and node in before:
            assert card.status is before[node].status, "what was suspended by hand is not woken"


@given(FLEETS, FLEETS, st.booleans())
def test_each_step_is_one_line(first: FleetFile, second: FleetFile, prune: bool) -> None:
    registered = applied({}, changes(first, {}))
    for step in changes(second, registered, prune=prune):
        assert "\n" not in str(step)
        assert str(step).startswith(f"{step.verb} {step.node}")
        assert prune or step.verb != "remove"
        assert step.verb != "update" or step.details


def test_a_file_as_people_write_it() -> None:
    fleet = parse(
        tomllib.loads("""
            [nodes.blog]
            topics = ["python", "news"]
            weight = 50
            metadata = { region = "eu" }
            [nodes.shop]
            status = "suspended"
        """)
    )
    registered: dict[str, Any] = {
        "blog": NodeCard(node="blog", weight=100, metadata={"region": "us", "tier": "test"}),
        "old": NodeCard(node="old"),
    }
    details = "topics: not set -> [python, news], weight: 100 -> 50, metadata.region: us -> eu"
    assert [str(step) for step in changes(fleet, registered, prune=True)] == [
        f"update blog: {details}, metadata.tier: test -> not set",
        "register shop: status = suspended",
        "remove old",
    ]
    assert [step.verb for step in changes(fleet, registered)] == ["update", "register"]


def test_a_node_that_was_only_suspended_is_registered_and_stays_suspended() -> None:
    card = cards.updated(None, NodeUpdate(node="blog", status=Wish.SUSPENDED, weight=5), "op", 1)
    fleet = parse({"nodes": {"blog": {"weight": 50}}})
    steps = changes(fleet, {"blog": card})
    assert [str(step) for step in steps] == ["register blog: weight: 5 -> 50"]
    after = applied({"blog": card}, steps)["blog"]
    assert (after.is_registered, after.status, after.weight) == (True, Wish.SUSPENDED, 50)
    assert changes(fleet, {"blog": after}) == []
    assert [str(step) for step in changes(parse({"nodes": {"blog": {"weight": 5}}}), {"blog": card})] == [
        "register blog"
    ]


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({}, "fleet.toml: nodes: "),
        ({"nodes": {}, "node": {}}, "fleet.toml: node: "),
        ({"nodes": {"blog": {"wieght": 1}}}, "fleet.toml: nodes.blog.wieght: "),
        ({"nodes": {"blog": {"weight": -1}}}, "fleet.toml: nodes.blog.weight: "),
        ({"nodes": {"blog": {"status": "down"}}}, "fleet.toml: nodes.blog.status: "),
        ({"nodes": {"blog": {"metadata": {"x": 5}}}}, "fleet.toml: nodes.blog.metadata.x: "),
        ({"nodes": {"*": {}}}, "fleet.toml: nodes.*"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(content: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse(content)
    assert caught.value.text.startswith(path)


def test_everything_that_is_wrong_is_named_up_to_a_bound() -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse({"nodes": {"blog": {f"x{at}": 1 for at in range(15)}}})
    assert caught.value.text.count("\n") == 10
    assert caught.value.text.endswith("and 5 more")
