"""The laws of the short ways: taps, which take messages as they are read, and bursts to many subjects at once."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from structlog.testing import CapturingLogger

from antiphon.bus.bus import Bus
from antiphon.bus.codec import ERROR, ERROR_CODE
from antiphon.bus.protocol import NO_RESPONDERS, STATUS, Delivery, Headers
from antiphon.errors import NoResponders, NotAllowed, NotConnected, Oversize
from fabrics import Buses, Slots, until


class Taken:
    """What a tap took, in order."""

    def __init__(self) -> None:
        self.all: list[tuple[str, bytes, Headers | None]] = []

    def __call__(self, subject: str, data: bytes, headers: Headers | None) -> None:
        if data == b"poison":
            raise LookupError("a bug")
        self.all.append((subject, data, headers))

    @property
    def data(self) -> list[bytes]:
        return [data for _, data, _ in self.all]


async def echoes(bus: Bus, subject: str, name: bytes = b"") -> None:
    """Answer whatever is asked on a subject with what was asked."""

    async def answer(delivery: Delivery) -> None:
        way = bus.transport.way_of(delivery)
        await bus.transport.publish(delivery.reply, name + delivery.data, via=way)

    await bus.transport.subscribe(subject, answer)
    await bus.transport.flush()


async def holds(bus: Bus, subject: str) -> list[str]:
    """Answer nothing; return the replies that are waited for."""
    replies: list[str] = []

    async def keep(delivery: Delivery) -> None:
        replies.append(delivery.reply)

    await bus.transport.subscribe(subject, keep)
    await bus.transport.flush()
    return replies


# -- taps


async def test_a_tap_takes_every_message_once_in_order_with_its_subject_and_headers(buses: Buses) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    taken, base = Taken(), f"{hearer.prefix}.x"
    await hearer.transport.tap(f"{base}.>", taken)
    await hearer.transport.flush()
    for number in range(300):
        headers = {"Antiphon-Request": f"r-{number}"} if number % 3 == 0 else None
        await teller.transport.publish(f"{base}.{number}", str(number).encode(), headers=headers)
    await until(lambda: len(taken.all) == 300)
    for number, (subject, data, found) in enumerate(taken.all):
        assert (subject, data) == (f"{base}.{number}", str(number).encode())
        assert dict(found or {}) == ({"Antiphon-Request": f"r-{number}"} if number % 3 == 0 else {})


async def test_a_burst_between_publishes_keeps_its_place(buses: Buses) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    taken, base = Taken(), f"{hearer.prefix}.x"
    await hearer.transport.tap(f"{base}.>", taken)
    await hearer.transport.flush()
    for number in range(50):
        await teller.transport.publish(f"{base}.before", str(number).encode())
        await teller.transport.publish_each([(f"{base}.{at}", f"{base}.r") for at in range(5)], str(number).encode())
    await until(lambda: len(taken.all) == 300)
    tokens = ("before", "0", "1", "2", "3", "4")
    wanted = [(f"{base}.{token}", str(number).encode()) for number in range(50) for token in tokens]
    assert [(subject, data) for subject, data, _ in taken.all] == wanted


async def test_a_tap_hears_that_nobody_listens(buses: Buses) -> None:
    bus = await buses.open("web")
    taken = Taken()
    await bus.transport.tap(f"{bus.inbox}.mine.>", taken)
    await bus.transport.publish(f"{bus.prefix}.nobody", b"", reply=f"{bus.inbox}.mine.1")
    await until(lambda: taken.all)
    [(subject, data, headers)] = taken.all
    assert (subject, data) == (f"{bus.inbox}.mine.1", b"")
    assert headers is not None
    assert headers[STATUS] == NO_RESPONDERS


@pytest.fixture
def logged() -> CapturingLogger:
    kept = CapturingLogger()
    structlog.configure(logger_factory=lambda *_: kept)
    return kept


async def test_an_exception_in_a_taker_loses_that_message_only(buses: Buses, logged: CapturingLogger) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    taken, other = Taken(), Taken()
    subject = f"{hearer.prefix}.x"
    await hearer.transport.tap(subject, taken)
    await hearer.transport.tap(f"{hearer.prefix}.y", other)
    await hearer.transport.flush()
    for data in (b"1", b"poison", b"2", b"poison", b"3"):
        await teller.transport.publish(subject, data)
    await teller.transport.publish(f"{hearer.prefix}.y", b"4")
    await until(lambda: len(taken.all) == 3 and other.all)
    assert taken.data == [b"1", b"2", b"3"]
    assert other.data == [b"4"]
    events = [call.kwargs.get("event") or call.args[0] for call in logged.calls]
    assert sum("bus.receiver_bug" in str(event) for event in events) == 2


async def test_a_drained_tap_has_taken_what_had_arrived_and_takes_no_more(buses: Buses) -> None:
    teller, hearer = await buses.open("node-a"), await buses.open("web")
    taken, kept = Taken(), Taken()
    subject = f"{hearer.prefix}.x"
    tap = await hearer.transport.tap(subject, taken)
    await hearer.transport.tap(f"{hearer.prefix}.y", kept)
    await hearer.transport.flush()
    for number in range(100):
        await teller.transport.publish(subject, str(number).encode())
    await teller.transport.flush()
    await tap.drain()
    assert taken.data == [str(number).encode() for number in range(100)]
    await teller.transport.publish(subject, b"after")
    await teller.transport.publish(f"{hearer.prefix}.y", b"y")
    await until(lambda: kept.all)
    assert len(taken.all) == 100
    await tap.drain()  # twice is once


async def test_a_tap_is_back_after_the_server_was_away(losable: Buses) -> None:
    bus = await losable.open("web")
    taken = Taken()

    async def received(delivery: Delivery) -> None:
        taken(delivery.subject, delivery.data, delivery.headers)

    await bus.transport.tap(f"{bus.prefix}.x", taken)
    gone = await bus.transport.tap(f"{bus.prefix}.gone", taken)
    await bus.transport.flush()
    await losable.fabric.lose()
    await bus.transport.tap(f"{bus.prefix}.y", taken)
    await bus.transport.subscribe(f"{bus.prefix}.z", received)
    await gone.drain()
    await losable.fabric.bring_back()
    for token in ("gone", "x", "y", "z"):
        await bus.transport.publish(f"{bus.prefix}.{token}", token.encode())
    await until(lambda: len(taken.all) == 3)
    assert sorted(taken.data) == [b"x", b"y", b"z"]


# -- bursts


async def test_a_burst_asks_each_and_hears_each_by_its_slot(buses: Buses) -> None:
    master = await buses.open("master")
    subjects = [f"{master.prefix}.n{at}" for at in range(6)]
    for at in range(5):  # the sixth is nobody
        await echoes(await buses.open(f"n{at}"), subjects[at], name=f"{at}:".encode())
    slots = Slots()
    gather = master.gather(slots)
    assert await gather.ask(subjects[0], b"alone") == 0
    await gather.ask_each(subjects, b"each")
    assert await gather.ask(subjects[1], b"after") == 7
    await until(lambda: len(slots) == 8)
    gather.close()
    wanted = {0: b"0:alone", **{1 + at: f"{at}:each".encode() for at in range(5)}, 7: b"1:after"}
    assert slots.data == wanted
    assert type(slots.errors[6]) is NoResponders
    assert master._waiting == {}
    assert (master.counters.late, master.counters.strays) == (0, 0)


async def test_an_empty_burst_asks_nobody(buses: Buses) -> None:
    master = await buses.open("master")
    await master.transport.publish_each([], b"")
    gather = master.gather(Slots())
    await gather.ask_each([], b"")
    await master.transport.flush()
    gather.close()


async def test_what_is_too_large_reaches_every_slot_and_is_not_sent(buses: Buses) -> None:
    master = await buses.open("master")
    heard = await holds(await buses.open("n0"), f"{master.prefix}.n0")
    slots = Slots()
    gather = master.gather(slots)
    await gather.ask_each([f"{master.prefix}.n0"] * 3, b"x" * (master.transport.payload_max + 1))
    assert {slot: type(error) for slot, error in slots.errors.items()} == dict.fromkeys(range(3), Oversize)
    with pytest.raises(Oversize):
        await master.transport.publish_each([(f"{master.prefix}.n0", "")], b"x" * (master.transport.payload_max + 1))
    await gather.ask_each([f"{master.prefix}.n0"], b"x" * master.transport.payload_max)
    await until(lambda: heard)
    assert len(heard) == 1, "and the connection goes on"
    gather.close()


async def test_headers_count_as_the_server_counts_them(buses: Buses) -> None:
    bus = await buses.open("master")
    taken = Taken()
    await bus.transport.tap(f"{bus.prefix}.x", taken)
    await bus.transport.flush()
    room = bus.transport.payload_max
    with pytest.raises(Oversize):
        await bus.transport.publish(f"{bus.prefix}.x", b"x" * room, headers={"Antiphon-Request": "ü" * 1_000})
    await bus.transport.publish(f"{bus.prefix}.x", b"x" * (room - 4_096), headers={"Antiphon-Request": "ü" * 1_000})
    await until(lambda: taken.all)
    assert len(taken.data[0]) == room - 4_096
    assert bus.transport.losses == 0


async def test_without_a_connection_every_slot_hears_it_at_once(losable: Buses) -> None:
    master = await losable.open("master")
    await echoes(await losable.open("n0"), f"{master.prefix}.n0")
    slots = Slots()
    gather = master.gather(slots)
    await gather.ask_each([f"{master.prefix}.n0"], b"before")
    await until(lambda: slots.data)
    await losable.fabric.lose()
    began = asyncio.get_running_loop().time()
    await gather.ask_each([f"{master.prefix}.n0"] * 3, b"away")
    assert {slot: type(error) for slot, error in slots.errors.items()} == dict.fromkeys((1, 2, 3), NotConnected)
    assert asyncio.get_running_loop().time() - began < 1
    assert master._waiting == {}
    await losable.fabric.bring_back()
    await gather.ask_each([f"{master.prefix}.n0"], b"after")
    await until(lambda: len(slots) == 5)
    assert slots.data == {0: b"before", 4: b"after"}, "what was refused is not sent later"
    gather.close()


async def test_a_closed_gather_counts_as_late_what_was_asked_in_a_burst(buses: Buses) -> None:
    master, node = await buses.open("master"), await buses.open("n0")
    replies = await holds(node, f"{master.prefix}.n0")
    slots = Slots()
    gather = master.gather(slots)
    await gather.ask_each([f"{master.prefix}.n0"] * 3, b"")
    await until(lambda: len(replies) == 3)
    assert len(set(replies)) == 3
    await node.transport.publish(replies[1], b"in time")
    await until(lambda: slots.data)
    gather.close()
    for reply in replies:
        await node.transport.publish(reply, b"late")
    await until(lambda: master.counters.late + master.counters.strays == 3)
    assert (master.counters.late, master.counters.strays) == (2, 1), "two had not been answered"
    assert slots.data == {1: b"in time"}
    assert master._waiting == {}


async def test_refusals_arrive_in_a_burst_as_their_own_class(buses: Buses) -> None:
    master, node = await buses.open("master"), await buses.open("n0")

    async def refuse(delivery: Delivery) -> None:
        headers = {ERROR_CODE: NotAllowed.code, ERROR: "no"}
        await node.transport.publish(delivery.reply, b"", headers=headers, via=node.transport.way_of(delivery))

    await node.transport.subscribe(f"{master.prefix}.n0", refuse)
    await node.transport.flush()
    slots = Slots()
    gather = master.gather(slots)
    await gather.ask_each([f"{master.prefix}.n0"] * 2, b"")
    await until(lambda: len(slots) == 2)
    assert [type(slots.errors[at]) for at in range(2)] == [NotAllowed, NotAllowed]
    gather.close()


# -- ways


async def test_an_answer_may_take_the_way_of_its_request_and_any_way_that_is_none(buses: Buses) -> None:
    asker, node = await buses.open("master"), await buses.open("n0")
    ways = iter([None, object(), "way"])

    async def answer(delivery: Delivery) -> None:
        way = next(ways) if delivery.data == b"other" else node.transport.way_of(delivery)
        await node.transport.publish(delivery.reply, b"answered", via=way)

    await node.transport.subscribe(f"{asker.prefix}.n0", answer)
    await node.transport.flush()
    for data in (b"", b"other", b"other", b"other"):
        assert await asker.ask_bytes(f"{asker.prefix}.n0", data, budget_ms=5_000) == b"answered"


async def test_a_renewal_without_a_token_changes_nothing(buses: Buses) -> None:
    teller, bus = await buses.open("node-a"), await buses.open("web")
    taken = Taken()
    await bus.transport.tap(f"{bus.prefix}.x", taken)
    await bus.transport.flush()
    for number in range(3):
        await bus.transport.renew()
        await teller.transport.publish(f"{bus.prefix}.x", str(number).encode())
    await until(lambda: len(taken.all) == 3)
    await bus.transport.flush()
    assert taken.data == [b"0", b"1", b"2"], "once each"
    assert bus.transport.losses == 0
