"""However a search ends, nothing of it is left: no count, no place, no task."""

from __future__ import annotations

import asyncio
from typing import Any

from antiphon import Hit, Node
from antiphon.bus.memory import MemoryServer, MemoryTransport
from antiphon.bus.protocol import Headers
from antiphon.messages.facts import SearchFinished
from antiphon.testing import TestFleet, virtual_run
from storm import leaks


async def hangs(_query: Any) -> list[Hit]:
    await asyncio.sleep(3_600)
    return []


class Hesitant(MemoryTransport):
    """A connection whose messages take 30 ms to leave, as when the server reads slowly."""

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        await asyncio.sleep(0.03)
        await super().publish(subject, data, reply=reply, headers=headers, via=via)


class SlowServer(MemoryServer):
    """A server to which masters send slowly."""

    def connect(self, party: str = "") -> MemoryTransport:
        return Hesitant(self, party) if party == "master" else super().connect(party)


async def left_after(fleet: TestFleet, ms: int, deadline_ms: int) -> None:
    """Ask, and leave after a while."""
    asked = asyncio.ensure_future(fleet.search("whales", deadline_ms=deadline_ms))
    await fleet.sleep_ms(ms)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)


def test_a_deadline_that_passes_while_the_nodes_are_told_leaves_no_count() -> None:
    async def main() -> None:
        async with TestFleet() as fleet:
            fleet.server = SlowServer()
            await fleet.master()
            for name in ("blog", "shop", "wiki"):
                await fleet.node(name, hangs)
            # the gather would end at 160 ms; telling three nodes takes 90 ms, and the deadline cuts in at 200 ms
            await left_after(fleet, 155, deadline_ms=200)
            await fleet.sleep_ms(1_000)
            assert leaks(fleet) == []

    virtual_run(main())


def test_an_asker_that_leaves_ends_the_fallbacks_too() -> None:
    ended: list[str] = []

    async def slow(_query: Any) -> list[Hit]:
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.append("cut off")
        return []

    async def main() -> None:
        async with TestFleet() as fleet:
            local = Node("local")
            local.search(slow)
            await fleet.master(fallbacks=[local])
            await left_after(fleet, 100, deadline_ms=5_000)
            await fleet.sleep_ms(1)
            assert ended == ["cut off"]
            assert leaks(fleet) == []

    virtual_run(main())


def test_thousands_of_searches_leave_nothing_behind() -> None:
    async def main() -> None:
        async with TestFleet(3, node_parallel_max=8, node_queue_max=8, hedge_permille=500) as fleet:
            await fleet.master()
            late = iter(range(10**9))

            async def now_and_then(_query: Any) -> list[Hit]:
                at = next(late)
                await asyncio.sleep(3_600 if at % 97 == 0 else 0.4 if at % 13 == 0 else 0.01)
                return [Hit(id="1", title="whale")]

            for name in ("blog", "shop"):
                for instance in ("i1", "i2"):
                    await fleet.node(name, now_and_then, instance=instance)
            fleet.faults.drop("shop.i2", share=0.05, subject="_I.>")
            asked = []
            for at in range(3_000):
                asked.append(
                    asyncio.ensure_future(left_after(fleet, at % 500 if at % 7 == 0 else 2_000, 50 + at % 900))
                )
                await fleet.sleep_ms(3)
            await asyncio.gather(*asked)
            fleet.faults.heal()  # else a ping may be on its way
            await fleet.sleep_ms(5_000)
            assert leaks(fleet) == []

    virtual_run(main())


def test_the_answer_and_its_fact_say_whose_answer_counted_and_what_it_cost() -> None:
    async def main() -> None:
        async with TestFleet(1, hedge_permille=1_000) as fleet:
            await fleet.master()
            slow = False

            async def first(_query: Any) -> list[Hit]:
                await asyncio.sleep(2 if slow else 0.01)
                return [Hit(id="1", title="whale")]

            for instance in ("i1", "i2"):
                await fleet.node("blog", first, instance=instance)
            facts = await fleet.heard(SearchFinished)
            for _ in range(200):  # until it is known how long it takes
                await fleet.search("whales")
            slow = True
            asking = asyncio.ensure_future(fleet.search("whales", deadline_ms=5_000))
            await fleet.sleep_ms(1)
            slow = False
            answer = await asking
            [line] = answer.nodes
            assert (line.hedge, line.attempts, answer.coverage.hedged) == ("won", 2, 1)
            assert line.wasted_us > 10_000
            assert line.reply_bytes > 100
            await fleet.sleep_ms(1_000)
            assert [fact.nodes[0].hedge for fact in facts if fact.coverage and fact.coverage.hedged] == ["won"]
            assert facts[-1].nodes == answer.nodes

    virtual_run(main())
