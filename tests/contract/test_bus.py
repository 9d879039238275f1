"""The laws of the bus, on the memory server and on a real nats-server alike."""

from __future__ import annotations

import asyncio
import gc
import secrets
from typing import Any, ClassVar

import orjson
import pytest

from antiphon.bus.bounds import Bounds
from antiphon.bus.bus import Bus, Call
from antiphon.bus.codec import BUDGET, ERROR, ERROR_CODE, REQUEST, RETRY_AFTER, TYPE, encode
from antiphon.bus.protocol import Bucket, Delivery, Entry, Headers
from antiphon.errors import (
    CODES,
    AntiphonError,
    Internal,
    InvalidName,
    InvalidReply,
    Malformed,
    NoResponders,
    NotConnected,
    OutOfBudget,
    Oversize,
    ServiceError,
    UnknownVersion,
)
from antiphon.messages.base import ANYONE, Fact, Kind, Message, Request, Route
from antiphon.subjects import Template
from fabrics import Buses, Slots, in_a_task, until


class Told(Message):
    size_max: ClassVar[int] = 2 * 1024 * 1024
    text: str
    budget_ms: int = 0


class Tell(Request[Told]):
    route = Route(Template("test.tell.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue="test")

    text: str = "nothing"
    number: int = 0


class TellAll(Request[Told]):
    route = Route(Template("test.tellall.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,))

    text: str = ""


class TellLane(Request[Told]):
    route = Route(Template("lane.<node>.<instance>.tell"), sent_by=(Kind.MASTER,), read_by=(Kind.NODE,))

    text: str = ""


class Rang(Fact):
    route = Route(Template("fact.rang.<writer>"), sent_by=ANYONE, read_by=ANYONE)

    number: int = 0


async def echo(call: Call[Any]) -> None:
    left = call.deadline_ms - call.bus.clock.now_ms()
    await call.answer(Told(text=call.message.text, budget_ms=left))


async def serve(bus: Bus, kind: type[Request[Any]] = Tell, serving: Any = echo, **keys: str) -> None:
    await bus.serve(kind, in_a_task(serving), **keys)
    await bus.transport.flush()


def subject(bus: Bus, kind: type[Request[Any] | Fact] = Tell, **keys: str) -> str:
    return kind.route.template.subject(prefix=bus.prefix, **keys)


async def ask_raw(bus: Bus, data: bytes, headers: Headers | None = None, *, to: str | None = None) -> Told:
    answer = await bus.ask_bytes(to or subject(bus, caller=bus.name), data, headers=headers, budget_ms=5_000)
    return Told.model_validate_json(answer)


# -- asking and telling


async def test_a_request_gets_its_answer_and_the_server_sees_who_asks(buses: Buses) -> None:
    seen: list[Call[Tell]] = []

    async def serving(call: Call[Tell]) -> None:
        seen.append(call)
        await echo(call)

    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server, serving=serving)
    told = await asker.ask(Tell(text="grüße \u2028 \U0001f600", number=7), budget_ms=3_000, request_id="r-1")
    assert told.text == "grüße \u2028 \U0001f600"
    assert [(c.caller, c.message.number, c.request, c.keys) for c in seen] == [("web", 7, "r-1", {})]


async def test_the_budget_travels_and_never_grows(buses: Buses) -> None:
    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server)
    for budget_ms in (50, 777, 59_999):
        assert 0 < (await asker.ask(Tell(), budget_ms=budget_ms)).budget_ms <= budget_ms
    assert (await asker.ask(Tell(), budget_ms=10_000_000)).budget_ms <= server.bounds.budget_max_ms


async def test_a_queue_group_shares_and_no_group_means_everybody(buses: Buses) -> None:
    asker = await buses.open("web")
    shared: list[int] = []
    everybody: list[int] = []
    members = [await buses.open("master") for _ in range(3)]
    for at, member in enumerate(members):

        async def serving(call: Call[Tell], at: int = at) -> None:
            shared.append(at)
            await echo(call)

        def all_hear(fact: Rang, keys: dict[str, str], at: int = at) -> None:
            everybody.append(at)

        await serve(member, serving=serving)
        await member.hear(Rang, all_hear)
        await member.transport.flush()
    for _ in range(60):
        await asker.ask(Tell())
    assert len(shared) == 60, "each request is served once"
    assert set(shared) == {0, 1, 2}, "no member starves"
    await asker.publish(Rang())
    await until(lambda: len(everybody) == 3)
    assert sorted(everybody) == [0, 1, 2]


async def test_messages_of_one_subscription_keep_their_order_even_when_the_receiver_waits(buses: Buses) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    heard: list[tuple[int, str]] = []
    received: list[int] = []

    def hear(fact: Rang, keys: dict[str, str]) -> None:
        heard.append((fact.number, keys["writer"]))

    async def receive(delivery: Delivery) -> None:
        await asyncio.sleep(0)
        received.append(Rang.model_validate_json(delivery.data).number)

    await hearer.hear(Rang, hear)
    await hearer.transport.subscribe(Rang.route.template.pattern(prefix=hearer.prefix), receive)
    await hearer.transport.flush()
    for number in range(200):
        await teller.publish(Rang(number=number))
    await until(lambda: len(heard) == len(received) == 200)
    assert heard == [(number, "node-a") for number in range(200)]
    assert received == list(range(200))


async def test_a_malformed_fact_is_counted_and_the_next_one_heard(buses: Buses) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    heard: list[int] = []

    def hear(fact: Rang, _keys: dict[str, str]) -> None:
        heard.append(fact.number)

    await hearer.hear(Rang, hear)
    await hearer.transport.flush()
    to = subject(teller, Rang, writer="node-a")
    for payload in (b"\xff", b'{"number": "x"}', b"[" * 60_000, b"x" * (64 * 1024 + 1)):
        await teller.transport.publish(to, payload)
    await teller.publish(Rang(number=5))
    await until(lambda: heard)
    assert heard == [5]
    assert hearer.counters.refused == {"malformed": 3, "oversize": 1}


# -- errors


@pytest.mark.parametrize("code", sorted(CODES))
async def test_every_error_crosses_as_its_own_class(buses: Buses, code: str) -> None:
    async def serving(call: Call[Tell]) -> None:
        await call.refuse(CODES[code]("a text\r\nwith: grüßen", retry_after_ms=1_500))

    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server, serving=serving)
    with pytest.raises(CODES[code]) as caught:
        await asker.ask(Tell())
    assert type(caught.value) is CODES[code]
    assert caught.value.text == "a text  with: gr??en"
    assert caught.value.retry_after_ms == 1_500
    assert caught.value.retryable is CODES[code].retryable


@pytest.mark.parametrize(
    ("headers", "kind", "after"),
    [
        ({ERROR_CODE: "from_the_future", ERROR: "?"}, ServiceError, None),
        ({ERROR_CODE: "", ERROR: "?"}, ServiceError, None),
        ({ERROR_CODE: "internal", RETRY_AFTER: "soon"}, Internal, None),
        ({ERROR_CODE: "internal", RETRY_AFTER: "-5"}, Internal, None),
        ({ERROR_CODE: "internal", RETRY_AFTER: "9" * 5_000}, Internal, None),
        ({ERROR_CODE: "internal", RETRY_AFTER: "12"}, Internal, 12),
    ],
)
async def test_error_headers_that_nobody_sane_writes_are_still_an_error(
    buses: Buses, headers: dict[str, str], kind: type[AntiphonError], after: int | None
) -> None:
    async def answer(delivery: Delivery) -> None:
        await server.transport.publish(delivery.reply, b"", headers=headers)

    asker, server = await buses.open("web"), await buses.open("master")
    await server.transport.subscribe(subject(server, caller="web"), answer)
    await server.transport.flush()
    for _ in range(2):
        with pytest.raises(AntiphonError) as caught:
            await asker.ask(Tell(), budget_ms=2_000)
        assert type(caught.value) is kind
        assert caught.value.retry_after_ms == after


async def test_nobody_there_is_told_at_once(buses: Buses) -> None:
    asker = await buses.open("web")
    began = asyncio.get_running_loop().time()
    with pytest.raises(NoResponders):
        await asker.ask(Tell(), budget_ms=30_000)
    assert asyncio.get_running_loop().time() - began < 5


async def test_silence_is_out_of_budget_on_time(buses: Buses) -> None:
    async def silent(call: Call[Tell]) -> None:
        await asyncio.sleep(0)

    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server, serving=silent)
    began = asyncio.get_running_loop().time()
    with pytest.raises(OutOfBudget):
        await asker.ask(Tell(), budget_ms=100)
    took = asyncio.get_running_loop().time() - began
    assert 0.09 <= took < 1
    assert asker._waiting == {}


