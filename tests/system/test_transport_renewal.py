"""A connection is replaced while everything goes on: nothing is lost and nothing comes twice; on real servers."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Sized
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from antiphon import subjects
from antiphon.bus import line
from antiphon.bus.bus import Bus, Call
from antiphon.bus.interest import Overlap
from antiphon.bus.nats import NatsTransport
from antiphon.bus.protocol import Bucket, Delivery, Entry, Headers, Login, Logins
from antiphon.errors import DeliveryError, NoResponders, NotConnected
from antiphon.identity.keypair import KeyPair, Role
from antiphon.messages.base import ANYONE, Fact, Kind, Message, Request, Route
from antiphon.subjects import Template
from fabrics import in_a_task, until
from locks import Given, Lock, Tokens, at, connections, kick, lock, none_left, system_client, wire


class Done(Message):
    number: int


class Do(Request[Done]):
    route = Route(Template("test.do.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue="test")

    number: int = 0


class DoAll(Request[Done]):
    route = Route(Template("test.doall.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,))

    number: int = 0


class Rang(Fact):
    route = Route(Template("fact.rang.<writer>"), sent_by=ANYONE, read_by=ANYONE)

    number: int = 0


class Party:
    """A bus and its transport."""

    def __init__(self, bus: Bus, transport: NatsTransport) -> None:
        self.bus = bus
        self.transport = transport


class Parties:
    """The parties of one test, all closed at its end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = "t" + secrets.token_hex(4)
        self.opened: list[Party] = []

    async def open(self, name: str, logins: Logins | None = None, user: str | None = None) -> Party:
        session = secrets.token_hex(4)
        inbox = subjects.inbox(name, session)
        logins = logins or (None if user else Given(Login(token="t")))
        endpoint = at(self.url, user=user, password=user)
        transport = await NatsTransport.connect(endpoint, name=name, inbox=inbox, logins=logins)
        party = Party(Bus(transport, name=name, session=session, prefix=self.prefix), transport)
        self.opened.append(party)
        await party.bus.start()
        return party

    async def close(self) -> None:
        for party in self.opened:
            await party.bus.close()


@pytest.fixture
async def parties(nats_server: str) -> AsyncIterator[Parties]:
    opened = Parties(nats_server)
    yield opened
    await opened.close()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Lock]:
    async with lock(tmp_path / "door") as opened:
        yield opened


@pytest.fixture
async def locked(opened: Lock) -> AsyncIterator[Parties]:
    """Parties at a server with a callout; `free` needs none."""
    held = Parties(opened.url)
    yield held
    await held.close()


def reached(things: Sized, count: int) -> bool:
    return len(things) >= count


class Served:
    """Answers, and counts how often it was asked what; holds back what it is told to."""

    def __init__(self) -> None:
        self.counts: Counter[int] = Counter()
        self.held: list[Call[Do]] = []
        self.holds = False

    async def __call__(self, call: Call[Any]) -> None:
        self.counts[call.message.number] += 1
        if self.holds:
            self.held.append(call)
        else:
            await call.answer(Done(number=call.message.number))

    async def let_go(self) -> None:
        while self.held:
            call = self.held.pop(0)
            await call.answer(Done(number=call.message.number))


@pytest.mark.parametrize("seed", range(3))
async def test_the_same_on_slow_wires(nats_server: str, seed: int) -> None:
    async with wire(nats_server, seed, 0.02) as slow:
        parties = Parties(slow.url)
        asker, server = await parties.open("web"), await parties.open("master")
        served = Served()
        heard: list[int] = []

        def hear(fact: Rang, _keys: dict[str, str]) -> None:
            heard.append(fact.number)

        await server.bus.serve(Do, in_a_task(served))
        await server.bus.hear(Rang, hear)
        await server.transport.flush()
        asked: list[asyncio.Future[Done]] = []
        for turn in range(4):
            renewing = asyncio.gather(server.transport.renew(), asker.transport.renew())
            while not renewing.done():
                number = len(asked)
                asked.append(asyncio.ensure_future(asker.bus.ask(Do(number=number), budget_ms=10_000)))
                await asker.bus.publish(Rang(number=number))
                await asyncio.sleep(0.001)
            await renewing
            assert len(asked) > turn * 20
        answers = await asyncio.gather(*asked)
        assert [answer.number for answer in answers] == list(range(len(asked)))
        await until(lambda: len(heard) >= len(asked))
        assert sorted(heard) == list(range(len(asked)))
        assert set(served.counts.values()) == {1}
        assert (asker.bus.counters.strays, asker.bus.counters.late) == (0, 0)
        await until(lambda: not (server.transport._line._replaced or asker.transport._line._replaced))
        await parties.close()


