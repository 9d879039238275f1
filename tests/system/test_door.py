"""Who may come in: a caller's rate, in one master and exactly over several, and the master's own capacity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from antiphon.errors import AntiphonError, Overloaded
from antiphon.messages.facts import SearchFinished
from fabrics import MemoryFabric, own_nats, until
from fleet import Fleet, fleet_on, found


@asynccontextmanager
async def fleet_with(kind: str, folder: Path, **settings: Any) -> AsyncIterator[Fleet]:
    if kind == "memory":
        async with fleet_on(MemoryFabric(), **settings) as fleet:
            yield fleet
    else:
        async with own_nats(folder / "nats") as fabric, fleet_on(fabric, **settings) as fleet:
            yield fleet


async def ask(fleet: Fleet, caller: str, times: int) -> list[AntiphonError | None]:
    client = await fleet.client(caller)

    async def one() -> AntiphonError | None:
        try:
            await client.search("whales")
        except AntiphonError as error:
            return error
        return None

    return [await one() for _ in range(times)]


@pytest.mark.parametrize("kind", ["memory", "nats"])
async def test_a_caller_may_ask_so_often_and_is_told_when_to_come_back(kind: str, tmp_path: Path) -> None:
    async with fleet_with(kind, tmp_path, caller_per_minute=5) as fleet:
        await fleet.master()
        await fleet.node("blog", found("whale"))
        finished = await fleet.heard(SearchFinished)
        outcomes = await ask(fleet, "often", 8)
        assert outcomes[:5] == [None] * 5
        for error in outcomes[5:]:
            assert isinstance(error, Overloaded)
            assert error.retry_after_ms is not None
            assert 0 < error.retry_after_ms <= 12_000, "a fifth of a minute"
            assert "5 times in 60 s" in error.text
        assert await ask(fleet, "seldom", 1) == [None], "somebody else's rate is somebody else's"
        await until(lambda: len(finished) == 9)
        assert sorted(fact.code or "" for fact in finished) == [""] * 6 + ["overloaded"] * 3, "refusals are facts, too"


@pytest.mark.parametrize("kind", ["memory", "nats"])
async def test_over_several_masters_a_caller_is_counted_exactly(kind: str, tmp_path: Path) -> None:
    async with fleet_with(kind, tmp_path, caller_per_minute=10, caller_exact=True) as fleet:
        for name in ("master-1", "master-2", "master-3"):
            await fleet.master(name)
        await fleet.node("blog", found("whale"))
        outcomes = await ask(fleet, "often", 30)
        assert outcomes.count(None) == 10, "not ten for each of three masters"
        assert all(isinstance(error, Overloaded) for error in outcomes if error is not None)


async def test_without_a_limit_everybody_comes_in(tmp_path: Path) -> None:
    async with fleet_with("memory", tmp_path, caller_per_minute=0) as fleet:
        await fleet.master()
        await fleet.node("blog", found("whale"))
        assert await ask(fleet, "often", 100) == [None] * 100


async def test_a_node_with_a_rate_is_skipped_when_it_is_used_up(tmp_path: Path) -> None:
    async with fleet_with("memory", tmp_path, caller_per_minute=0) as fleet:
        await fleet.master()
        await fleet.node("blog", found("whale"))
        await fleet.node("slow", found("whale song"))
        client = await fleet.client()
        operator = await fleet.client("ops")
        await operator.update("slow", rate_per_minute=3)
        answers = [await client.search("whales") for _ in range(5)]
        lines = [next(line for line in answer.nodes if line.node == "slow") for answer in answers]
        assert [line.code for line in lines] == [None, None, None, "overloaded", "overloaded"]
        assert all(answer.coverage.answered >= 1 for answer in answers)


async def test_a_full_compartment_makes_searches_wait_their_turn(tmp_path: Path) -> None:
    gate, running, most = asyncio.Event(), 0, 0

    async def slow(_query: Any) -> list[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return []

    async with fleet_with("memory", tmp_path, caller_per_minute=0, node_parallel_max=2, node_queue_max=3) as fleet:
        await fleet.master()
        await fleet.node("narrow", slow)
        client = await fleet.client()
        asking = [asyncio.ensure_future(client.search("whales", deadline_ms=20_000)) for _ in range(7)]
        await until(lambda: running == 2 and sum(one.done() for one in asking) == 2)
        refused = [one.result() for one in asking if one.done()]
        assert [answer.nodes[0].code for answer in refused] == ["overloaded", "overloaded"]
        gate.set()
        answers = [await one for one in asking]
        assert most == 2
        assert sum(answer.coverage.answered for answer in answers) == 5, "two ran, three waited and ran"
        again = [await client.search("whales") for _ in range(3)]
        assert all(answer.complete for answer in again), "no place has leaked"


async def test_a_node_that_has_answered_has_room_again_while_a_slow_one_is_waited_for(tmp_path: Path) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    async def stuck(_query: Any) -> list[Any]:
        asked.set()
        await gate.wait()
        return []

    async with fleet_with("memory", tmp_path, caller_per_minute=0, node_parallel_max=1) as fleet:
        await fleet.master()
        await fleet.node("fast", found("whale"))
        await fleet.node("stuck", stuck)
        client = await fleet.client()
        slow = asyncio.ensure_future(client.search("whales", deadline_ms=20_000))
        await asked.wait()
        answer = await client.search("whales", nodes=["fast"], deadline_ms=2_000)
        assert answer.complete, "one slow node must not keep the others' places"
        assert not slow.done()
        gate.set()
        assert (await slow).complete