async def test_an_answer_that_is_not_the_declared_reply_is_an_invalid_reply(buses: Buses) -> None:
    replies = iter([b"", b"\xff\xfe", b'{"text": 5}', b"[" * 100_000, b"null"])

    async def serving(call: Call[Tell]) -> None:
        await call.answer(next(replies))

    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server, serving=serving)
    for _ in range(5):
        with pytest.raises(InvalidReply):
            await asker.ask(Tell())


# -- bad input


GOOD = b'{"text": "good"}'
BAD: dict[str, tuple[bytes, dict[str, str], type[AntiphonError]]] = {
    "budget of nothing": (GOOD, {BUDGET: "0"}, OutOfBudget),
    "budget spent": (GOOD, {BUDGET: "-5"}, OutOfBudget),
    "budget no number": (GOOD, {BUDGET: "soon"}, Malformed),
    "budget a float": (GOOD, {BUDGET: "1.5"}, Malformed),
    "budget endless": (GOOD, {BUDGET: "9" * 5_000}, Malformed),
    "budget of foreign digits": (GOOD, {BUDGET: "١٢"}, Malformed),
    "budget of dashes": (GOOD, {BUDGET: "--5"}, Malformed),
    "budget empty": (GOOD, {BUDGET: ""}, Malformed),
    "unknown version": (GOOD, {TYPE: "Tell/2.0"}, UnknownVersion),
    "version no number": (GOOD, {TYPE: "Tell/x"}, UnknownVersion),
    "no version": (GOOD, {TYPE: "Tell"}, UnknownVersion),
    "another type": (GOOD, {TYPE: "Rang/1.0"}, Malformed),
    "endless request id": (GOOD, {REQUEST: "r" * 65}, Malformed),
    "unprintable request id": (GOOD, {REQUEST: "a\x07b"}, Malformed),
    "oversize": (b'{"text": "' + b"x" * 70_000 + b'"}', {}, Oversize),
    "no JSON": (b"hello", {}, Malformed),
    "cut off": (b'{"text": "go', {}, Malformed),
    "invalid UTF-8": (b'{"text": "\xff\xfe"}', {}, Malformed),
    "half a surrogate pair": (b'{"text": "\\ud800"}', {}, Malformed),
    "deeply nested": (b"[" * 60_000, {}, Malformed),
    "deeply nested objects": (b'{"text":' * 8_000, {}, Malformed),
    "nested in an unknown field": (b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", {}, Malformed),
    "not an object": (b"[]", {}, Malformed),
    "null": (b"null", {}, Malformed),
    "wrong type": (b'{"text": {"a": 1}}', {}, Malformed),
    "NaN": (b'{"number": NaN}', {}, Malformed),
    "endless number": (b'{"number": 1' + b"0" * 5_000 + b"}", {}, Malformed),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_gets_a_typed_error_and_the_next_request_is_served(buses: Buses, name: str) -> None:
    data, headers, kind = BAD[name]
    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server)
    with pytest.raises(AntiphonError) as caught:
        await ask_raw(asker, data, headers)
    assert type(caught.value) is kind
    assert len(caught.value.text) <= 1_000
    assert server.counters.refused == {kind.code: 1}
    assert (await asker.ask(Tell(text="next"))).text == "next"


@pytest.mark.parametrize(
    ("data", "headers", "text"),
    [
        (b"", None, "nothing"),
        (b'{"text": "a", "unknown": {"b": [1, 2]}}', {TYPE: "Tell/1.7", "X-Other": "y"}, "a"),
        (b'{"text": "a", "text": "b"}', {BUDGET: "99999999"}, "b"),
    ],
    ids=["empty", "unknown fields and a later minor version", "a key twice, a huge budget"],
)
async def test_odd_but_legal_input_is_served(buses: Buses, data: bytes, headers: Headers | None, text: str) -> None:
    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server)
    assert (await ask_raw(asker, data, headers)).text == text