async def test_facts_are_heard_once_by_each_subscription(parties: Parties) -> None:
    teller, hearer = await parties.open("web"), await parties.open("master")
    heard: list[list[int]] = [[], [], []]

    for at_index in range(3):

        def hear(fact: Rang, _keys: dict[str, str], mine: list[int] = heard[at_index]) -> None:
            mine.append(fact.number)

        await hearer.bus.hear(Rang, hear)
    await hearer.transport.flush()
    finished = asyncio.Event()

    async def tell_on() -> int:
        number = 0
        while not finished.is_set():
            await teller.bus.publish(Rang(number=number))
            number += 1
            if number % 20 == 0:
                await asyncio.sleep(0)
        return number

    telling = asyncio.ensure_future(tell_on())
    for turn in range(1, 6):
        await until(partial(reached, heard[0], turn * 200))
        await hearer.transport.renew()
        await teller.transport.renew()
    finished.set()
    told = await telling
    await teller.transport.flush()
    await until(lambda: all(len(mine) >= told for mine in heard))
    assert [sorted(mine) for mine in heard] == [list(range(told))] * 3


async def test_an_answer_goes_back_on_the_connection_that_got_the_request(opened: Lock, locked: Parties) -> None:
    # this user may only answer, once, on the connection that was asked: the server sees to it
    opened.grants = {
        "pub": {"deny": [">"]},
        "sub": {"allow": [f"{locked.prefix}.>", "_I.alpha.>"]},
        "resp": {"max": 1, "ttl": 60 * 10**9},
    }
    asker = await locked.open("web", user="free")
    alpha = await locked.open("alpha", Tokens(KeyPair.make(Role.USER)))
    refused: list[str] = []
    alpha.transport.on_violation(refused.append)
    served = Served()
    served.holds = True
    await alpha.bus.serve(Do, in_a_task(served))
    await alpha.transport.flush()
    asked: list[asyncio.Future[Done]] = []
    for turn in range(10):
        asked += [asyncio.ensure_future(asker.bus.ask(Do(number=turn * 20 + n), budget_ms=20_000)) for n in range(20)]
        await until(partial(reached, served.held, (turn + 1) * 20))
        await alpha.transport.renew()
    async with system_client(opened.url) as system:
        assert len(await connections(system, "alpha")) == 11, "each is open for what came over it"
        assert opened.tokens == [f"token-{n}" for n in range(11)]
        await served.let_go()
        assert sorted(answer.number for answer in await asyncio.gather(*asked)) == list(range(200))
        await until(lambda: not alpha.transport._line._replaced)
        assert len(await connections(system, "alpha")) == 1
    assert set(served.counts.values()) == {1}
    assert refused == []
    assert (asker.bus.counters.strays, asker.bus.counters.late) == (0, 0)


async def test_a_refusal_goes_back_on_its_connection_too(opened: Lock, locked: Parties) -> None:
    opened.grants = {
        "pub": {"deny": [">"]},
        "sub": {"allow": [f"{locked.prefix}.>", "_I.alpha.>"]},
        "resp": {"max": 1, "ttl": 60 * 10**9},
    }
    asker = await locked.open("web", user="free")
    alpha = await locked.open("alpha", Tokens(KeyPair.make(Role.USER)))
    served = Served()
    served.holds = True
    await alpha.bus.serve(Do, in_a_task(served))
    await alpha.transport.flush()
    asked = asyncio.ensure_future(asker.bus.ask(Do(), budget_ms=20_000))
    await until(lambda: served.held)
    await alpha.transport.renew()
    await served.held.pop().refuse(NoResponders("not here"))
    with pytest.raises(NoResponders, match="not here"):
        await asked
    await until(lambda: not alpha.transport._line._replaced)


async def test_a_call_that_nobody_answers_keeps_its_connection_until_it_is_forgotten(parties: Parties) -> None:
    asker, server = await parties.open("web"), await parties.open("master")
    served = Served()
    served.holds = True
    await server.bus.serve(Do, in_a_task(served))
    await server.transport.flush()
    asked = asyncio.ensure_future(asker.bus.ask(Do(), budget_ms=60_000))
    await until(lambda: served.held)
    await server.transport.renew()
    (link,) = server.transport._line._replaced
    await asker.transport.flush()
    assert [link.is_live, len(served.held)] == [True, 1]
    served.held.clear()
    await until(lambda: not server.transport._line._replaced)
    assert [link.is_live] == [False]
    asked.cancel()
    await asyncio.wait({asked})


