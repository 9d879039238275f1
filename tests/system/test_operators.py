"""Operators' words about nodes, on both buses: every master shows the same, whoever was told, whenever it started."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon import Client
from antiphon.actors.registry import Registry
from antiphon.app import MasterRole
from antiphon.bus.assets import registry_of
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Entry, KeyValue
from antiphon.errors import AlreadyRegistered, Malformed, UnknownNode, UnknownVersion
from antiphon.messages.card import NodeCard
from antiphon.messages.facts import InstanceChanged, NodeChanged
from antiphon.messages.registry import NodeLeave, NodeList, NodeRecord, Status
from antiphon.messages.search import Outcome
from antiphon.responder import NodeBounds
from fabrics import until
from fleet import Fleet, found


def line_of(answer: Any, node: str) -> tuple[Any, Any]:
    return next((line.outcome, line.code) for line in answer.nodes if line.node == node)


async def shown(*roles: MasterRole, node: str, **fields: Any) -> None:
    """Wait until every master shows a node so."""

    def is_shown(role: MasterRole) -> bool:
        view = role.view.current.nodes.get(node)
        return view is not None and all(getattr(view, name) == value for name, value in fields.items())

    await until(lambda: all(map(is_shown, roles)))


async def started(fleet: Fleet, *names: str) -> tuple[list[MasterRole], Client]:
    roles = [await fleet.master(name) for name in names or ("master",)]
    return roles, await fleet.client("ops")


async def test_a_registered_node_is_expected_before_it_joins_and_after_it_left(fleet: Fleet) -> None:
    [role], client = await started(fleet)
    entry = await client.register("blog", description="ours", topics=["news"], metadata={"tier": "gold"})
    assert (entry.status, entry.instances, entry.topics) == (Status.DOWN, (), ("news",))
    assert entry.card is not None
    assert entry.card.changed_by == "ops"
    answer = await client.search("whales")
    assert (answer.coverage.expected, line_of(answer, "blog")) == (1, (Outcome.SKIPPED, "down"))

    node = await fleet.node("blog", found("a"), description="its own", version="7", metadata={"zone": "eu"})
    entry = await client.get("blog")
    assert (entry.status, entry.description, entry.version) == (Status.ACTIVE, "ours", "7")
    assert entry.metadata == {"zone": "eu", "tier": "gold"}
    assert (await client.search("whales")).complete

    await node.stop()
    fleet.nodes.remove(node)
    await shown(role, node="blog", instances=())
    answer = await client.search("whales")
    assert (answer.complete, line_of(answer, "blog")) == (False, (Outcome.SKIPPED, "down"))


async def test_every_word_reaches_every_master_and_one_that_starts_late(fleet: Fleet) -> None:
    roles, client = await started(fleet, "master", "master-two")
    await fleet.node("blog", found("a"))
    await client.register("shop", capabilities=["act"])
    for number in range(6):  # whichever master takes it
        await client.update("blog", weight=number, balancer="round_robin")
        await shown(*roles, node="blog", weights={"one": number}, balancer="round_robin")
    late = await fleet.master("master-late")
    assert late.view.current == roles[0].view.current, "it has the whole picture before it serves"
    assert set(late.view.current.nodes) == {"blog", "shop"}


async def test_masters_that_change_one_card_at_once_lose_no_field(fleet: Fleet) -> None:
    roles, client = await started(fleet, "master", "master-two")
    facts = await fleet.heard(NodeChanged)
    await client.register("blog", description="first")
    changes: list[Any] = [client.update("blog", metadata={f"key-{at}": str(at)}) for at in range(20)]
    changes += [client.update("blog", weight=3), client.update("blog", topics=["t"]), client.suspend("blog")]
    await asyncio.gather(*changes)
    wanted = {f"key-{at}": str(at) for at in range(20)}
    await shown(*roles, node="blog", metadata=wanted, topics=("t",), status=Status.SUSPENDED)
    entry = await client.get("blog")
    assert (entry.metadata, entry.weight, entry.description) == (wanted, 3, "first")
    await until(lambda: len(facts) == 24)
    assert {fact.by for fact in facts} == {"ops"}
    assert [fact.change for fact in facts].count("updated") == 22
    assert [fact.fields for fact in facts if fact.change == "suspended"] == [("status",)]


async def test_suspended_and_draining_nodes_are_skipped_until_they_are_resumed(fleet: Fleet) -> None:
    roles, client = await started(fleet, "master", "master-two")
    await fleet.node("blog", found("a"))
    await fleet.node("shop", found("b"))
    for word, status in ((client.suspend, Status.SUSPENDED), (client.drain, Status.DRAINING)):
        assert (await word("blog")).status is status
        await shown(*roles, node="blog", status=status)
        answer = await client.search("whales")
        assert (answer.coverage.skipped_open, line_of(answer, "blog")) == (1, (Outcome.SKIPPED, status.value))
        assert {hit.node for hit in answer.hits} == {"shop"}
        named = await client.search("whales", nodes=["blog"])
        assert line_of(named, "blog") == (Outcome.SKIPPED, status.value), "naming it does not ask it"
        assert (await client.resume("blog")).status is Status.ACTIVE
        await shown(*roles, node="blog", status=Status.ACTIVE)
        assert (await client.search("whales")).complete


async def test_a_node_that_nobody_registered_is_on_its_own_again_when_it_is_resumed(fleet: Fleet) -> None:
    roles, client = await started(fleet, "master", "master-two")
    facts = await fleet.heard(NodeChanged)
    node = await fleet.node("blog", found("a"))
    assert (await client.resume("blog")).card is None, "nothing was said of it, so nothing is kept"
    suspended = await client.suspend("blog")
    assert suspended.card is not None
    assert not suspended.card.is_registered
    await shown(*roles, node="blog", status=Status.SUSPENDED)
    resumed = await client.resume("blog")
    assert (resumed.status, resumed.card) == (Status.ACTIVE, None)
    await shown(*roles, node="blog", status=Status.ACTIVE)
    await until(lambda: [fact.change for fact in facts] == ["suspended", "resumed"])
    await client.update("blog", weight=3)
    assert (await client.update("blog", unset=["weight"])).card is None
    await client.suspend("blog")
    await node.stop()
    fleet.nodes.remove(node)
    await shown(*roles, node="blog", instances=())
    resumed = await client.resume("blog")
    assert (resumed.status, resumed.card) == (Status.DOWN, None)
    await until(lambda: not any(role.view.current.nodes for role in roles))
    assert (await client.search("whales")).coverage.expected == 0


async def test_a_registered_node_stays_expected_when_it_is_resumed(fleet: Fleet) -> None:
    roles, client = await started(fleet, "master", "master-two")
    await client.register("blog")
    await client.suspend("blog")
    resumed = await client.resume("blog")
    assert resumed.card is not None
    await shown(*roles, node="blog", status=Status.DOWN)
    await fleet.node("shop", found("a"))
    await client.suspend("shop")
    assert (await client.register("shop")).card is not None
    assert (await client.resume("shop")).card is not None, "it was registered meanwhile"


async def test_what_a_draining_node_has_begun_ends(fleet: Fleet) -> None:
    _, client = await started(fleet)
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(query: Any) -> list[dict[str, str]]:
        asked.set()
        await may_answer.wait()
        return [{"id": "1", "title": query.text}]

    await fleet.node("blog", slow)
    searching = asyncio.ensure_future(client.search("whales"))
    await asked.wait()
    await client.drain("blog")
    may_answer.set()
    assert (await searching).complete


async def test_removing_forgets_the_card_and_leaves_what_lives(fleet: Fleet) -> None:
    roles, client = await started(fleet, "master", "master-two")
    nodes = await fleet.heard(NodeChanged)
    await fleet.node("blog", found("a"), description="its own")
    await client.update("blog", description="ours", status="suspended")
    await client.register("shop")
    removed = await client.remove("blog")
    assert (removed.was_registered, removed.forgotten, removed.left) == (True, 0, 1)
    await shown(*roles, node="blog", status=Status.ACTIVE)
    assert (await client.get("blog")).description == "its own"
    assert (await client.remove("blog")).was_registered is False
    assert (await client.remove("shop")).left == 0
    await until(lambda: not any("shop" in role.view.current.nodes for role in roles))
    for word in (client.get, client.remove, client.suspend):
        with pytest.raises(UnknownNode):
            await word("shop")
    await until(lambda: [fact.node for fact in nodes if fact.change == "removed"] == ["blog", "shop"])


async def test_removing_forgets_the_instances_that_are_down(fleet: Fleet) -> None:
    fleet.settings = fleet.settings.model_copy(update={"heartbeat_ms": 30, "misses_max": 2})
    roles, client = await started(fleet, "master", "master-two")
    facts = await fleet.heard(InstanceChanged)
    node = await fleet.node("blog", found("a"))
    assert node._responder is not None
    node._responder.is_stopping = True  # as if it were frozen: it beats no more and does not leave
    await until(lambda: all(role.view.current.nodes["blog"].status is Status.DOWN for role in roles))
    assert (await client.remove("blog")).forgotten == 1
    await until(lambda: not any("blog" in role.view.current.nodes for role in roles))
    await until(lambda: [fact.change for fact in facts].count("left") == 1)


async def test_an_instance_leaves_through_a_master_that_has_not_heard_of_it_yet(fleet: Fleet) -> None:
    [role], _ = await started(fleet)
    facts = await fleet.heard(InstanceChanged)
    [registry] = [child for child in role.supervisor.children if isinstance(child, Registry)]
    assert registry._watch is not None
    await registry._watch.stop()  # the watch of this master lags
    bucket = await role.bus.transport.key_value(registry_of(fleet.settings.prefix))
    await bucket.put("blog.one", encode(NodeRecord(node="blog", instance="one")))
    node = await fleet.bus("blog")
    await node.ask(NodeLeave(instance="one"), instance="one")
    assert await bucket.get("blog.one") is None
    await node.ask(NodeLeave(instance="one"), instance="one")
    await node.ask(NodeLeave(instance="never-was"), instance="never-was")
    assert facts == []


class Raced:
    """A bucket in which another master writes a card just after it was read, once."""

    def __init__(self, bucket: KeyValue, card: NodeCard) -> None:
        self.bucket = bucket
        self.card: NodeCard | None = card

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bucket, name)

    async def get(self, key: str) -> Entry | None:
        found = await self.bucket.get(key)
        card, self.card = self.card, None
        if card is not None:
            await self.bucket.put(key, encode(card))
        return found


async def test_what_is_removed_is_what_was_there(fleet: Fleet) -> None:
    [role], client = await started(fleet)
    facts = await fleet.heard(NodeChanged)
    await client.register("blog", weight=3)
    [registry] = [child for child in role.supervisor.children if isinstance(child, Registry)]
    registry._bucket = Raced(registry._kv, NodeCard(node="blog", topics=("news",), weight=4))
    assert (await client.remove("blog")).was_registered
    assert await registry._kv.get("blog") is None
    await until(lambda: len(facts) == 2)
    assert facts[1].fields == ("topics", "weight"), "the other master's word is not lost without a trace"


async def test_registering_twice(fleet: Fleet) -> None:
    _, client = await started(fleet)
    first = await client.register("blog", topics=["a"], weight=3)
    again = await client.register("blog", topics=["a"], weight=3)
    assert again.card == first.card
    with pytest.raises(AlreadyRegistered, match="topics, weight"):
        await client.register("blog", topics=["b"])
    await client.suspend("blog")
    replaced = await client.register("blog", topics=["b"], replace=True)
    assert (replaced.topics, replaced.weight) == (("b",), 100)
    assert replaced.status is Status.SUSPENDED, "whether it is asked is said apart"
    back = await client.update("blog", unset=["topics"])
    assert back.topics == ()
    with pytest.raises(Malformed, match="weight"):
        await client.update("blog", weight=-1)
    with pytest.raises(Malformed, match="unset"):
        await client.update("blog", unset=["nothing"])


async def test_how_many_documents_a_node_has_is_told_anew_at_each_join(fleet: Fleet) -> None:
    fleet.settings = fleet.settings.model_copy(update={"heartbeat_ms": 30})
    [role], client = await started(fleet)
    size: list[Any] = [7]

    def documents() -> Any:
        if size[0] is None:
            raise OSError("not now")
        return size[0]

    await fleet.node("blog", found("a"), documents=documents, bounds=NodeBounds(rejoin_ms=60))
    await fleet.node("shop", found("b"), documents=12)
    assert ((await client.get("blog")).documents, (await client.get("shop")).documents) == (7, 12)
    size[0] = 9
    await shown(role, node="blog", docs_told=9)
    for wrong in (None, -1, "many"):
        size[0] = wrong
        await shown(role, node="blog", docs_told=None)
        size[0] = 9
        await shown(role, node="blog", docs_told=9)
    assert (await client.update("blog", documents=5)).documents == 5
    await shown(role, node="blog", docs_told=9, docs_max=5)


async def test_the_list_is_filtered(fleet: Fleet) -> None:
    _, client = await started(fleet)
    await fleet.node("blog", found("a"), metadata={"region": "eu"}, topics=["news"])
    await client.register("shop-eu", metadata={"region": "eu"}, status="suspended")
    await client.register("shop-us", metadata={"region": "us"}, capabilities=["act"])

    async def names(**asked: Any) -> list[str]:
        return [node.node for node in await client.nodes(**asked)]

    assert await names() == ["blog", "shop-eu", "shop-us"]
    assert await names(status="suspended") == ["shop-eu"]
    assert await names(status="down") == ["shop-us"]
    assert await names(capability="search") == ["blog", "shop-eu"]
    assert await names(topic="news") == ["blog"]
    assert await names(name="shop-*") == ["shop-eu", "shop-us"]
    assert await names(where="region=eu") == ["blog", "shop-eu"]
    assert await names(where="region=eu", name="shop-*", status="active") == []
    with pytest.raises(Malformed, match="where"):
        await names(where="region ~ eu")


async def test_a_long_list_comes_in_parts(fleet: Fleet) -> None:
    _, client = await started(fleet)
    text = "x" * 2_000
    many = [f"node-{at:03}" for at in range(250)]
    for start in range(0, len(many), 50):
        words = (client.register(name, description=text) for name in many[start : start + 50])
        await asyncio.gather(*words)
    part = await client.bus.ask(NodeList())
    assert part.next == part.nodes[-1].node
    assert [node.node for node in await client.nodes()] == many


async def test_a_card_that_cannot_be_read_is_told_and_can_be_removed(fleet: Fleet) -> None:
    [role], client = await started(fleet)
    bucket = await role.bus.transport.key_value(registry_of(fleet.settings.prefix))
    await bucket.put("blog", b'{"node": "blog", "weight": "heavy"}')
    await bucket.put("shop", encode(NodeCard(node="shop")))
    await shown(role, node="shop")
    assert "blog" not in role.view.current.nodes
    with pytest.raises(UnknownVersion, match="weight"):
        await client.register("blog")
    assert (await client.remove("blog")).was_registered
    assert (await client.register("blog")).node == "blog"


async def test_a_ping_says_who_answers_and_who_does_not(fleet: Fleet) -> None:
    _, client = await started(fleet)
    await fleet.node("blog", found("a"), version="3")
    silent = await fleet.node("blog", found("a"), instance="two")
    await client.register("shop")
    await client.suspend("blog")
    assert silent._responder is not None
    for subscription in silent._responder._subscriptions:
        await subscription.drain()
    answer = await client.ping(wait_ms=200)
    one, two, shop = answer.lines
    assert (one.node, one.instance, one.code, one.version) == ("blog", "one", None, "3")
    assert one.rtt_us is not None
    assert one.load is not None
    assert one.load.in_flight == 0
    assert (two.instance, two.rtt_us, two.code) == ("two", None, "no_responders")
    assert (shop.node, shop.instance, shop.code) == ("shop", None, "down")
    assert len((await client.ping("shop")).lines) == 1
    with pytest.raises(UnknownNode):
        await client.ping("wiki")


async def test_a_ping_waits_no_longer_than_it_is_told_to(fleet: Fleet) -> None:
    _, client = await started(fleet)
    node = await fleet.node("blog", found("a"))
    assert node._responder is not None
    node._responder.conversations.running_max = 0  # busy with other work
    [line] = (await client.ping("blog")).lines
    assert line.code == "overloaded", "it is there, and says that it is full"
    bus = await fleet.bus("blog")
    await client.register("mute")

    async def hear_nothing(_delivery: Any) -> None:
        await asyncio.sleep(0)

    subject = f"{fleet.settings.prefix}.v1.node.blog.one.ping"
    for subscription in node._responder._subscriptions:
        await subscription.drain()
    await bus.transport.subscribe(subject, hear_nothing)
    await bus.transport.flush()
    [line] = (await client.ping("blog", wait_ms=50)).lines
    assert (line.rtt_us, line.code) == (None, "out_of_budget")