async def test_more_than_the_server_takes_is_refused_before_it_is_sent(buses: Buses) -> None:
    async def serving(call: Call[Tell]) -> None:
        await call.answer(Told(text="x" * (1024 * 1024)))

    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server, serving=serving)
    assert asker.transport.payload_max == 1024 * 1024
    with pytest.raises(Oversize):
        await asker.ask_bytes(subject(asker, caller="web"), b"x" * (1024 * 1024 + 1), budget_ms=1_000)
    with pytest.raises(Oversize):
        await asker.ask(Tell(), budget_ms=5_000)  # the answer is, and its asker is told


async def test_an_illegal_name_is_refused_by_the_asker_and_by_the_server(buses: Buses) -> None:
    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server)
    for name in ("*", "a.b", "", "A", "a" * 64, "a\n", ">"):
        with pytest.raises(InvalidName):
            subject(asker, caller=name)
    to = subject(asker, caller="web").removesuffix("web") + "Web"
    inbox = "_I.Web.s"
    heard: list[Headers | None] = []

    async def hear(delivery: Delivery) -> None:
        heard.append(delivery.headers)

    await asker.transport.subscribe(inbox + ".>", hear)
    await asker.transport.publish(to, GOOD, reply=inbox + ".1")
    await until(lambda: heard)
    assert heard[0] is not None
    assert heard[0][ERROR_CODE] == "invalid_name"