async def test_a_replaced_connection_is_closed_before_its_login_expires(opened: Lock, locked: Parties) -> None:
    asker = await locked.open("web", user="free")
    logins = Tokens(KeyPair.make(Role.USER), lives_s=1.2)
    alpha = await locked.open("alpha", logins)
    served = Served()
    served.holds = True
    await alpha.bus.serve(Do, in_a_task(served))
    await alpha.transport.flush()
    asked = asyncio.ensure_future(asker.bus.ask(Do(), budget_ms=20_000))
    await until(lambda: served.held)
    logins.lives_s = 3_600
    began = asyncio.get_running_loop().time()
    await alpha.transport.renew()
    await until(lambda: not alpha.transport._line._replaced)
    assert asyncio.get_running_loop().time() - began < 0.9, "a second before the end"
    await served.let_go()  # here everybody may answer on any connection
    await asked


async def test_too_many_replaced_connections_close_the_oldest(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "REPLACED_MAX", 2)
    asker, server = await parties.open("web"), await parties.open("master")
    served = Served()
    served.holds = True
    await server.bus.serve(Do, in_a_task(served))
    await server.transport.flush()
    asked: list[asyncio.Future[Done]] = []
    for number in range(5):
        asked.append(asyncio.ensure_future(asker.bus.ask(Do(number=number), budget_ms=20_000)))
        await until(partial(reached, served.held, number + 1))
        await server.transport.renew()
        await until(lambda: len(server.transport._line._replaced) <= 2)
    assert len(server.transport._line._replaced) == 2
    await served.let_go()
    assert [answer.number for answer in await asyncio.gather(*asked)] == list(range(5))
    await until(lambda: not server.transport._line._replaced)


async def test_nobody_listens_is_told_before_while_and_after(parties: Parties) -> None:
    asker = await parties.open("web")
    stopped = asyncio.Event()
    told: list[NoResponders] = []

    async def ask_on() -> None:
        while not stopped.is_set():
            try:
                await asker.bus.ask(Do(), budget_ms=5_000)
            except NoResponders as error:
                told.append(error)

    askers = [asyncio.ensure_future(ask_on()) for _ in range(8)]
    for turn in range(1, 6):
        await until(partial(reached, told, turn * 50))
        await asker.transport.renew()
    stopped.set()
    await asyncio.gather(*askers)
    assert asker.bus.counters.strays == 0


async def test_a_question_to_everybody_gets_each_answer_once(parties: Parties) -> None:
    asker, servers = await parties.open("web"), [await parties.open("master") for _ in range(3)]
    for number, server in enumerate(servers):

        async def serving(call: Call[DoAll], number: int = number) -> None:
            await call.answer(Done(number=number))

        await server.bus.serve(DoAll, in_a_task(serving))
        await server.transport.flush()
    for _ in range(5):
        asked = [asyncio.ensure_future(asker.bus.ask_all(DoAll(), wait_ms=3_000, quiet_ms=200)) for _ in range(5)]
        await asyncio.sleep(0)
        await asker.transport.renew()
        for answers in await asyncio.gather(*asked):
            assert sorted(answer.number for answer in answers) == [0, 1, 2]


async def test_key_values_counters_and_watches_go_on(parties: Parties) -> None:
    writer, watcher = await parties.open("web"), await parties.open("master")
    declared = Bucket(f"renewed-{secrets.token_hex(4)}", "a test", value_bytes_max=1_024, bytes_max=256 * 1_024)
    written, hold = await writer.transport.key_value(declared), await watcher.transport.key_value(declared)
    state: dict[str, bytes] = {}
    reports: list[Entry] = []

    def changed(entry: Entry) -> None:
        reports.append(entry)
        if entry.value is None:
            state.pop(entry.key, None)
        else:
            state[entry.key] = entry.value

    watch = await hold.watch(changed)
    wanted: dict[str, bytes] = {}
    finished = asyncio.Event()

    async def write_on() -> None:
        number = 0
        while not finished.is_set():
            key, number = f"k{number % 11}", number + 1
            if number % 5 == 0:
                await written.delete(key)
                wanted.pop(key, None)
            else:
                await written.put(key, b"%d" % number)
                wanted[key] = b"%d" % number

    writing = asyncio.ensure_future(write_on())
    for turn in range(1, 6):
        await until(partial(reached, reports, turn * 20))
        await asyncio.gather(watcher.transport.renew(), writer.transport.renew())
        first = await hold.get("k1")
        assert first is None or first.revision > 0
    finished.set()
    await writing
    await until(lambda: state == wanted)
    assert [entry for entry in reports if entry.is_lost] == []
    assert len({(entry.key, entry.revision) for entry in reports}) == len(reports), "no change is told twice"
    await until(lambda: not (watcher.transport._line._replaced or writer.transport._line._replaced))
    await watch.stop()
    seen = len(reports)
    await watcher.transport.renew()
    await written.put("after", b"1")
    await written.get("after")
    assert len(reports) == seen


