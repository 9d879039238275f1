"""Whom a job is for: exactly those who were meant and are allowed, drawn alike by the same seed, refused as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.offers import listing
from antiphon.decide.policy import Access, Principal
from antiphon.decide.registry import Instance, NodeView, Offer, view, written
from antiphon.decide.targets import Asker, amount, choose, is_wished, subset
from antiphon.errors import Malformed, NotAllowed, Oversize, Unconfirmed, UnknownAction, UnknownNode
from antiphon.messages.actions import ActionContract, ActionList, ActionRun, Effect
from antiphon.messages.policy import ActionRule, Policy
from antiphon.messages.registry import NodeRecord, Status

NEEDS = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def node(name: str, *contracts: ActionContract, **more: Any) -> NodeView:
    actions = {one.name: Offer(one, ("i1",)) for one in contracts}
    return NodeView(name, frozenset(), (), ("i1",), actions=actions, **more)


def sync(**more: Any) -> ActionContract:
    return ActionContract(name="sync", **more)


def named(*nodes: NodeView) -> dict[str, NodeView]:
    return {one.node: one for one in nodes}


def asker(nodes: dict[str, NodeView], *rules: ActionRule, seen: set[str] | None = None) -> Asker:
    shown = nodes if seen is None else {name: one for name, one in nodes.items() if name in seen}
    return Asker(Principal("web"), Access(Policy(action=rules)), shown)


def chosen(nodes: dict[str, NodeView], who: Asker | None = None, /, **ask: Any) -> list[str]:
    targets = choose(ActionRun(action="sync", **ask), nodes, who or asker(nodes), 1)
    return [one.node for one in targets.nodes]


FLEET = named(
    node("blog", sync()),
    node("crm", sync(), metadata={"region": "us"}),
    node("other"),
    node("shop", sync(), metadata={"region": "eu"}),
)


def test_named_filtered_or_everywhere() -> None:
    assert chosen(FLEET, everywhere=True) == ["blog", "crm", "shop"]
    assert chosen(FLEET, nodes=("shop", "blog", "shop")) == ["shop", "blog"]
    assert chosen(FLEET, where="region=eu") == ["shop"]
    assert chosen(FLEET, name="s*") == ["shop"]
    assert chosen(FLEET, nodes=("shop", "blog"), where="region=eu") == ["shop"]
    with pytest.raises(Malformed, match="say where"):
        chosen(FLEET)


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        ({"nodes": ("nobody",)}, UnknownNode),
        ({"nodes": ("other",)}, UnknownAction),
        ({"where": "region=mars"}, UnknownAction),
        ({"where": "region"}, Malformed),
        ({"everywhere": True, "plan": {"limit": "101%"}}, Malformed),
        ({"everywhere": True, "params": {"n": 1}}, Malformed),
        ({"everywhere": True, "dry_run": True}, Malformed),
    ],
)
def test_what_makes_no_sense_is_refused(ask: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        chosen(FLEET, **ask)


def test_what_one_of_them_would_not_take_nobody_is_asked() -> None:
    nodes = named(node("a", sync()), node("b", sync(params=NEEDS)))
    with pytest.raises(Malformed, match="sync on b"):
        chosen(nodes, everywhere=True)
    with pytest.raises(Malformed, match="sync on a"):
        chosen(nodes, everywhere=True, params={"n": 1})


def test_who_may_run_it_on_some_is_told_of_the_others_that_he_sees() -> None:
    rule = ActionRule(who=("web",), actions=("sync",), nodes=("shop",))
    who = asker(FLEET, rule)
    targets = choose(ActionRun(action="sync", everywhere=True), FLEET, who, 1)
    assert ([one.node for one in targets.nodes], targets.not_allowed) == (["shop"], ("blog", "crm"))
    with pytest.raises(NotAllowed):
        chosen(FLEET, who, nodes=("shop", "blog"))
    with pytest.raises(NotAllowed):
        chosen(FLEET, who, where="region=us")


def test_what_he_does_not_see_is_not_there_unless_he_may_run_it() -> None:
    rule = ActionRule(who=("web",), actions=("sync",), nodes=("shop",))
    who = asker(FLEET, rule, seen={"blog"})
    targets = choose(ActionRun(action="sync", everywhere=True), FLEET, who, 1)
    assert ([one.node for one in targets.nodes], targets.not_allowed) == (["shop"], ("blog",))
    with pytest.raises(UnknownNode):
        chosen(FLEET, who, nodes=("crm",))
    with pytest.raises(UnknownAction):
        chosen(FLEET, asker(FLEET, rule, seen=set()), where="region=us")


def test_what_is_destructive_anywhere_is_confirmed_or_tried() -> None:
    nodes = named(node("a", sync(has_dry_run=True)), node("b", sync(effect="destructive", has_dry_run=True)))
    with pytest.raises(Unconfirmed, match="2 nodes: a, b"):
        chosen(nodes, everywhere=True)
    assert chosen(nodes, everywhere=True, confirmed=True) == ["a", "b"]
    assert chosen(nodes, everywhere=True, dry_run=True) == ["a", "b"]
    assert choose(ActionRun(action="sync", everywhere=True, confirmed=True), nodes, asker(nodes), 1).effect is (
        Effect.DESTRUCTIVE
    )


def test_a_job_has_a_bound() -> None:
    many = named(*(node(f"n{at}", sync()) for at in range(1_001)))
    with pytest.raises(Oversize):
        chosen(many, everywhere=True)
    assert len(chosen(many, everywhere=True, plan={"limit": "10%"})) == 101


@given(st.integers(1, 60), st.integers(0, 2**53 - 1), st.integers(1, 100), st.integers(1, 100))
def test_the_same_seed_draws_the_same_and_more_of_them_has_all_that_fewer_have(
    count: int, seed: int, few: int, more: int
) -> None:
    nodes = [node(f"n{at}") for at in range(count)]
    few, more = min(few, more), max(few, more)
    small, large = subset(nodes, f"{few}%", seed), subset(nodes, f"{more}%", seed)
    assert small == subset(nodes, f"{few}%", seed)
    assert len(small) == amount(f"{few}%", count, "limit") >= 1
    assert {one.node for one in small} <= {one.node for one in large}
    assert large == [one for one in nodes if one in large], "in their order"
    assert len(subset(nodes, str(few), seed)) == min(few, count)


def test_a_node_that_goes_changes_one_place() -> None:
    nodes = [node(f"n{at}") for at in range(40)]
    before = {one.node for one in subset(nodes, "10", 7)}
    after = {one.node for one in subset([one for one in nodes if one.node != min(before)], "10", 7)}
    assert len(before - after) == 1


def test_who_operators_hold_back_is_told_from_who_is_down() -> None:
    assert is_wished(node("a", status=Status.SUSPENDED))
    assert not is_wished(node("a", status=Status.DOWN))


# -- what the registry says of actions


def test_the_newest_instance_speaks_for_the_node_and_only_its_likes_are_asked() -> None:
    old, new = sync(description="old"), sync(description="new")
    state: dict[tuple[str, str], Instance] = {}
    for instance, contract, joined in [("i1", old, 1), ("i2", new, 3), ("i3", new, 2)]:
        record = NodeRecord(node="shop", instance=instance, joined_at_ms=joined, actions=(contract,))
        state, _ = written(state, record, 0)
    offer = view(state, {}).nodes["shop"].actions["sync"]
    assert (offer.contract.description, offer.instances) == ("new", ("i2", "i3"))


def test_a_listing_has_an_entry_for_each_contract_and_only_what_may_be_run() -> None:
    nodes = named(node("a", sync()), node("b", sync()), node("c", sync(idempotent=True)), node("d", sync()))
    rule = ActionRule(who=("web",), actions=("*",), nodes=("a", "b", "c"))
    found = listing(ActionList(), nodes, asker(nodes, rule), "master")
    assert [(one.contract.idempotent, one.nodes) for one in found.actions] == [(False, ("a", "b")), (True, ("c",))]
    assert listing(ActionList(action="nothing"), nodes, asker(nodes), "master").actions == ()
    assert [one.nodes for one in listing(ActionList(node="d"), nodes, asker(nodes), "master").actions] == [("d",)]


def test_more_than_a_message_holds_comes_in_pages() -> None:
    big = {"type": "object", "description": "x" * 7_000}
    nodes = named(
        *(node(f"n{at}", *(ActionContract(name=f"a{at:02}{n}", params=big) for n in range(4))) for at in range(60))
    )
    seen: list[str] = []
    after = None
    while True:
        page = listing(ActionList(after=after), nodes, asker(nodes), "master")
        assert len(page.model_dump_json()) < page.size_max
        seen += [one.contract.name for one in page.actions]
        after = page.next
        if after is None:
            break
    assert seen == sorted({f"a{at:02}{n}" for at in range(60) for n in range(4)})