async def test_an_illegal_caller_cannot_aim_the_refusal_at_somebody(buses: Buses) -> None:
    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server)
    victim: list[bytes] = []

    async def hear(delivery: Delivery) -> None:
        victim.append(delivery.data)

    await asker.transport.subscribe(f"{asker.prefix}.victim", hear)
    to = subject(asker, caller="web").removesuffix("web") + "Web"
    await asker.transport.publish(to, GOOD, reply=f"{asker.prefix}.victim")
    await until(lambda: server.counters.refused or server.counters.laundered)
    await asker.ask(Tell())
    await asker.transport.flush()
    assert victim == []


# -- identity in subjects


async def test_a_reply_outside_the_callers_inbox_is_dropped_and_counted(buses: Buses) -> None:
    served: list[str] = []

    async def serving(call: Call[Tell]) -> None:
        served.append(call.caller)
        await echo(call)

    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server, serving=serving)
    to = subject(asker, caller="web")
    for reply in ("_I.other.s.t", "_I.webb.s.t", "_I.web", f"{asker.prefix}.v1.node.a.b.search", "_INBOX.x"):
        await asker.transport.publish(to, GOOD, reply=reply)
    await asker.transport.publish(to, GOOD)  # as the server's own acknowledgements come
    await asker.ask(Tell())
    assert server.counters.laundered == 6
    assert served == ["web"]


async def test_lane_messages_without_a_masters_inbox_are_dropped_and_counted(buses: Buses) -> None:
    served: list[str] = []

    async def serving(call: Call[TellLane]) -> None:
        served.append(call.message.text)
        await echo(call)

    master, web, node = await buses.open("master-1"), await buses.open("web"), await buses.open("blog")
    await serve(node, TellLane, serving, node="blog", instance="one")
    to = subject(node, TellLane, node="blog", instance="one")
    for reply in ("", "_I.web.s.t", "_I.masters.s.t", "_I.blog.s.t", "_I.master", "_I.master.s", f"{node.prefix}.x"):
        await web.transport.publish(to, GOOD, reply=reply)
    await web.transport.flush()
    assert (await master.ask(TellLane(text="ok"), node="blog", instance="one")).text == "ok"
    assert served == ["ok"]
    assert node.counters.laundered == 7


