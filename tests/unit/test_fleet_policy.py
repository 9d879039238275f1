"""The policy in a fleet file: what it mentions becomes so, twice changes nothing more, and each step says whom."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.fleet_file import Change, FleetFile, changes, parse
from antiphon.decide.policy import Access, Principal, may_run, may_search
from antiphon.errors import InvalidSetting
from antiphon.messages.card import NodeCard
from antiphon.messages.policy import ActionRule, Policy, PolicySet, SearchRule

WHOS = st.lists(st.sampled_from(["alice", "group:acme", "*"]), min_size=1, max_size=2)
GLOBS = st.lists(st.sampled_from(["a-*", "docs", "*"]), min_size=1, max_size=2)
SEARCH = st.lists(st.fixed_dictionaries({"who": WHOS, "nodes": GLOBS}), max_size=3)
ACTION = st.lists(st.fixed_dictionaries({"who": WHOS, "actions": GLOBS}, optional={"nodes": GLOBS}), max_size=3)
SECTIONS = st.none() | st.fixed_dictionaries({}, optional={"search": SEARCH, "action": ACTION})
POLICIES = st.builds(lambda search, action: Policy.model_validate({"search": search, "action": action}), SEARCH, ACTION)


def file(section: Any) -> FleetFile:
    return parse({"nodes": {}} if section is None else {"nodes": {}, "policy": section})


def applied(before: Policy, steps: list[Change]) -> Policy:
    """What the masters do with the requests."""
    for step in steps:
        assert isinstance(step.request, PolicySet)
        before = Policy(search=step.request.search, action=step.request.action)
    return before


@given(POLICIES, SECTIONS, st.booleans())
def test_applying_twice_changes_nothing_the_second_time(before: Policy, section: Any, prune: bool) -> None:
    steps = changes(file(section), {}, before, prune=prune)
    assert len(steps) <= 1, "it is one request"
    assert changes(file(section), {}, applied(before, steps), prune=prune) == []


@given(POLICIES, SECTIONS, st.sampled_from(["alice", "bob"]), st.sampled_from(["a-blog", "docs", "shop"]))
def test_what_is_mentioned_holds_and_what_is_not_stays_or_is_pruned(
    before: Policy, section: Any, name: str, node: str
) -> None:
    said = Policy.model_validate(section or {})
    mentioned = section or {}
    who = Principal(name)
    for prune in (False, True):
        after = Access(applied(before, changes(file(section), {}, before, prune=prune)))
        left = Policy() if prune else before
        searching = Access(said if "search" in mentioned else left)
        running = Access(said if "action" in mentioned else left)
        assert may_search(after, who, node) is may_search(searching, who, node)
        assert may_run(after, who, "a-run", node) is may_run(running, who, "a-run", node)


@given(POLICIES, SECTIONS, st.booleans())
def test_the_step_is_one_line_that_names_everybody(before: Policy, section: Any, prune: bool) -> None:
    for step in changes(file(section), {}, before, prune=prune):
        assert (step.verb, step.node) == ("policy", "")
        assert str(step).startswith("policy: ")
        assert "\n" not in str(step)
        gone = "the policy" if not (step.request.search or step.request.action) else None  # type: ignore[union-attr]
        assert step.removed == gone


def test_a_policy_as_people_write_it() -> None:
    fleet = parse(
        tomllib.loads("""
            [nodes.docs]
            [[policy.search]]
            who = ["group:acme", "alice"]
            nodes = ["docs", "acme-*"]
            [[policy.search]]
            who = ["kind:analyst"]
            nodes = ["*"]
            [[policy.action]]
            who = ["group:staff"]
            actions = ["refund"]
            nodes = ["shop"]
        """)
    )
    before = Policy(
        search=(SearchRule(who=("kind:analyst",), nodes=("docs",)), SearchRule(who=("bob",), nodes=("*",))),
        action=(ActionRule(who=("group:staff",), actions=("refund",), nodes=("shop",)),),
    )
    policy, node = changes(fleet, {}, before)
    assert str(policy) == (
        "policy: search [alice, group:acme]: not set -> [acme-*, docs]; search [bob]: [*] -> not set;"
        " search [kind:analyst]: [docs] -> [*]"
    )
    assert node.verb == "register", "the policy comes first"
    policy, node = changes(parse({"nodes": {}}), {"old": NodeCard(node="old")}, before, prune=True)
    assert (policy.removed, node.removed) == ("the policy", "old")
    assert str(policy) == (
        "policy: search [bob]: [*] -> not set; search [kind:analyst]: [docs] -> not set;"
        " action [group:staff]: [refund] on [shop] -> not set"
    )
    assert [step.verb for step in changes(fleet, {})] == ["register"], "unknown, so left alone"


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"serach": []}, "policy.serach"),
        ({"search": [{"who": ["a"], "node": ["*"]}]}, "policy.search.0.node"),
        ({"search": [{"who": ["a.b"], "nodes": ["*"]}]}, "policy.search.0.who.0"),
        ({"search": [{"who": "alice", "nodes": ["*"]}]}, "policy.search.0.who"),
        ({"action": [{"who": ["a"], "nodes": ["*"]}]}, "policy.action.0.actions"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(wrong: Any, where: str) -> None:
    with pytest.raises(InvalidSetting, match=where.replace(".", r"\.")):
        file(wrong)