async def test_what_comes_and_goes_meanwhile_is_there_and_gone_afterwards(parties: Parties) -> None:
    bus = await parties.open("web")
    heard: Counter[str] = Counter()

    async def hear(delivery: Delivery) -> None:
        heard[delivery.subject] += 1

    old = [await bus.transport.subscribe(f"{parties.prefix}.old.{n}", hear) for n in range(20)]
    renewing = asyncio.ensure_future(bus.transport.renew())
    new = 0
    while not renewing.done():
        await bus.transport.subscribe(f"{parties.prefix}.new.{new}", hear)
        if old:
            await old.pop().drain()
        new += 1
        await asyncio.sleep(0)
    await renewing
    assert old == [] or new < 20
    kept = len(old)
    for n in range(20):
        await bus.transport.publish(f"{parties.prefix}.old.{n}", b"")
    for n in range(new):
        await bus.transport.publish(f"{parties.prefix}.new.{n}", b"")
    await until(lambda: sum(heard.values()) >= kept + new)
    await bus.transport.flush()
    assert sum(heard.values()) == kept + new
    assert set(heard.values()) == {1}


async def test_whoever_cancels_a_renewal_loses_nothing(opened: Lock, locked: Parties) -> None:
    alpha = await locked.open("alpha", Tokens(KeyPair.make(Role.USER)))
    served = Served()
    await alpha.bus.serve(Do, in_a_task(served))
    async with system_client(opened.url) as system:
        for steps in range(0, 60, 2):
            renewing = asyncio.ensure_future(alpha.transport.renew())
            for _ in range(steps):
                await asyncio.sleep(0)
            renewing.cancel()
            await asyncio.wait({renewing})
            assert (await alpha.bus.ask(Do(number=steps))).number == steps
        await until(lambda: not alpha.transport._line._replaced)
        async with asyncio.timeout(5):
            while len(await connections(system, "alpha")) != 1:
                pass
    assert set(served.counts.values()) == {1}


async def test_a_renewal_brings_a_lost_connection_back(opened: Lock, locked: Parties) -> None:
    alpha = await locked.open("alpha", Tokens(KeyPair.make(Role.USER)))
    back = asyncio.Event()
    alpha.transport.on_reconnect(back.set)
    await alpha.bus.serve(Do, in_a_task(Served()))
    opened.refuses = True
    async with system_client(opened.url) as system:
        await kick(system, "alpha")
    await until(lambda: alpha.transport._line._attempts >= 3)
    opened.refuses = False
    await alpha.transport.renew()
    assert back.is_set()
    assert (await alpha.bus.ask(Do(number=1))).number == 1
    assert alpha.transport.losses == 1


async def test_connections_that_are_ended_while_they_are_replaced_come_back(opened: Lock, locked: Parties) -> None:
    alpha = await locked.open("alpha", Tokens(KeyPair.make(Role.USER)))
    served = Served()
    await alpha.bus.serve(Do, in_a_task(served))
    async with system_client(opened.url) as system:
        for _ in range(5):
            results = await asyncio.gather(alpha.transport.renew(), kick(system, "alpha"), return_exceptions=True)
            assert [r for r in results if isinstance(r, BaseException) and not isinstance(r, NotConnected)] == []
        async with asyncio.timeout(20):
            while True:  # what is asked over a connection that is being ended may be lost
                await until(lambda: alpha.transport.is_connected)
                with suppress(DeliveryError):
                    assert (await alpha.bus.ask(Do(number=1), budget_ms=500)).number == 1
                    break
        await alpha.bus.close()
        await none_left(system, "alpha")


async def test_closing_while_a_connection_is_replaced_leaves_none_behind(opened: Lock, locked: Parties) -> None:
    async with system_client(opened.url) as system:
        for steps in range(0, 60, 4):
            alpha = await locked.open("alpha", Tokens(KeyPair.make(Role.USER)))
            renewing = asyncio.ensure_future(alpha.transport.renew())
            for _ in range(steps):
                await asyncio.sleep(0)
            await alpha.bus.close()
            await asyncio.wait({renewing})
            error = renewing.exception()
            assert error is None or isinstance(error, NotConnected)
            await none_left(system, "alpha")


def test_an_overlap_takes_what_came_on_both_once_and_the_rest_as_often_as_it_came() -> None:
    taken: list[str] = []

    def take(subject: str, _data: bytes, _headers: Headers | None, _link: str) -> None:
        taken.append(subject)

    overlap = Overlap(take, 3)
    for subject in ("both", "twice", "twice", "old"):
        overlap.old(subject, b"", None, "old link")
    for subject in ("new", "twice", "both", "twice", "late"):
        overlap.new(subject, b"", {}, "new link")
    overlap.old("late", b"", None, "old link")
    overlap.old("both", b"", {"a": "b"}, "old link")
    assert Counter(taken) == {"both": 2, "twice": 2, "old": 1, "new": 1, "late": 1}