# -- gather


async def lanes(buses: Buses, count: int, serving: Any = echo) -> list[Bus]:
    nodes = [await buses.open(f"n{at}") for at in range(count)]
    for at, node in enumerate(nodes):
        await serve(node, TellLane, serving, node=f"n{at}", instance="i")
    return nodes


async def test_a_gather_hears_each_answer_by_the_slot_of_its_question(buses: Buses) -> None:
    master = await buses.open("master")
    nodes = await lanes(buses, 5)
    slots = Slots()
    gather = master.gather(slots)
    for turn in range(40):
        for at in range(6):  # the sixth is nobody
            to = subject(master, TellLane, node=f"n{at}", instance="i")
            assert await gather.ask(to, encode(TellLane(text=f"{turn}.{at}"))) == turn * 6 + at
    await until(lambda: len(slots) == 240)
    gather.close()
    for slot in range(240):
        if slot % 6 == 5:
            assert type(slots.errors[slot]) is NoResponders
        else:
            assert orjson.loads(slots.data[slot])["text"] == f"{slot // 6}.{slot % 6}"
    assert master._waiting == {}
    assert (master.counters.late, master.counters.strays) == (0, 0)
    assert all(node.counters.laundered == 0 for node in nodes)


async def test_strays_second_answers_and_late_ones_are_dropped_and_counted(buses: Buses) -> None:
    master, node = await buses.open("master"), await buses.open("n0")
    asked: list[str] = []

    async def hear(delivery: Delivery) -> None:
        asked.append(delivery.reply)

    to = subject(master, TellLane, node="n0", instance="i")
    await node.transport.subscribe(to, hear)
    await node.transport.flush()
    slots = Slots()
    gather = master.gather(slots)
    await gather.ask(to, GOOD)
    await gather.ask(to, GOOD)
    await until(lambda: len(asked) == 2)
    first, second = asked
    upper = master.inbox_dot + first.rpartition(".")[2].upper()
    for guess in (first[:-1], first + "0", upper, master.inbox_dot + "0" * 32, master.inbox_dot + "a.b.c"):
        await node.transport.publish(guess, b"guessed")
    await until(lambda: master.counters.strays == 5)
    assert len(slots) == 0
    await node.transport.publish(first, b"one")
    await node.transport.publish(first, b"again")
    await until(lambda: master.counters.strays == 6)
    assert slots.data == {0: b"one"}
    gather.close()
    await node.transport.publish(second, b"late")
    await until(lambda: master.counters.late == 1)
    await node.transport.publish(second, b"later still")
    await until(lambda: master.counters.strays == 7)
    assert slots.data == {0: b"one"}
    assert master._waiting == {}
    assert len(master._late) == 0


async def test_tokens_given_up_are_remembered_up_to_a_bound(buses: Buses) -> None:
    master, node = await buses.open("master", bounds=Bounds(late_tokens_max=3)), await buses.open("n0")
    asked: list[str] = []

    async def hear(delivery: Delivery) -> None:
        asked.append(delivery.reply)

    to = subject(master, TellLane, node="n0", instance="i")
    await node.transport.subscribe(to, hear)
    await node.transport.flush()
    gather = master.gather(Slots())
    for _ in range(5):
        await gather.ask(to, GOOD)
    gather.close()
    await until(lambda: len(asked) == 5)
    assert len(set(asked)) == 5
    for reply in asked:
        await node.transport.publish(reply, b"late")
    await until(lambda: master.counters.late + master.counters.strays == 5)
    assert (master.counters.late, master.counters.strays) == (3, 2)


