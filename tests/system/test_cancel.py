"""Who leaves is not worked for: the handler's task is cancelled, and what was spent on it is counted."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from antiphon.messages.facts import SearchFinished
from antiphon.messages.lane import NodeCancel
from antiphon.messages.registry import HeartBeaten
from antiphon.messages.search import SearchAbandoned
from antiphon.responder import NodeBounds
from fabrics import until
from fleet import Fleet, found


class Stuck:
    """A handler that never answers by itself, and says when it begins and when it is cut off."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.cut_off = asyncio.Event()

    async def search(self, _query: Any) -> list[Any]:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cut_off.set()
            raise
        return []


async def test_when_the_asker_leaves_the_handler_is_cut_off(fleet: Fleet) -> None:
    await fleet.master()
    stuck = Stuck()
    await fleet.node("stuck", stuck.search)
    await fleet.node("blog", found("whale"))
    finished, beats = await fleet.heard(SearchFinished), await fleet.heard(HeartBeaten)
    client = await fleet.client()
    asking = asyncio.ensure_future(client.search("whales", deadline_ms=30_000, request_id="left"))
    async with asyncio.timeout(10):
        await stuck.began.wait()
        asking.cancel()
        await stuck.cut_off.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: finished)
    assert [(fact.request, fact.code) for fact in finished] == [("left", "abandoned")]
    await until(lambda: any(beat.load.cancelled == 1 and beat.load.wasted_us > 0 for beat in beats))


async def test_a_search_is_abandoned_by_its_own_asker_only(fleet: Fleet) -> None:
    await fleet.master()
    stuck = Stuck()
    await fleet.node("stuck", stuck.search)
    client, other = await fleet.client(), await fleet.client("other")
    asking = asyncio.ensure_future(client.search("whales", deadline_ms=2_000, request_id="mine"))
    await stuck.began.wait()
    await other.bus.publish(SearchAbandoned(request="mine"))
    await other.bus.transport.flush()
    answer = await asking
    assert answer.coverage.timed_out == 1, "somebody else's word did not end it; its deadline did"


async def test_an_order_from_outside_a_masters_inbox_cuts_nobody_off(fleet: Fleet) -> None:
    await fleet.master()
    stuck = Stuck()
    await fleet.node("stuck", stuck.search)
    client = await fleet.client()
    asking = asyncio.ensure_future(client.search("whales", deadline_ms=1_500, request_id="mine"))
    await stuck.began.wait()
    await client.bus.tell(NodeCancel(ticket="mine"), node="stuck", instance="one")
    await client.bus.transport.flush()
    answer = await asking
    assert answer.coverage.timed_out == 1
    assert (await client.search("whales", deadline_ms=1_000)).coverage.timed_out == 1, "and the node lives on"


async def test_the_deadline_cuts_the_handler_off_and_is_counted_as_waste(fleet: Fleet) -> None:
    await fleet.master()
    stuck = Stuck()
    node = await fleet.node("stuck", stuck.search)
    client = await fleet.client()
    await client.search("whales", deadline_ms=1_000)
    async with asyncio.timeout(10):
        await stuck.cut_off.wait()
    beats = await fleet.heard(HeartBeaten)
    await until(lambda: any(beat.load.cancelled == 1 and beat.load.wasted_us >= 100_000 for beat in beats))
    assert node.name == "stuck"


async def test_a_plain_handler_keeps_its_thread_and_when_all_are_kept_it_is_said_at_once(fleet: Fleet) -> None:
    await fleet.master()
    let_go = threading.Event()

    def stuck(query: Any) -> list[Any]:
        if "hang" in query.text:
            let_go.wait(60)
        return []

    await fleet.node("stuck", stuck, bounds=NodeBounds(threads_max=2))
    client = await fleet.client()
    try:
        for _ in range(2):
            assert (await client.search("hang", deadline_ms=1_000)).coverage.timed_out == 1
        [line] = (await client.search("whales", deadline_ms=5_000)).nodes
        assert (line.outcome, line.code) == ("failed", "overloaded")
        assert line.took_us < 4_000_000, "nobody waits for a thread that does not come back"
    finally:
        let_go.set()

    async with asyncio.timeout(10):
        while not (await client.search("whales", deadline_ms=5_000)).complete:  # noqa: ASYNC110 - it is asked again
            await asyncio.sleep(0.01)


async def test_cancelling_what_has_ended_is_no_error(fleet: Fleet) -> None:
    await fleet.master()
    await fleet.node("blog", found("whale"))
    client = await fleet.client()
    answer = await client.search("whales", request_id="done")
    await client.bus.publish(SearchAbandoned(request="done"))
    await client.bus.publish(SearchAbandoned(request="never-was"))
    assert (await client.search("whales")).hits == answer.hits


async def test_two_askers_with_one_request_id_do_not_cancel_each_other(fleet: Fleet) -> None:
    await fleet.master()
    both, gate = asyncio.Event(), asyncio.Event()
    running = 0

    async def slow(_query: Any) -> list[dict[str, str]]:
        nonlocal running
        running += 1
        if running == 2:
            both.set()
        await gate.wait()
        return [{"id": "1", "title": "whale"}]

    await fleet.node("slow", slow)
    alice, bob = await fleet.client("alice"), await fleet.client("bob")
    hers = asyncio.ensure_future(alice.search("whales", deadline_ms=20_000, request_id="same"))
    his = asyncio.ensure_future(bob.search("whales", deadline_ms=20_000, request_id="same"))
    async with asyncio.timeout(10):
        await both.wait()
    beats = await fleet.heard(HeartBeaten)
    his.cancel()
    await until(lambda: any(beat.load.cancelled == 1 for beat in beats))
    gate.set()
    assert (await hers).complete
