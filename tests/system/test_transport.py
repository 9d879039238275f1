"""Connections that are renewed, lost, healed and closed under load, on a real nats-server with real permissions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from antiphon.bus import line, strict
from antiphon.bus import nats as nats_bus
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import parse
from antiphon.bus.nats import NatsTransport
from antiphon.bus.protocol import Bucket, Delivery, Entry, Subscription
from antiphon.decide.retry import RetryBounds
from antiphon.errors import (
    AntiphonError,
    NoResponders,
    NotAuthenticated,
    NotConnected,
    OutOfBudget,
    Overloaded,
)
from doors import Door, door_at
from fabrics import until

LANE = "antiphon.v1.node.docs.one.search"
ASK = "antiphon.v1.search.ask.web"
REQUESTS = 2_000
PARALLEL = 25


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with door_at(tmp_path / "data") as one:
        yield one


def wire(bus: Bus) -> NatsTransport:
    """The transport under a bus, as what it is."""
    return cast("NatsTransport", bus.transport)


async def answers(bus: Bus, subject: str, queue: str | None = None) -> Counter[bytes]:
    """Answer everything with itself, by the way that it came; return how often each was handled."""
    handled: Counter[bytes] = Counter()

    async def answer(delivery: Delivery) -> None:
        handled[delivery.data] += 1
        await bus.transport.publish(delivery.reply, delivery.data, via=bus.transport.way_of(delivery))

    await bus.transport.subscribe(subject, answer, queue=queue)
    await bus.transport.flush()
    return handled


async def ask(bus: Bus, subject: str, data: bytes = b"", budget_ms: int = 5_000) -> bytes:
    return await bus.ask_bytes(subject, data, budget_ms=budget_ms)


async def reached(number: Callable[[], int], wanted: int) -> None:
    await until(lambda: number() >= wanted)


def count(logged: list[Any], event: str) -> int:
    return sum(one["event"] == event for one in logged)


# -- renewals


@pytest.mark.parametrize("who", ["the one that answers", "the one that asks", "both"])
async def test_no_request_is_lost_and_none_comes_twice_while_connections_are_renewed(door: Door, who: str) -> None:
    master = await door.master()
    node, _ = await door.node()
    web, _ = await door.client()
    at_node, at_master = await answers(node, LANE), await answers(master, ASK)
    answered: list[int] = []
    numbers = iter(range(REQUESTS))

    async def asks() -> None:
        for number in numbers:
            data = str(number).encode()
            asker, subject = (master, LANE) if number % 2 else (web, ASK)
            assert await ask(asker, subject, data) == data
            answered.append(number)

    async def renews() -> None:
        for turn in range(10):
            await reached(answered.__len__, turn * REQUESTS // 10)
            renewing = {"the one that answers": [node], "the one that asks": [web]}.get(who, [node, web])
            await asyncio.gather(*(bus.transport.renew() for bus in renewing))

    await asyncio.gather(renews(), *(asks() for _ in range(PARALLEL)))
    handled = at_node + at_master
    assert len(handled) == REQUESTS
    assert set(handled.values()) == {1}, "none is handled twice"
    for bus in (master, node, web):
        assert (bus.counters.strays, bus.counters.late) == (0, 0)
        assert bus.transport.losses == 0
        assert wire(bus).violations == 0, "each answer went the way of its request"
    wanted = (0 if who == "the one that asks" else 10, 0 if who == "the one that answers" else 10)
    assert (wire(node).renewals, wire(web).renewals) == wanted


async def test_an_answer_that_is_slower_than_the_change_over_goes_back_the_way_it_was_asked(door: Door) -> None:
    master, (node, _) = await door.master(), await door.node()
    held: list[Delivery] = []

    async def keep(delivery: Delivery) -> None:
        held.append(delivery)

    await node.transport.subscribe(LANE, keep)
    await node.transport.flush()
    asked = [asyncio.ensure_future(ask(master, LANE, data, 1_000)) for data in (b"by its way", b"by the new way")]
    await until(lambda: len(held) == 2)
    ways = [node.transport.way_of(delivery) for delivery in held]
    await node.transport.renew()
    await node.transport.renew()
    by_data = {delivery.data: (delivery, way) for delivery, way in zip(held, ways, strict=True)}
    late, way = by_data[b"by its way"]
    await node.transport.publish(late.reply, b"in time", via=way)
    assert await asked[0] == b"in time"
    await node.transport.publish(late.reply, b"again", via=way)  # `allow_responses` is one
    other, _ = by_data[b"by the new way"]
    await node.transport.publish(other.reply, b"unheard")  # this is what `via` is for
    await node.transport.flush()
    await until(lambda: wire(node).violations == 2)
    with pytest.raises(OutOfBudget):
        await asked[1]
    assert node.transport.losses == 0


async def test_queue_groups_share_and_everybody_else_hears_once_while_connections_are_renewed(door: Door) -> None:
    master = await door.master()
    members = [(await door.client())[0] for _ in range(3)]
    shared: list[Counter[bytes]] = []
    heard: list[Counter[bytes]] = []
    for bus in members:
        of_group, of_all = Counter[bytes](), Counter[bytes]()

        async def in_group(delivery: Delivery, kept: Counter[bytes] = of_group) -> None:
            kept[delivery.data] += 1

        async def alone(delivery: Delivery, kept: Counter[bytes] = of_all) -> None:
            kept[delivery.data] += 1

        await bus.transport.subscribe("_I.web.shared", in_group, queue="q")
        await bus.transport.subscribe("_I.web.all", alone)
        await bus.transport.flush()
        shared.append(of_group)
        heard.append(of_all)
    sent = [str(number).encode() for number in range(600)]
    tells = iter(sent)

    async def tell() -> None:
        for data in tells:
            await master.transport.publish("_I.web.shared", data)
            await master.transport.publish("_I.web.all", data)
            await asyncio.sleep(0)

    async def renews() -> None:
        for turn in range(9):
            await reached(lambda: sum(map(len, shared)), turn * 60)
            await members[turn % 3].transport.renew()

    await asyncio.gather(tell(), renews())
    await until(lambda: sum(sum(kept.values()) for kept in (*shared, *heard)) >= 4 * len(sent))
    assert sum(shared, Counter()) == Counter(sent), "one of a group gets each"
    assert all(len(kept) > 60 for kept in shared), "and no member starves"
    assert heard == [Counter(sent)] * 3, "whoever is in no group gets each, once"


async def test_what_is_subscribed_or_drained_while_a_connection_is_renewed_stays_so(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, (web, _) = await door.master(), await door.client()
    heard: list[str] = []

    async def hears(token: str) -> Subscription:
        async def hear(delivery: Delivery) -> None:
            heard.append(token)

        return await web.transport.subscribe(f"_I.web.x.{token}", hear)

    before = {token: await hears(token) for token in ("kept", "drained")}
    await web.transport.flush()
    real, reached, go_on = strict.StrictClient.listen, asyncio.Event(), asyncio.Event()

    async def slow(self: strict.StrictClient, *args: Any) -> None:
        await real(self, *args)
        if not reached.is_set() and self is not wire(web)._line.link:  # in the middle of the change-over
            reached.set()
            await go_on.wait()

    monkeypatch.setattr(strict.StrictClient, "listen", slow)
    renewing = asyncio.ensure_future(web.transport.renew())
    await reached.wait()
    await before["drained"].drain()
    await hears("new")
    short = await hears("short")
    await short.drain()
    go_on.set()
    await renewing
    assert wire(web).renewals == 1
    for token in ("drained", "short", "new", "kept"):
        await master.transport.publish(f"_I.web.x.{token}", b"")
    await until(lambda: "kept" in heard)
    await web.transport.flush()
    assert sorted(heard) == ["kept", "new"]


async def test_subscriptions_come_and_go_under_renewals(door: Door) -> None:
    master, (web, _) = await door.master(), await door.client()
    done = asyncio.Event()

    async def comes_and_goes(at: int) -> int:
        turns = 0
        while not done.is_set():
            heard: list[bytes] = []

            async def hear(delivery: Delivery, heard: list[bytes] = heard) -> None:
                heard.append(delivery.data)

            subject = f"_I.web.come.{at}.{turns}"
            subscription = await web.transport.subscribe(subject, hear)
            await web.transport.flush()
            await master.transport.publish(subject, b"here")
            await until(heard.__len__, 5)
            await subscription.drain()
            with pytest.raises(NoResponders):
                await ask(master, subject)
            assert heard == [b"here"]
            turns += 1
        return turns

    tasks = [asyncio.ensure_future(comes_and_goes(at)) for at in range(8)]
    for _ in range(10):
        await web.transport.renew()
    done.set()
    assert sum(await asyncio.gather(*tasks)) > 8


async def test_the_old_connection_goes_when_its_time_is_over_and_swallows_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ANSWERS_MS", 400)
    master, (node, _) = await door.master(), await door.node()
    handled, kept = await answers(node, LANE), list[Delivery]()

    async def keep(delivery: Delivery) -> None:
        kept.append(delivery)  # whoever holds it holds its connection

    await node.transport.subscribe("_I.docs.kept", keep)
    await node.transport.flush()
    await master.transport.publish("_I.docs.kept", b"")
    await until(lambda: kept)
    await ask(master, LANE, b"before")
    await node.transport.renew()
    both = [cid for cid, name in (await door.connections()).items() if name == "docs"]
    assert len(both) == 2
    asked = 0
    while len([name for name in (await door.connections()).values() if name == "docs"]) == 2:
        asked += 1
        assert await ask(master, LANE, str(asked).encode()) == str(asked).encode()
    assert [cid for cid, name in (await door.connections()).items() if name == "docs"] == both[1:], "the new one stays"
    assert await ask(master, LANE, b"after") == b"after"
    assert handled.total() == asked + 2
    assert (node.transport.losses, wire(node)._line._replaced) == (0, {})


async def test_an_answer_that_is_later_than_the_old_connection_is_refused_and_hurts_nobody(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ANSWERS_MS", 1)
    master, (node, _) = await door.master(), await door.node()
    held: list[Delivery] = []

    async def keep(delivery: Delivery) -> None:
        held.append(delivery)

    subscription = await node.transport.subscribe(LANE, keep)
    await node.transport.flush()
    asked = asyncio.ensure_future(ask(master, LANE, b"", 1_000))
    await until(lambda: held)
    way = node.transport.way_of(held[0])
    await node.transport.renew()
    await until(lambda: not wire(node)._line._replaced)
    await node.transport.publish(held[0].reply, b"too late", via=way)
    await until(lambda: wire(node).violations == 1)
    with pytest.raises(OutOfBudget):
        await asked
    await subscription.drain()
    await answers(node, LANE)
    assert await ask(master, LANE, b"next") == b"next"


async def test_a_renewal_that_is_refused_leaves_everything_as_it_was(door: Door) -> None:
    master, (node, logins) = await door.master(), await door.node()
    handled = await answers(node, LANE)
    door.shut.add("docs")
    with pytest.raises(NotAuthenticated):
        await node.transport.renew()
    assert logins.refusals == 1
    logins.error = Overloaded("later", retry_after_ms=10)
    with pytest.raises(Overloaded):
        await node.transport.renew()
    assert await ask(master, LANE, b"on") == b"on"
    assert handled == Counter([b"on"])
    assert (node.transport.losses, wire(node).renewals, node.transport.is_connected) == (0, 0, True)
    assert list((await door.connections()).values()).count("docs") == 1


@pytest.mark.parametrize("where", ["at the login", "at the change-over"])
@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_renewal_that_is_given_up_leaves_no_connection_behind(
    door: Door, monkeypatch: pytest.MonkeyPatch, where: str, how: str
) -> None:
    master, (node, logins) = await door.master(), await door.node()
    await answers(node, LANE)
    reached = asyncio.Event()
    if where == "at the login":
        logins.held, reached = asyncio.Event(), logins.wanted
        reached.clear()
    else:

        async def never(self: strict.StrictClient, *args: Any) -> None:
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(strict.StrictClient, "listen", never)
    renewing = asyncio.ensure_future(node.transport.renew())
    await reached.wait()
    async with asyncio.timeout(5):
        if how == "closed":
            await node.close()
            with pytest.raises(NotConnected):
                await renewing
        else:
            renewing.cancel()
            await asyncio.wait({renewing})
            assert renewing.cancelled()
    monkeypatch.undo()
    left = list((await door.connections()).values()).count("docs")
    if how == "closed":
        assert left == 0
        with pytest.raises(NoResponders):
            await ask(master, LANE)
    else:
        assert left == 1
        assert await ask(master, LANE, b"on") == b"on"


# -- losses


@asynccontextmanager
async def back(*buses: Bus) -> AsyncIterator[None]:
    """Wait until each has lost its connection once and has it back."""
    returned = [asyncio.Event() for _ in buses]
    losses = [bus.transport.losses for bus in buses]
    for bus, event in zip(buses, returned, strict=True):
        bus.transport.on_reconnect(event.set)
    yield
    async with asyncio.timeout(20):
        for event in returned:
            await event.wait()
    assert [bus.transport.losses for bus in buses] == [before + 1 for before in losses], "a loss counts once"


async def test_whoever_is_kicked_comes_back_by_himself(door: Door) -> None:
    master, (node, logins) = await door.master(), await door.node()
    handled, kept = await answers(node, LANE), await answers(master, ASK)
    hold = await master.transport.key_value(Bucket("test-kick", "a test", value_bytes_max=64, bytes_max=65_536))
    seen: list[Entry] = []
    await hold.watch(seen.append)
    for turn in range(2):
        async with back(node):
            logins.held = asyncio.Event()
            assert await door.kick("docs") == 1
            await until(lambda: not node.transport.is_connected)
            with pytest.raises(NotConnected):
                await node.transport.publish("_I.docs.x", b"")
            logins.held.set()
        assert await ask(master, LANE, b"%d" % turn) == b"%d" % turn
        async with back(master):
            assert await door.kick("master") == 1
        revision = await hold.put("key", b"%d" % turn)
        await reached(lambda: seen[-1].revision if seen else 0, revision)
        web, _ = await door.client()
        assert await ask(web, ASK, b"%d" % turn) == b"%d" % turn
    assert handled == kept == Counter([b"0", b"1"])


async def test_whoever_expires_comes_back_with_a_new_token(door: Door) -> None:
    logins = door.minted("web")
    logins.life_ms = 1_500
    web = await door.connect("web", logins)
    master = await door.master()
    await answers(master, ASK)
    logins.life_ms = 3_600_000
    async with back(web):
        assert await ask(web, ASK, b"before") == b"before"
    assert await ask(web, ASK, b"after") == b"after"
    assert logins.asked == 2


async def test_a_server_that_was_killed_has_everybody_back(door: Door) -> None:
    master, (node, _), (web, _) = await door.master(), await door.node(), await door.client()
    handled, served = await answers(node, LANE), await answers(master, ASK)
    everybody = door.buses[:]
    async with back(*everybody):
        await door.lose()
        began = asyncio.get_running_loop().time()
        for bus in (master, node, web):
            with pytest.raises(NotConnected):
                await bus.transport.publish(f"_I.{bus.name}.x", b"")
            with pytest.raises(NotConnected):
                await bus.transport.publish_each([(f"_I.{bus.name}.x", "")], b"")
            with pytest.raises(NotConnected):
                await bus.transport.flush()
        for bus in (node, web):
            with pytest.raises(NotConnected):
                await bus.transport.renew()
        assert asyncio.get_running_loop().time() - began < 3, "it is said at once"
        await door.bring_back()
    assert await ask(master, LANE, b"1") == b"1"
    assert await ask(web, ASK, b"2") == b"2"
    assert (handled, served) == (Counter([b"1"]), Counter([b"2"]))


async def test_what_is_lost_with_something_unsent_comes_back_too(door: Door) -> None:
    master, (node, _) = await door.master(), await door.node()
    handled = await answers(node, LANE)
    async with back(*door.buses):
        os.kill(door.server.pid, signal.SIGSTOP)
        full = [asyncio.ensure_future(_fill(bus)) for bus in (master, node)]
        await until(lambda: all(wire(bus)._line.link.pending_data_size > 1_000_000 for bus in (master, node)))
        await door.lose()
        await asyncio.gather(*full)
        await door.bring_back()
    assert await ask(master, LANE, b"on") == b"on"
    assert handled == Counter([b"on"]), "and nothing of it is sent later"


async def test_a_refusal_that_lasts_is_logged_once_for_each_reason(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "HEALING", RetryBounds(base_ms=20, cap_ms=40))
    node, logins = await door.node()
    with capture_logs() as logged:
        async with back(node):
            door.shut.add("docs")
            await door.kick("docs")
            await until(lambda: len(door.refusals) >= 6)
            with pytest.raises(NotConnected, match="does not let this process in"):
                await node.transport.publish("_I.docs.x", b"")
            logins.error, asked = Overloaded("too many token asks", retry_after_ms=10), logins.asked
            await until(lambda: logins.asked > asked + 4)
            logins.error, asked = OSError("no space left on device"), logins.asked
            await until(lambda: logins.asked > asked + 4)
            logins.error = None
            refused = len(door.refusals)
            await until(lambda: len(door.refusals) > refused + 2)
            door.shut.clear()
    assert [one["code"] for one in logged if one["event"] == "bus.not_healed"] == [
        "not_authenticated",
        "overloaded",
        "OSError",
    ]
    assert count(logged, "bus.disconnected") == count(logged, "bus.reconnected") == 1
    with capture_logs() as again:
        async with back(node):
            door.shut.add("docs")
            await door.kick("docs")
            await until(lambda: count(again, "bus.not_healed"))
            door.shut.clear()
    assert count(again, "bus.not_healed") == 1, "the next loss has reasons of its own"


async def test_a_renewal_and_a_loss_at_once_leave_one_connection(door: Door) -> None:
    master, (node, logins) = await door.master(), await door.node()
    handled = await answers(node, LANE)
    for turn in range(3):
        logins.held = asyncio.Event()
        logins.wanted.clear()
        async with back(node):
            renewing = asyncio.ensure_future(node.transport.renew())
            await logins.wanted.wait()
            await door.kick("docs")
            await until(lambda: not node.transport.is_connected)
            logins.held.set()
            await renewing
        assert await ask(master, LANE, b"%d" % turn) == b"%d" % turn
        assert list((await door.connections()).values()).count("docs") == 1
    assert set(handled.values()) == {1}
    assert wire(node).violations == 0


# -- what the server does not permit


async def test_violations_are_counted_logged_once_a_minute_and_end_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = await door.node()
    before = await door.connections()
    with capture_logs() as logged:
        for number in range(5):
            await node.transport.publish(f"antiphon.v1.node.other.x{number}.search", b"")
        await node.transport.subscribe("antiphon.v1.search.ask.web", cast("Any", _nothing))
        await node.transport.flush()
        await until(lambda: wire(node).violations == 6)
    assert count(logged, "bus.not_permitted") == 2, "once for each kind"
    assert count(logged, "bus.error") == 0
    with capture_logs() as logged:
        monkeypatch.setattr(nats_bus, "SELDOM_MS", -1)  # the minute is over
        await node.transport.publish("antiphon.v1.node.other.x.search", b"")
        await until(lambda: count(logged, "bus.not_permitted"))
    assert logged[0]["times"] == 5, "since it was said last"
    assert await door.connections() == before
    assert node.transport.losses == 0


async def _nothing(delivery: Delivery) -> None:
    raise AssertionError(delivery)


# -- closing


async def test_closing_at_any_moment_ends_in_time(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict, "DRAIN_TIMEOUT_S", 0.3)
    loop = asyncio.get_running_loop()

    async def closes(bus: Bus) -> None:
        began = loop.time()
        await bus.close()
        await bus.close()
        assert loop.time() - began < 2
        assert not bus.transport.is_connected
        with pytest.raises(NotConnected):
            await bus.transport.publish("_I.x", b"")
        with pytest.raises(NotConnected):
            await bus.transport.subscribe("_I.docs.x", _nothing)

    stuck, _ = await door.node("stuck")
    entered = asyncio.Event()

    async def never(delivery: Delivery) -> None:
        entered.set()
        await asyncio.Event().wait()

    await stuck.transport.subscribe("antiphon.v1.node.stuck.one.search", never)
    await stuck.transport.flush()
    master = await door.master()
    await master.transport.publish("antiphon.v1.node.stuck.one.search", b"")
    await entered.wait()
    await closes(stuck)

    for bus in (master, (await door.node())[0]):
        await answers(bus, f"_I.{bus.name}.x")
        os.kill(door.server.pid, signal.SIGSTOP)
        try:
            full = asyncio.ensure_future(_fill(bus))
            await asyncio.wait({full}, timeout=0.5)
            await closes(bus)
            await asyncio.wait({full}, timeout=2)
            assert full.done(), "whoever sends hears of it"
        finally:
            os.kill(door.server.pid, signal.SIGCONT)

    renewed, _ = await door.node("renewed")
    await renewed.transport.renew()
    lost, _ = await door.node("lost")
    key = await door.master("master-2")
    await door.lose()
    for bus in (renewed, lost, key):
        await closes(bus)


async def _fill(bus: Bus) -> None:
    """Send until nothing goes out any more."""
    with suppress(AntiphonError):
        while True:
            await bus.transport.publish(f"_I.{bus.name}.x", b"x" * 500_000)
            await asyncio.sleep(0)


async def test_a_server_that_takes_no_bytes_is_lost_and_nobody_hangs_for_it(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strict, "WRITE_TIMEOUT_S", 0.5)
    master = await door.master()
    async with back(master):
        os.kill(door.server.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                await _fill(master)
        finally:
            os.kill(door.server.pid, signal.SIGCONT)
    await answers(master, "_I.master.x")
    assert await ask(master, "_I.master.x", b"on") == b"on"


async def test_of_many_who_publish_at_once_each_waits_until_there_is_room(door: Door) -> None:
    master = await door.master()
    heard: list[bytes] = []
    await master.transport.hand("_I.master.x", lambda one: heard.append(one.data[:4]))
    await master.transport.flush()
    count, rest = 800, b"x" * 65_000  # more than the kernel's buffers of both sides hold
    os.kill(door.server.pid, signal.SIGSTOP)
    try:
        sent = [
            asyncio.ensure_future(master.transport.publish("_I.master.x", b"%04d" % one + rest)) for one in range(count)
        ]
        _, waiting = await asyncio.wait(sent, timeout=0.5)
    finally:
        os.kill(door.server.pid, signal.SIGCONT)
    assert waiting
    async with asyncio.timeout(10):
        await asyncio.gather(*sent)
    await until(lambda: len(heard) == count)
    assert heard == [b"%04d" % one for one in range(count)]


# -- servers that are none of ours


INFO = {"server_id": "N", "version": "2.15.1", "max_payload": 1_048_576, "headers": True, "proto": 1}
ASKS = {"auth_required": True, "nonce": "abcdef"}


@asynccontextmanager
async def foreign(more: dict[str, Any], said: bytes = b"", *, silent: bool = False) -> AsyncIterator[str]:
    """A server that greets, says something to the first line, and hangs up."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(INFO | more).encode() + b"\r\n")
        await reader.readline()
        writer.write(said)
        if silent:
            await over.wait()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("more", "said", "kind", "text"),
    [
        ({}, b"", NotConnected, "unexpected EOF"),
        ({}, b"-ERR 'maximum connections exceeded'\r\n", NotConnected, "maximum connections exceeded"),
        (ASKS, b"-ERR 'maximum connections exceeded'\r\n", NotConnected, "maximum connections exceeded"),
        (ASKS, b"-ERR 'Authorization Violation'\r\n", NotAuthenticated, "antiphon login"),
        (ASKS, b"", NotAuthenticated, "antiphon login"),
    ],
)
async def test_what_a_server_says_is_told_as_what_it_is(
    more: dict[str, Any], said: bytes, kind: type[AntiphonError], text: str
) -> None:
    async with foreign(more, said) as place, asyncio.timeout(10):
        with pytest.raises(kind, match=text):
            await connect("web", endpoint=parse(f"nats://{place}"))


async def test_a_server_that_says_nothing_is_not_one_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.bus.dial.CONNECT_TIMEOUT_S", 0.2)
    async with foreign(ASKS, silent=True) as place, asyncio.timeout(10):
        with pytest.raises(NotConnected):
            await connect("web", endpoint=parse(f"nats://{place}"))


async def test_of_several_servers_one_that_is_there_is_enough(nats_server: str) -> None:
    here = nats_server.removeprefix("nats://")
    for servers in (f"127.0.0.1:1,{here}", f"nats://{here},127.0.0.1:1"):
        bus = await connect("web", endpoint=parse(servers))
        await bus.transport.flush()
        await bus.close()
    async with asyncio.timeout(20):
        with pytest.raises(NotConnected):
            await connect("web", endpoint=parse("127.0.0.1:1,127.0.0.1:2"))
