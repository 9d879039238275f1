"""Who sees what, on both buses: for every master, at once, and what is not seen might as well not be there."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest

from antiphon import Hit, Node
from antiphon.actors.policy import KEY, PolicyActor
from antiphon.app import MasterRole
from antiphon.bus.assets import identity_of
from antiphon.decide.identities import IdentityRecord, Standing
from antiphon.decide.policy import CLOSED
from antiphon.errors import AntiphonError, CursorExpired, NotAllowed, UnknownNode
from antiphon.messages.base import Kind
from antiphon.messages.policy import ActionRule, Policy, PolicyChanged, SearchRule
from antiphon.messages.search import SearchAnswer
from antiphon.testing import TestFleet, virtual_run
from fabrics import NatsFabric, until
from fleet import Fleet, fleet_on, found

RULES = (
    SearchRule(who=("group:a", "alice"), nodes=("a-*", "docs")),
    SearchRule(who=("kind:analyst",), nodes=("b-shop",)),
    SearchRule(who=("bob",), nodes=("b-*",)),
)
PEOPLE = (
    IdentityRecord(name="ops", kind=Kind.OPERATOR),
    IdentityRecord(name="alice", kind=Kind.PUBLISHER),
    IdentityRecord(name="ann", kind=Kind.PUBLISHER, groups=("a", "staff")),
    IdentityRecord(name="bob", kind=Kind.PUBLISHER),
    IdentityRecord(name="ana", kind=Kind.ANALYST),
    IdentityRecord(name="eve", kind=Kind.PUBLISHER),
)
SEEN = {
    "ops": {"a-blog", "b-blog", "b-shop", "docs"},
    "alice": {"a-blog", "docs"},
    "ann": {"a-blog", "docs"},
    "bob": {"b-blog", "b-shop"},
    "ana": {"b-shop"},
    "eve": set[str](),
    "nobody": set[str](),
}


def know(role: MasterRole, people: Iterable[IdentityRecord] = PEOPLE) -> None:
    """Let a master know identities, as its identity actor does."""
    role.access.replace(role.access.current.with_identities({one.name: one for one in people}))


async def started(fleet: TestFleet, *masters: str) -> list[MasterRole]:
    roles = [await fleet.master(name) for name in masters or ("master",)]
    for role in roles:
        know(role)
    for name in ("a-blog", "b-blog", "b-shop", "docs"):
        await fleet.node(name, found(f"{name} whales"))
    await until_all(roles, lambda role: len(role.view.current.nodes) == 4)
    return roles


async def until_all(roles: Iterable[MasterRole], true: Any) -> None:
    await until(lambda: all(true(role) for role in roles))


def nodes_of(answer: SearchAnswer) -> set[str]:
    """Every name in an answer, wherever it stands."""
    lines = {line.node for line in answer.nodes}
    assert {hit.node for hit in answer.hits} <= lines
    assert {other.node for hit in answer.hits for other in hit.also} <= lines
    assert answer.coverage.expected == len(lines)
    return lines


async def test_everybody_searches_and_lists_what_the_rules_allow_them_and_no_more(fleet: Fleet) -> None:
    await started(fleet)
    everything = SEEN["ops"]
    for name in SEEN:
        client = await fleet.client(name)
        assert nodes_of(await client.search("whales")) == everything, "without a rule everybody may"
    ops = await fleet.client("ops")
    assert (await ops.policy()) == Policy()
    policy = await ops.set_policy(RULES)
    assert (policy.search, policy.changed_by) == (RULES, "ops")
    assert await ops.policy() == policy
    for name, seen in SEEN.items():
        client = await fleet.client(name)
        answer = await client.search("whales")
        assert (nodes_of(answer), answer.complete) == (seen, True), "what is not seen is not missing"
        assert answer.total == len(seen)
        assert answer.coverage.degraded == (() if seen else ("no_nodes",))
        assert {entry.node for entry in await client.nodes()} == seen
        for node in everything:
            if node in seen:
                assert nodes_of(await client.search("whales", nodes=[node])) == {node}
                assert (await client.get(node)).node == node
            else:
                with pytest.raises(UnknownNode):
                    await client.search("whales", nodes=[node])
    await ops.set_policy()
    answer = await (await fleet.client("eve")).search("whales")
    assert nodes_of(answer) == everything


def test_a_forbidden_node_is_refused_with_the_words_and_after_the_time_of_an_unknown_one() -> None:
    async def main() -> None:
        async with TestFleet(heartbeat_ms=1_000) as fleet:
            await started(fleet)
            await (await fleet.client("ops")).set_policy(RULES)
            eve = await fleet.client("eve")

            async def refused(asking: Any) -> tuple[str, str, int]:
                began_ms = fleet.now_ms()
                with pytest.raises(UnknownNode) as error:
                    await asking
                return error.value.code, error.value.text, fleet.now_ms() - began_ms

            for ask in (
                lambda node: eve.search("whales", nodes=[node]),
                lambda node: eve.search("whales", required=[node]),
                eve.get,
            ):
                code, text, took_ms = await refused(ask("b-blog"))
                assert (code, text.replace("b-blog", "a-none"), took_ms) == await refused(ask("a-none"))

    virtual_run(main())


async def test_a_policy_holds_for_every_master_and_for_one_that_starts_late(fleet: Fleet) -> None:
    roles = await started(fleet, "master", "master-two")
    facts = await fleet.heard(PolicyChanged)
    ops = await fleet.client("ops")
    for rules in (RULES, RULES[:1], (), RULES):  # whichever master takes it
        policy = await ops.set_policy(rules)
        await until_all(roles, lambda role, rules=rules: role.access.current.policy.search == rules)
        assert await ops.set_policy(rules) == policy, "the same again is the same as once"
    await until(lambda: len(facts) == 4)
    assert {(fact.by, fact.policy.search) for fact in facts} == {("ops", RULES), ("ops", RULES[:1]), ("ops", ())}
    late = await fleet.master("master-late")
    assert late.access.current.policy.search == RULES, "it has read it before it serves"
    assert late.access.current.policy == roles[0].access.current.policy


async def test_operators_that_set_it_at_once_leave_one_of_the_policies(fleet: Fleet) -> None:
    roles = await started(fleet, "master", "master-two")
    ops = await fleet.client("ops")
    policies = [(SearchRule(who=("alice",), nodes=(f"n{at}",)),) for at in range(12)]
    await asyncio.gather(*(ops.set_policy(rules) for rules in policies))
    last = (await ops.policy()).search
    assert last in policies
    await until_all(roles, lambda role: role.access.current.policy.search == last)


async def test_only_operators_read_and_set_it(fleet: Fleet) -> None:
    await started(fleet)
    for name in ("alice", "ana", "nobody"):
        client = await fleet.client(name)
        with pytest.raises(NotAllowed):
            await client.set_policy()
        with pytest.raises(NotAllowed):
            await client.policy()


async def test_a_page_is_for_whom_the_list_was_made_and_while_he_may_see_all_of_it(fleet: Fleet) -> None:
    [role] = await started(fleet)
    ops, alice, bob = [await fleet.client(name) for name in ("ops", "alice", "bob")]
    await ops.set_policy(RULES)
    first = await alice.search("whales", limit=1, paged=True)
    assert first.next is not None
    with pytest.raises(CursorExpired) as elses:
        await bob.page(first.next)
    with pytest.raises(CursorExpired) as operators:
        await ops.page(first.next)
    with pytest.raises(CursorExpired) as gone:
        await bob.page(first.next.replace(first.next.split(".")[1], "0" * 32))
    assert elses.value.text == operators.value.text == gone.value.text, "nobody learns that there is such a list"
    assert (await alice.page(first.next)).offset == 1

    await ops.set_policy((SearchRule(who=("alice",), nodes=("a-*",)),))
    assert "a-none" not in role.view.current.nodes
    with pytest.raises(CursorExpired):
        await alice.page(first.next)
    await ops.set_policy(RULES)
    assert (await alice.page(first.next)).offset == 1, "it is not lost, it is not shown"


async def test_the_groups_of_a_caller_reach_the_handler(fleet: Fleet) -> None:
    [role] = await started(fleet)
    hits = {"staff": Hit(id="1", title="whales for staff"), None: Hit(id="2", title="whales for all")}
    asked: list[tuple[str | None, tuple[str, ...], str | None]] = []

    async def by_group(query: Any) -> list[Hit]:
        asked.append((query.caller, query.groups, query.delegate))
        return [hit for group, hit in hits.items() if group is None or group in query.groups]

    await fleet.node("handbook", by_group)
    await until(lambda: "handbook" in role.view.current.nodes)
    ann, alice, nobody = [await fleet.client(name) for name in ("ann", "alice", "nobody")]
    assert (await ann.search("whales", nodes=["handbook"])).total == 2
    assert [hit.title for hit in (await alice.search("whales", nodes=["handbook"])).hits] == ["whales for all"]
    assert (await nobody.search("whales", nodes=["handbook"])).total == 1
    assert asked == [("ann", ("a", "staff"), None), ("alice", (), None), ("nobody", (), None)]
    know(role, [IdentityRecord(name="alice", kind=Kind.PUBLISHER, groups=("staff",))])
    assert (await alice.search("whales", nodes=["handbook"])).total == 2, "from the next question on"


async def test_a_suspended_identity_that_is_still_connected_is_refused(fleet: Fleet) -> None:
    [role] = await started(fleet)
    eve = await fleet.client("eve")
    know(role, [IdentityRecord(name="eve", kind=Kind.PUBLISHER, status=Standing.SUSPENDED)])
    for asking in (eve.search("whales"), eve.nodes(), eve.get("docs"), eve.policy()):
        with pytest.raises(NotAllowed, match="suspended"):
            await asking


async def test_a_fallback_node_is_asked_only_for_those_who_may_search_it(fleet: Fleet) -> None:
    spare = Node("spare")
    spare.search(found("spare whales"))
    await fleet.master(fallbacks=[spare])
    ops, alice, eve = [await fleet.client(name) for name in ("ops", "alice", "eve")]
    assert (await eve.search("whales")).nodes[0].node == "spare"
    await ops.set_policy((SearchRule(who=("alice",), nodes=("spare",)),))
    first = await alice.search("whales")
    assert ([line.node for line in first.nodes], first.total) == (["spare"], 1)
    nothing = await eve.search("whales")
    assert (nothing.nodes, nothing.total, nothing.coverage.degraded) == ((), 0, ("no_nodes",))


async def test_an_entry_that_is_no_policy_changes_nothing_and_at_a_start_lets_nobody_in(fleet: Fleet) -> None:
    [role] = await started(fleet)
    ops, alice = await fleet.client("ops"), await fleet.client("alice")
    await ops.set_policy(RULES)
    bucket = await role.bus.transport.key_value(identity_of(fleet.settings.prefix))
    await bucket.put(KEY, b'{"search": 7}')
    late = await fleet.master("master-late")
    know(late)
    assert late.access.current.policy == CLOSED
    assert role.access.current.policy.search == RULES, "the last one that could be read"
    await fleet.stop("master")
    assert nodes_of(await alice.search("whales")) == set()
    assert len(nodes_of(await ops.search("whales"))) == 4
    await ops.set_policy(RULES, [ActionRule(who=("bob",), actions=("*",))])
    assert nodes_of(await alice.search("whales")) == SEEN["alice"], "setting another mends it"


async def test_a_restart_of_its_actor_opens_nothing(fleet: Fleet) -> None:
    [role] = await started(fleet)
    ops, eve = await fleet.client("ops"), await fleet.client("eve")
    await ops.set_policy(RULES)

    async def bug() -> None:
        raise RuntimeError("a bug")

    [actor] = [child for child in role.supervisor.children if isinstance(child, PolicyActor)]
    actor.tell(bug)
    for _ in range(20):
        assert nodes_of(await eve.search("whales")) == set()
    await until(lambda: actor not in role.supervisor.children)
    assert (await ops.policy()).search == RULES
    assert nodes_of(await eve.search("whales")) == set()


async def test_a_server_that_lost_its_data_gets_the_policy_back(nats_fabric: NatsFabric) -> None:
    async with fleet_on(nats_fabric, heartbeat_ms=100) as fleet:
        roles = [await fleet.master("master"), await fleet.master("master-two")]
        ops = await fleet.client("ops")
        await ops.set_policy(RULES)
        await until_all(roles, lambda role: role.access.current.policy.search == RULES)
        await nats_fabric.lose()
        assert nats_fabric.server is not None
        shutil.rmtree(nats_fabric.server.data)
        await nats_fabric.bring_back()
        async with asyncio.timeout(20):
            while True:
                with suppress(AntiphonError):
                    if (await ops.policy()).changed_by == "ops":
                        break
        assert all(role.access.current.policy.search == RULES for role in roles)
        later = await fleet.master("master-later")
        assert later.access.current.policy.search == RULES, "what only the new bucket can tell"