async def test_a_bug_in_a_receiver_ends_only_its_own_gather(buses: Buses) -> None:
    master = await buses.open("master")
    await lanes(buses, 1)
    to = subject(master, TellLane, node="n0", instance="i")
    bugs: list[Exception] = []

    def buggy(slot: int, data: bytes, error: AntiphonError | None) -> None:
        raise LookupError("a bug")

    broken, slots = master.gather(buggy), Slots()
    broken.bug = bugs.append
    sound = master.gather(slots)
    await broken.ask(to, GOOD)
    await sound.ask(to, GOOD)
    await until(lambda: bugs and slots.data)
    assert isinstance(bugs[0], LookupError)
    assert (await master.ask(TellLane(text="on"), node="n0", instance="i")).text == "on"
    broken.close()
    sound.close()


async def test_many_questions_at_once_each_get_their_own_answer(buses: Buses) -> None:
    asker, server = await buses.open("web"), await buses.open("master")
    await serve(server)
    answers = await asyncio.gather(*(asker.ask(Tell(text=str(at))) for at in range(300)))
    assert [answer.text for answer in answers] == [str(at) for at in range(300)]


async def test_an_asker_that_is_cancelled_leaves_nothing_behind(buses: Buses) -> None:
    asker, server = await buses.open("web"), await buses.open("master")
    release = asyncio.Event()

    async def slow(call: Call[Tell]) -> None:
        await release.wait()
        await echo(call)

    await serve(server, serving=slow)
    task = asyncio.ensure_future(asker.ask(Tell()))
    await until(lambda: asker._waiting)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert asker._waiting == {}
    release.set()
    await until(lambda: asker.counters.late == 1)


# -- receivers


async def test_a_bug_in_a_subscriber_loses_its_message_and_not_the_subscription(buses: Buses) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    heard: list[bytes] = []

    async def hear(delivery: Delivery) -> None:
        if delivery.data == b"poison":
            raise LookupError("a bug")
        heard.append(delivery.data)

    await hearer.transport.subscribe(f"{hearer.prefix}.x", hear)
    await hearer.transport.flush()
    for data in (b"1", b"poison", b"2"):
        await teller.transport.publish(f"{hearer.prefix}.x", data)
    await until(lambda: len(heard) == 2)
    assert heard == [b"1", b"2"]


async def test_closing_delivers_what_had_arrived_and_then_refuses(buses: Buses) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    heard: list[int] = []
    first = asyncio.Event()

    async def hear(delivery: Delivery) -> None:
        first.set()
        await asyncio.sleep(0.001)
        heard.append(Rang.model_validate_json(delivery.data).number)

    await hearer.transport.subscribe(Rang.route.template.pattern(prefix=hearer.prefix), hear)
    await hearer.transport.flush()
    for number in range(50):
        await teller.publish(Rang(number=number))
    await teller.transport.flush()
    await first.wait()
    await hearer.close()
    assert heard == list(range(50))
    assert not hearer.transport.is_connected
    with pytest.raises(NotConnected):
        await hearer.publish(Rang())
    with pytest.raises(NotConnected):
        await hearer.ask(Tell(), budget_ms=1_000)
    await hearer.close()  # twice is once


async def test_a_drained_subscription_takes_no_more(buses: Buses) -> None:
    asker, server = await buses.open("web"), await buses.open("master")
    subscription = await server.serve(Tell, in_a_task(echo))
    await server.transport.flush()
    await asker.ask(Tell())
    await subscription.drain()
    with pytest.raises(NoResponders):
        await asker.ask(Tell())
    await subscription.drain()  # twice is once


# -- key-values


def bucket() -> Bucket:
    return Bucket(f"test-{secrets.token_hex(6)}", "a test", value_bytes_max=1_024, bytes_max=64 * 1024)


