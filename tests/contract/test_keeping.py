"""The laws of keeping facts, on the memory server and on a real nats-server alike: each once, none lost in silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import orjson

from antiphon.bus.assets import facts_of
from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Journal, Stored
from antiphon.errors import NotConnected
from antiphon.messages.facts import InstanceChanged
from antiphon.runtime.facts import Facts
from antiphon.runtime.keeping import Keeper, KeeperBounds
from fabrics import Buses, until

QUICK = KeeperBounds(linger_ms=1, retry_ms=10)


@asynccontextmanager
async def keeping(bus: Bus, bounds: KeeperBounds = QUICK) -> AsyncIterator[tuple[Facts, Keeper]]:
    """A keeper that runs, and what facts are told to."""
    keeper = Keeper(bus, bounds)
    facts = Facts(bus, keeper=keeper)
    running = asyncio.ensure_future(keeper.run())
    try:
        yield facts, keeper
    finally:
        await keeper.stop()
        running.cancel()
        await asyncio.wait({running})


def tell(facts: Facts, *numbers: int) -> None:
    for number in numbers:
        facts.tell(InstanceChanged(at_ms=number, node="blog", instance="a", change="joined"))


class Deaf:
    """A journal that stores once and never hears the acknowledgement; then it is as it was."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.is_deaf = True

    async def append(
        self, subject: str, data: bytes, *, over: str | None = None, last: int = 0, keep_ms: int | None = None
    ) -> int | None:
        stored = await self.journal.append(subject, data, over=over, last=last, keep_ms=keep_ms)
        if self.is_deaf:
            self.is_deaf = False
            raise NotConnected("no acknowledgement")
        return stored

    async def last(self, *patterns: str) -> list[Stored]:
        return await self.journal.last(*patterns)


async def kept(bus: Bus) -> list[int]:
    """The numbers of the facts in the stream, in its order."""
    reader = await bus.transport.reader(facts_of(bus.prefix).name)
    found = await reader.read(0, messages_max=10_000, bytes_max=10**8)
    return [one["fact"].get("at_ms", 0) for message in found for one in orjson.loads(message.data)["facts"]]


async def test_facts_are_kept_many_in_one_message(buses: Buses) -> None:
    bus = await buses.open("master")
    async with keeping(bus) as (facts, keeper):
        tell(facts, *range(2_500))
        await until(lambda: keeper.kept == 2_500)
        assert await kept(bus) == list(range(2_500))
        extent = await (await bus.transport.reader(facts_of(bus.prefix).name)).extent()
        assert extent is not None
        assert extent.last == 3
        assert (keeper.dropped, facts.dropped) == (0, 0)


async def test_two_masters_write_side_by_side(buses: Buses) -> None:
    one, two = await buses.open("master-a"), await buses.open("master-b")
    async with keeping(one) as (facts, keeper), keeping(two) as (others, other):
        for number in range(200):
            tell(facts, number)
            tell(others, 1_000 + number)
            await asyncio.sleep(0)
        await until(lambda: keeper.kept == other.kept == 200)
        assert sorted(await kept(one)) == [*range(200), *range(1_000, 1_200)]


async def test_a_server_that_is_killed_loses_and_doubles_nothing(losable: Buses) -> None:
    bus = await losable.open("master")
    async with keeping(bus) as (facts, keeper):
        tell(facts, *range(100))
        await until(lambda: keeper.kept == 100)
        tell(facts, *range(100, 200))
        await losable.fabric.lose()
        tell(facts, *range(200, 300))
        await losable.fabric.bring_back()
        await until(lambda: keeper.kept == 300)
        assert await kept(bus) == list(range(300))


async def test_what_does_not_fit_is_dropped_counted_and_told(losable: Buses) -> None:
    bus = await losable.open("master")
    async with keeping(bus, KeeperBounds(facts_max=10, linger_ms=1, retry_ms=10)) as (facts, keeper):
        tell(facts, 1)
        await until(lambda: keeper.kept == 1)
        await losable.fabric.lose()
        tell(facts, *range(2, 30))
        assert keeper.dropped == 18
        await losable.fabric.bring_back()
        await until(lambda: keeper.kept == 12)
        reader = await bus.transport.reader(facts_of(bus.prefix).name)
        found = await reader.read(0, messages_max=100, bytes_max=10**6)
        last = orjson.loads(found[-1].data)["facts"][-1]
        assert last["kind"] == "FactsDropped"
        assert (last["fact"]["dropped"], last["fact"]["total"]) == (18, 18)


async def test_a_fact_too_large_to_be_kept_is_dropped_and_counted(buses: Buses) -> None:
    bus = await buses.open("master")
    async with keeping(bus, KeeperBounds(linger_ms=1, fact_bytes_max=50)) as (facts, keeper):
        tell(facts, 1)
        assert keeper.dropped == 1
        keeper.keep("Short", b"{}")
        await until(lambda: keeper.kept == 2)


async def test_a_message_whose_acknowledgement_was_lost_is_not_stored_again(buses: Buses) -> None:
    bus = await buses.open("master")
    async with keeping(bus) as (facts, keeper):
        tell(facts, 1)
        await until(lambda: keeper.kept == 1)
        journal = keeper._journal
        assert journal is not None
        keeper._journal = cast("Journal", Deaf(journal))
        tell(facts, 2)
        await until(lambda: keeper.kept == 2)
        tell(facts, 3)
        await until(lambda: keeper.kept == 3)
        assert await kept(bus) == [1, 2, 3]


class Slow:
    """A journal whose answers wait until they are let go."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def append(
        self, subject: str, data: bytes, *, over: str | None = None, last: int = 0, keep_ms: int | None = None
    ) -> int | None:
        self.asked.set()
        await self.go.wait()
        return await self.journal.append(subject, data, over=over, last=last, keep_ms=keep_ms)

    async def last(self, *patterns: str) -> list[Stored]:
        return await self.journal.last(*patterns)


async def test_a_stop_while_a_message_is_on_its_way_keeps_each_fact_once(buses: Buses) -> None:
    bus = await buses.open("master")
    async with keeping(bus) as (facts, keeper):
        tell(facts, 1)
        await until(lambda: keeper.kept == 1)
        journal = keeper._journal
        assert journal is not None
        slow = Slow(journal)
        keeper._journal = cast("Journal", slow)
        tell(facts, 2, 3)
        await slow.asked.wait()
        tell(facts, 4)
        stopping = asyncio.ensure_future(keeper.stop())
        await asyncio.sleep(0)
        slow.go.set()
        await stopping
        assert await kept(bus) == [1, 2, 3, 4]
        assert (keeper.kept, keeper.waiting, keeper.dropped) == (4, 0, 0)
