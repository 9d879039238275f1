"""Breakers on both buses: a failing node is skipped, everywhere, told once, and comes back by either path."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from antiphon import Client, Hit
from antiphon.actors.breaker import BreakerActor
from antiphon.app import MasterRole
from antiphon.decide.breaker import State
from antiphon.errors import HandlerFailed, UnknownNode
from antiphon.messages.breakers import BreakerMoved
from antiphon.messages.search import Outcome, SearchAnswer
from fabrics import MemoryFabric, own_nats, until
from fleet import Fleet, fleet_on, found

WAIT_MS = 400
QUICK: dict[str, Any] = {
    "breaker_wait_ms": WAIT_MS,
    "caller_per_minute": 0,
    "hedge_permille": 0,
    "retry_attempts_max": 1,
}


@pytest.fixture(params=["memory", "nats"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    if request.param == "memory":
        async with fleet_on(MemoryFabric(), **QUICK) as started:
            yield started
    else:
        async with own_nats(tmp_path / "nats") as fabric, fleet_on(fabric, **QUICK) as started:
            yield started


class Moody:
    """A handler that fails while it is told to."""

    def __init__(self, *, is_failing: bool = True) -> None:
        self.is_failing = is_failing
        self.asked = 0

    async def __call__(self, _query: Any) -> list[Hit]:
        self.asked += 1
        if self.is_failing:
            raise HandlerFailed("no")  # any other error is logged with its traceback, which takes longer than WAIT_MS
        return [Hit(id="1", title="whale", text="whales")]


def handler(moody: Moody) -> Any:
    async def search(query: Any) -> list[Hit]:
        return await moody(query)

    return search


def line_of(answer: SearchAnswer, node: str) -> tuple[Outcome, str | None]:
    return next((line.outcome, line.code) for line in answer.nodes if line.node == node)


def state_of(role: MasterRole, node: str, instance: str = "one") -> State:
    [actor] = [child for child in role.supervisor.children if isinstance(child, BreakerActor)]
    breaker = actor.breakers.breakers.get((node, instance, "search"))
    return State.CLOSED if breaker is None else breaker.state


async def fail(client: Client, node: str, times: int = 5) -> None:
    for _ in range(times):
        answer = await client.search("whales", nodes=[node])
        assert line_of(answer, node) == (Outcome.FAILED, "handler_failed")


async def test_a_failing_node_opens_is_skipped_and_others_are_not(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client()
    moved = await fleet.heard(BreakerMoved)
    bad = Moody()
    await fleet.node("bad", handler(bad))
    await fleet.node("good", found("a"))
    for number in range(5):
        assert state_of(role, "bad") is State.CLOSED, number
        answer = await client.search("whales")
        assert line_of(answer, "bad") == (Outcome.FAILED, "handler_failed")
    await until(lambda: state_of(role, "bad") is State.OPEN)
    answer = await client.search("whales")
    assert line_of(answer, "bad") == (Outcome.SKIPPED, "open")
    assert line_of(answer, "good") == (Outcome.ANSWERED, None)
    assert (answer.coverage.skipped_open, answer.complete, bad.asked) == (1, False, 5)
    assert state_of(role, "good") is State.CLOSED
    await until(lambda: moved)
    assert [(fact.node, fact.state, fact.reason) for fact in moved] == [("bad", "open", "consecutive_failures")]


async def test_it_comes_back_when_searches_probe(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client()
    moved = await fleet.heard(BreakerMoved)
    moody = Moody()
    await fleet.node("blog", handler(moody))
    await fail(client, "blog")
    await until(lambda: state_of(role, "blog") is State.OPEN)
    moody.is_failing = False
    async with asyncio.timeout(20):
        while state_of(role, "blog") is not State.CLOSED:
            await client.search("whales")
    answer = await client.search("whales")
    assert line_of(answer, "blog") == (Outcome.ANSWERED, None)
    await until(lambda: len(moved) == 3)
    assert [fact.state for fact in moved] == ["open", "half_open", "closed"], "each transition is told once"


async def test_an_idle_node_is_probed_by_pings(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client()
    moody = Moody()
    await fleet.node("blog", handler(moody))
    await fail(client, "blog")
    await until(lambda: state_of(role, "blog") is State.OPEN)
    moody.is_failing, moody.asked = False, 0
    await until(lambda: state_of(role, "blog") is State.CLOSED, 20)
    assert moody.asked == 0, "no search came by"


async def test_a_probe_that_fails_waits_again(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client()
    moved = await fleet.heard(BreakerMoved)
    await fleet.node("blog", handler(Moody()))
    await fail(client, "blog")
    async with asyncio.timeout(20):
        while len(moved) < 3:
            await client.search("whales")
    assert [fact.state for fact in moved[:3]] == ["open", "half_open", "open"]
    assert moved[2].reason == "probe"
    assert state_of(role, "blog") is not State.CLOSED


async def test_two_masters_share_what_one_has_seen(fleet: Fleet) -> None:
    roles = [await fleet.master("master"), await fleet.master("master-two")]
    moved = await fleet.heard(BreakerMoved)
    client = await fleet.client()
    moody = Moody()
    await fleet.node("blog", handler(moody))
    await until(lambda: all("blog" in role.view.current.nodes for role in roles))
    while not moved:
        await client.search("whales", nodes=["blog"])
    moody.is_failing = False  # before any probe
    await until(lambda: all(state_of(role, "blog") is State.OPEN for role in roles))
    await until(lambda: all(state_of(role, "blog") is State.CLOSED for role in roles), 20)
    await until(lambda: len(moved) == 3)
    assert [fact.state for fact in moved] == ["open", "half_open", "closed"], "one of the two tells"


async def test_a_hand_opens_closes_and_resets(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client("ops")
    moody = Moody(is_failing=False)
    await fleet.node("blog", handler(moody))
    await client.breaker("open", "blog")
    assert line_of(await client.search("whales"), "blog") == (Outcome.SKIPPED, "open")
    [line] = (await client.breakers()).breakers
    assert (line.node, line.instance, line.state, line.reason, line.by) == ("blog", "one", "open", "by_hand", "ops")
    await asyncio.sleep(2 * WAIT_MS / 1_000)
    assert state_of(role, "blog") is State.OPEN, "what a hand set only a hand changes"

    await client.breaker("close", "blog", "one")
    moody.is_failing = True
    await fail(client, "blog", 12)
    assert state_of(role, "blog") is State.CLOSED
    await client.breaker("reset", "blog")
    assert (await client.breakers("blog")).breakers == ()
    await fail(client, "blog", 5)
    await until(lambda: state_of(role, "blog") is State.OPEN)
    with pytest.raises(UnknownNode):
        await client.breaker("open", "nobody")


async def test_a_master_that_sees_most_nodes_fail_at_once_opens_nothing(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client()
    moved = await fleet.heard(BreakerMoved)
    names = [f"node-{number}" for number in range(4)]
    for name in names:
        await fleet.node(name, handler(Moody()))
    for _ in range(8):
        answer = await client.search("whales")
        assert answer.coverage.failed == 4
    assert answer.coverage.degraded == ("self",)
    assert {state_of(role, name) for name in names} == {State.CLOSED}
    assert moved == []
    assert (await client.breakers()).suspects_itself


async def test_one_bad_instance_of_three_is_avoided(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client()
    bad = Moody()
    await fleet.node("blog", handler(bad), instance="bad")
    for name in ("one", "two"):
        await fleet.node("blog", found("a"), instance=name)
    async with asyncio.timeout(20):
        while state_of(role, "blog", "bad") is not State.OPEN:
            await client.search("whales", balancer="round_robin")
    assert bad.asked == 5
    for _ in range(6):
        answer = await client.search("whales", balancer="round_robin")
        assert line_of(answer, "blog") == (Outcome.ANSWERED, None)
        assert answer.nodes[0].instance in ("one", "two") or bad.asked > 5, "only a probe asks it"


async def test_an_instance_that_left_leaves_no_breaker_behind(fleet: Fleet) -> None:
    roles = [await fleet.master("master"), await fleet.master("master-two")]
    client = await fleet.client("ops")
    node = await fleet.node("blog", handler(Moody()))
    await until(lambda: all("blog" in role.view.current.nodes for role in roles))
    async with asyncio.timeout(20):
        while not all(state_of(role, "blog") is State.OPEN for role in roles):
            await client.search("whales", nodes=["blog"])
    await node.stop()
    await until(lambda: not any("blog" in role.view.current.nodes for role in roles))
    await until(lambda: all(state_of(role, "blog") is State.CLOSED for role in roles))
    assert (await client.breakers()).breakers == ()

    await fleet.node("blog", found("a"))
    answer = await client.search("whales")
    assert line_of(answer, "blog") == (Outcome.ANSWERED, None), "a new one starts anew"


async def test_what_a_hand_holds_outlives_a_restart_of_the_node(fleet: Fleet) -> None:
    role, client = await fleet.master(), await fleet.client("ops")
    node = await fleet.node("blog", found("a"))
    await client.breaker("open", "blog")
    await node.stop()
    await until(lambda: "blog" not in role.view.current.nodes)
    await fleet.node("blog", found("a"))
    assert line_of(await client.search("whales"), "blog") == (Outcome.SKIPPED, "open")
    await client.register("ghost")
    with pytest.raises(UnknownNode):
        await client.breaker("open", "ghost")