async def test_key_values_get_put_update_and_delete(buses: Buses) -> None:
    declared = bucket()
    one = await (await buses.open("master-1")).transport.key_value(declared)
    two = await (await buses.open("master-2")).transport.key_value(declared)
    assert await one.get("a.b") is None
    first = await one.put("a.b", b"1")
    assert await two.get("a.b") == Entry("a.b", b"1", first)
    assert await two.update("a.b", b"x", first + 1) is None
    assert await two.update("a.b", b"x", 0) is None
    second = await two.update("a.b", b"2", first)
    assert second is not None
    assert second > first
    assert await one.update("a.b", b"late", first) is None
    assert await one.get("a.b") == Entry("a.b", b"2", second)
    await one.delete("a.b")
    await one.delete("a.b")
    await one.delete("never-there")
    assert await two.get("a.b") is None
    third = await two.update("a.b", b"3", 0)
    assert third is not None
    assert third > second
    assert await one.update("c", b"new", 0) is not None
    assert await one.update("d", b"new", 5) is None
    assert await one.get("d") is None


async def test_of_many_who_update_at_once_exactly_one_wins(buses: Buses) -> None:
    declared = bucket()
    holds = [await (await buses.open(f"master-{at}")).transport.key_value(declared) for at in range(4)]
    base = await holds[0].put("k", b"0")
    won = await asyncio.gather(*(hold.update("k", str(at).encode(), base) for at, hold in enumerate(holds)))
    winners = [at for at, revision in enumerate(won) if revision is not None]
    assert len(winners) == 1
    entry = await holds[0].get("k")
    assert entry is not None
    assert entry.value == str(winners[0]).encode()


async def test_a_watch_is_complete_when_it_returns_and_then_sees_every_change_in_order(buses: Buses) -> None:
    declared = bucket()
    writer = await (await buses.open("master-1")).transport.key_value(declared)
    watcher = await (await buses.open("master-2")).transport.key_value(declared)
    for number in range(20):
        await writer.put(f"k{number}", b"v")
    await writer.put("k0", b"v2")
    await writer.delete("k1")
    seen: list[Entry] = []
    watch = await watcher.watch(seen.append)
    assert {entry.key: entry.value for entry in seen} == {f"k{n}": b"v" for n in range(2, 20)} | {"k0": b"v2"}
    seen.clear()
    # one at a time: a bucket keeps the last value only, so of changes that come at once the last one may be all to see
    await writer.put("new", b"1")
    await until(lambda: len(seen) == 1)
    await writer.put("new", b"2")
    await until(lambda: len(seen) == 2)
    await writer.delete("new")
    await until(lambda: len(seen) == 3)
    await writer.delete("k2")
    await until(lambda: len(seen) == 4)
    assert [(entry.key, entry.value) for entry in seen] == [("new", b"1"), ("new", b"2"), ("new", None), ("k2", None)]
    assert [bus.counters.strays for bus in buses.opened] == [0, 0], "answers to the transport itself are no strays"
    assert [entry.revision for entry in seen] == sorted(entry.revision for entry in seen)
    await watch.stop()
    await writer.put("after", b"1")
    await writer.get("after")
    assert len(seen) == 4
    await watch.stop()


async def test_after_a_burst_of_changes_a_watch_has_the_last_state(buses: Buses) -> None:
    declared = bucket()
    writer = await (await buses.open("master-1")).transport.key_value(declared)
    watcher = await (await buses.open("master-2")).transport.key_value(declared)
    state: dict[str, bytes] = {}

    def changed(entry: Entry) -> None:
        if entry.value is None:
            state.pop(entry.key, None)
        else:
            state[entry.key] = entry.value

    watch = await watcher.watch(changed)
    wanted: dict[str, bytes] = {}
    for number in range(200):
        key, value = f"k{number % 7}", str(number).encode()
        if number % 5 == 4:
            await writer.delete(key)
            wanted.pop(key, None)
        else:
            await writer.put(key, value)
            wanted[key] = value
    await until(lambda: state == wanted)
    await watch.stop()


async def test_a_watch_of_an_empty_bucket_is_complete_at_once(buses: Buses) -> None:
    hold = await (await buses.open("master")).transport.key_value(bucket())
    seen: list[Entry] = []
    watch = await hold.watch(seen.append)
    assert seen == []
    await hold.put("a", b"1")
    await until(lambda: seen)
    await watch.stop()


