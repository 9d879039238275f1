"""Policy: rules only allow, what is not allowed is not there, and remembering it changes no verdict."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from antiphon.decide.identities import IdentityRecord, Standing
from antiphon.decide.login import DelegatedClaims
from antiphon.decide.policy import CLOSED, EXEMPT, Access, Principal, Sight, may_run, may_search, visible
from antiphon.decide.registry import NodeView, RegistryView
from antiphon.decide.select import select
from antiphon.errors import NotAllowed, UnknownNode
from antiphon.messages.base import Kind
from antiphon.messages.policy import ActionRule, Policy, PolicySet, SearchRule
from antiphon.messages.search import SearchAsk

NODES = [f"{tenant}-{what}" for tenant in "ab" for what in ("blog", "shop")] + ["docs"]
NAMES = ["alice", "bob", "a-web", "b-web"]
GROUPS = ["a", "b", "staff"]
ORDINARY = [kind for kind in Kind if kind not in EXEMPT]

node_globs = st.sampled_from([*NODES, "a-*", "b-*", "*-blog", "*", "?-shop", "d*s", "nothing"])
whos = st.sampled_from(
    [*NAMES, "a-*", "*", "?ob", *(f"group:{group}" for group in GROUPS), *(f"kind:{kind}" for kind in Kind)]
)


def few(of: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(of, min_size=1, max_size=3).map(tuple)


rules = st.lists(st.builds(SearchRule, who=few(whos), nodes=few(node_globs)), max_size=4).map(tuple)
action_rules = st.lists(
    st.builds(ActionRule, who=few(whos), actions=few(st.sampled_from(["ship", "re*", "*"])), nodes=few(node_globs)),
    max_size=3,
).map(tuple)
policies = st.builds(Policy, search=rules, action=action_rules)
groups = st.lists(st.sampled_from(GROUPS), unique=True, max_size=2).map(tuple)
records = st.builds(IdentityRecord, name=st.sampled_from(NAMES), kind=st.sampled_from(ORDINARY), groups=groups)
identities = st.lists(records, unique_by=lambda record: record.name).map(
    lambda found: {record.name: record for record in found}
)
accesses = st.builds(Access, policies, identities, st.booleans())
principals = st.builds(
    Principal,
    st.sampled_from(NAMES),
    st.sampled_from([None, *ORDINARY]),
    groups,
    st.sampled_from([None, "http"]),
)
registries = st.lists(st.tuples(st.sampled_from(NODES), st.booleans()), unique_by=lambda one: one[0]).map(
    lambda nodes: registry(dict(nodes))
)


def registry(can_search: dict[str, bool]) -> RegistryView:
    nodes = {
        name: NodeView(name, frozenset({"search"} if searches else ()), (), ("one",))
        for name, searches in sorted(can_search.items())
    }
    return RegistryView(nodes, tuple(node for node in nodes.values() if "search" in node.capabilities))


def means(whos: Iterable[str], who: Principal) -> bool:
    """What a `who` means, written as plainly as it can be."""
    return any(
        one == f"kind:{who.kind}"
        or one in [f"group:{group}" for group in who.groups]
        or (":" not in one and fnmatchcase(who.name, one))
        for one in whos
    )


def matches(globs: Iterable[str], name: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


@given(accesses, principals, st.sampled_from(NODES))
def test_whoever_a_rule_names_may_and_without_rules_everybody_may(access: Access, who: Principal, node: str) -> None:
    rules = access.policy.search
    allowed = not rules or any(means(rule.who, who) and matches(rule.nodes, node) for rule in rules)
    assert may_search(access, who, node) is allowed


@given(accesses, principals, st.sampled_from(["ship", "refund", "other"]), st.sampled_from(NODES))
def test_actions_are_allowed_by_name_and_by_node(access: Access, who: Principal, action: str, node: str) -> None:
    rules = access.policy.action
    allowed = not rules or any(
        means(rule.who, who) and matches(rule.actions, action) and matches(rule.nodes, node) for rule in rules
    )
    assert may_run(access, who, action, node) is allowed


@given(accesses, principals, registries)
def test_what_is_seen_is_what_may_be_searched_and_it_is_seen_whole(
    access: Access, who: Principal, whole: RegistryView
) -> None:
    shown = visible(access, who, whole)
    assert shown.nodes == {name: node for name, node in whole.nodes.items() if may_search(access, who, name)}
    assert list(shown.nodes) == sorted(shown.nodes)
    assert shown.searchable == tuple(node for node in whole.searchable if node.node in shown.nodes)
    if len(shown.nodes) == len(whole.nodes):
        assert shown is whole, "nothing is copied where nothing is hidden"


@given(accesses, principals, st.sampled_from(NODES), rules.filter(bool))
def test_one_rule_more_takes_nothing_away_but_the_first_of_its_sort(
    access: Access, who: Principal, node: str, more: tuple[SearchRule, ...]
) -> None:
    wider = access.with_policy(Policy(search=(*access.policy.search, *more)))
    if access.policy.search and may_search(access, who, node):
        assert may_search(wider, who, node)
    turned = access.with_policy(Policy(search=tuple(reversed(access.policy.search))))
    assert may_search(turned, who, node) is may_search(access, who, node), "their order means nothing"


@given(accesses, principals, st.sampled_from(sorted(EXEMPT)), st.sampled_from(NODES), registries)
def test_operators_and_masters_are_exempt(
    access: Access, who: Principal, kind: Kind, node: str, whole: RegistryView
) -> None:
    who = who._replace(kind=kind)
    assert may_search(access, who, node)
    assert may_run(access, who, "ship", node)
    assert visible(access, who, whole) is whole
    closed = access.with_policy(CLOSED)
    assert may_search(closed, who, node)


@given(principals, st.sampled_from(NODES))
def test_closed_allows_nobody_anything(who: Principal, node: str) -> None:
    assert not may_search(Access(CLOSED), who, node)
    assert not may_run(Access(CLOSED), who, "ship", node)


@given(
    st.lists(st.tuples(accesses, registries), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, *NAMES]), principals), max_size=30),
    st.integers(1, 3),
    st.integers(1, 12),
)
def test_what_is_remembered_is_what_would_be_worked_out_anew_and_no_more_than_there_is_room_for(
    moments: list[tuple[Access, RegistryView]], asked: list[tuple[int, str | None, Principal]], callers: int, nodes: int
) -> None:
    sight = Sight(callers, nodes)
    for at, name, represented in asked:
        access, whole = moments[at % len(moments)]
        who = represented if name is None else sight.caller(access, name)
        assert name is None or who == access.principal(name)
        assert sight.nodes(access, who, whole) == visible(access, who, whole)
        assert sight.held <= nodes


def test_a_known_caller_is_looked_up_and_not_worked_out() -> None:
    access = Access(Policy(search=(SearchRule(who=("alice",), nodes=("a-*",)),)))
    whole, sight = registry(dict.fromkeys(NODES, True)), Sight()
    who = sight.caller(access, "alice")
    assert sight.caller(access, "alice") is who
    first = sight.nodes(access, who, whole)
    assert sight.nodes(access, who, whole) is first
    assert sight.nodes(access, sight.caller(access, "bob"), whole) is not first
    later = registry(dict.fromkeys(NODES, True))
    assert sight.nodes(access, who, later) is not first, "another view is looked at anew"


@given(accesses, principals, registries, st.sampled_from(NODES), st.booleans())
def test_a_node_that_may_not_be_searched_is_refused_as_one_that_is_not_there(
    access: Access, who: Principal, whole: RegistryView, node: str, is_required: bool
) -> None:
    ask = SearchAsk(query="q", required=(node,)) if is_required else SearchAsk(query="q", nodes=(node,))
    shown = visible(access, who, whole)
    if node in {one.node for one in shown.searchable}:
        assert node in {one.node for one in select(shown, ask)}
        return
    with pytest.raises(UnknownNode) as refused:
        select(shown, ask)
    with pytest.raises(UnknownNode) as unknown:
        select(RegistryView(), ask)
    assert refused.value.text == unknown.value.text


@given(policies, identities, policies)
def test_two_writers_do_not_undo_each_other(one: Policy, known: dict[str, IdentityRecord], other: Policy) -> None:
    assert Access().with_policy(one).with_identities(known) == Access().with_identities(known).with_policy(one)
    assert Access().with_policy(one).with_identities(known).with_policy(other) == Access(other, known, is_open=False)


def test_who_somebody_is() -> None:
    known = {
        "alice": IdentityRecord(name="alice", kind=Kind.PUBLISHER, groups=("a",)),
        "ops": IdentityRecord(name="ops", kind=Kind.OPERATOR),
        "out": IdentityRecord(name="out", kind=Kind.PUBLISHER, status=Standing.SUSPENDED),
    }
    access = Access().with_identities(known)
    assert access.principal("alice") == ("alice", Kind.PUBLISHER, ("a",), None)
    assert access.principal("nobody") == ("nobody", None, (), None)
    assert access.principal("master-2").kind is Kind.MASTER
    with pytest.raises(NotAllowed, match="suspended"):
        access.principal("out")

    def claims(principal: str) -> DelegatedClaims:
        return DelegatedClaims(principal, Kind.PUBLISHER, ("staff",), "http", "jti", 0, 1)

    assert access.represented(claims("alice")) == ("alice", Kind.PUBLISHER, ("a",), "http"), "what is known now wins"
    assert access.represented(claims("new")) == ("new", Kind.PUBLISHER, ("staff",), "http")
    with pytest.raises(NotAllowed):
        access.represented(claims("out"))
    access.check_operator("ops")
    Access().check_operator("alice")
    for name in ("alice", "nobody", "out"):
        with pytest.raises(NotAllowed):
            access.check_operator(name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"search": [{"who": ["alice"], "nodes": []}]},
        {"search": [{"who": [], "nodes": ["*"]}]},
        {"search": [{"who": ["alice"]}]},
        {"search": [{"who": ["group:"], "nodes": ["*"]}]},
        {"search": [{"who": ["group:a*"], "nodes": ["*"]}]},
        {"search": [{"who": ["kind:king"], "nodes": ["*"]}]},
        {"search": [{"who": ["a.b"], "nodes": ["*"]}]},
        {"search": [{"who": ["*"], "nodes": [">"]}]},
        {"search": [{"who": ["*"], "nodes": ["[a-z]"]}]},
        {"search": [{"who": ["*"], "nodes": ["a\n"]}]},
        {"search": [{"who": ["*"], "nodes": ["x" * 64]}]},
        {"search": [{"who": ["*"] * 65, "nodes": ["*"]}]},
        {"search": [{"who": ["*"], "nodes": ["*"]}] * 257},
        {"action": [{"who": ["*"], "nodes": ["*"]}]},
    ],
)
def test_what_is_no_policy(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicySet.model_validate(wrong)