async def test_a_watch_of_a_bucket_in_which_all_is_deleted_is_complete_at_once(buses: Buses) -> None:
    hold = await (await buses.open("master")).transport.key_value(bucket())
    await hold.put("a", b"1")
    await hold.delete("a")
    seen: list[Entry] = []
    watch = await hold.watch(seen.append)
    assert seen == []
    await watch.stop()


# -- a server that goes away


async def test_while_the_server_is_away_nothing_hangs_and_afterwards_all_works_again(losable: Buses) -> None:
    asker, server = await losable.open("web"), await losable.open("master")
    held = asyncio.Event()

    async def serving(call: Call[Tell]) -> None:
        if call.message.text == "hold":
            held.set()
            return
        await echo(call)

    await serve(server, serving=serving)
    drained = await server.serve(TellAll, in_a_task(echo))
    await server.transport.flush()
    await asker.ask(TellAll())
    await drained.drain()
    pending = asyncio.ensure_future(asker.ask(Tell(text="hold"), budget_ms=700))
    await held.wait()
    await losable.fabric.lose()
    began = asyncio.get_running_loop().time()
    assert not asker.transport.is_connected
    with pytest.raises(NotConnected):
        await asker.publish(Rang())
    with pytest.raises(NotConnected):
        await asker.ask(Tell(), budget_ms=5_000)
    assert asyncio.get_running_loop().time() - began < 2, "it is known at once, not after the budget"
    with pytest.raises(OutOfBudget):
        await pending
    await losable.fabric.bring_back()
    assert (await asker.ask(Tell(text="back"))).text == "back"
    with pytest.raises(NoResponders):
        await asker.ask(TellAll())  # what was drained stays drained
    assert asker._waiting == {}


async def test_a_watch_sees_what_changed_while_it_was_away(losable: Buses) -> None:
    declared = bucket()
    watcher = await losable.open("master-1")
    hold = await watcher.transport.key_value(declared)
    for key in ("kept", "changed", "deleted"):
        await hold.put(key, b"1")
    state: dict[str, bytes] = {}
    reports: list[Entry] = []

    def changed(entry: Entry) -> None:
        reports.append(entry)
        if entry.value is None:
            state.pop(entry.key, None)
        else:
            state[entry.key] = entry.value

    await hold.watch(changed)
    assert state == {"kept": b"1", "changed": b"1", "deleted": b"1"}
    await losable.fabric.lose()
    with pytest.raises(NotConnected):
        await hold.put("kept", b"2")
    with pytest.raises(NotConnected):
        await hold.get("kept")
    reports.clear()
    await losable.fabric.bring_back()
    writer = await (await losable.open("master-2")).transport.key_value(declared)
    await writer.delete("deleted")
    await writer.put("changed", b"2")
    await writer.put("new", b"1")
    await until(lambda: state == {"kept": b"1", "changed": b"2", "new": b"1"})
    await writer.put("later", b"1")
    await until(lambda: "later" in state)
    assert [entry for entry in reports if entry.key == "kept"] == [], "what did not change is not reported again"


async def test_closing_while_the_server_is_away_does_not_hang(losable: Buses) -> None:
    server = await losable.open("master")
    subscription = await server.serve(Tell, in_a_task(echo))
    hold = await server.transport.key_value(bucket())
    await hold.watch(lambda _entry: None)
    await losable.fabric.lose()
    began = asyncio.get_running_loop().time()
    await subscription.drain()
    await server.close()
    assert asyncio.get_running_loop().time() - began < 3
    gc.collect()  # a task that was never awaited would be an unraisable error here


async def test_a_key_is_dropped_at_its_revision_only(buses: Buses) -> None:
    bus = await buses.open("master")
    held = await bus.transport.key_value(bucket())
    assert await held.drop("a", 7) is None, "what is not there is not dropped"
    revision = await held.put("a", b"1")
    assert await held.drop("a", revision + 1) is None
    assert (await held.get("a")) is not None
    dropped = await held.drop("a", revision)
    assert dropped is not None
    assert dropped > revision
    assert await held.get("a") is None
    assert await held.update("a", b"2", 0) is not None, "a dropped key counts as none"
