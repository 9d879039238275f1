"""What anybody can send to a real nats-server with a plain socket, and what must not end a connection of ours."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator

import pytest

from antiphon.bus.bus import Call
from antiphon.bus.protocol import Bucket, Delivery, Entry
from antiphon.errors import NoResponders, OutOfBudget
from antiphon.messages.registry import NodeList
from fabrics import Buses, NatsFabric, until


@pytest.fixture
async def buses(nats_server: str) -> AsyncIterator[Buses]:
    opened = Buses(NatsFabric(nats_server))
    yield opened
    await opened.close()


async def send_raw(url: str, *commands: bytes) -> None:
    """Speak the protocol by hand, and return when the server has taken all of it."""
    host, _, port = url.removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + b"".join(commands) + b"PING\r\n")
        while (line := await reader.readline()) != b"PONG\r\n":
            assert line.startswith((b"INFO", b"PING")), line
    finally:
        writer.close()
        await writer.wait_closed()


def message(subject: bytes, headers: bytes, reply: bytes = b"") -> bytes:
    sizes = b"%d %d" % (len(headers), len(headers) + 2)
    return b"HPUB " + subject + b" " + (reply + b" " if reply else b"") + sizes + b"\r\n" + headers + b"{}\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        b"NATS/1.0 503 \xff\r\n\r\n",
        b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
        b"NATS/1.0",
        b"NATS/1.0\r\n",
        b"NATS/1.0 \r\n\r\n",
        b"no headers at all\r\n\r\n",
        b"NATS/1.0\r\n: \r\nAntiphon-Budget\r\nAntiphon-Budget:\r\n\r\n",
        b"x",
    ],
)
async def test_unreadable_headers_do_not_end_the_connection(buses: Buses, nats_server: str, headers: bytes) -> None:
    bus = await buses.open("web")
    heard: list[bytes] = []

    async def hear(delivery: Delivery) -> None:
        heard.append(delivery.data)

    subject = f"{bus.prefix}.x"
    await bus.transport.subscribe(subject, hear)
    await bus.transport.flush()
    await send_raw(nats_server, message(subject.encode(), headers), b"PUB " + subject.encode() + b" 5\r\nafter\r\n")
    await until(lambda: b"after" in heard)
    with pytest.raises(NoResponders):
        await bus.ask(NodeList(), budget_ms=5_000)


async def test_subjects_and_replies_that_are_not_utf_8_do_not_end_the_connection(
    buses: Buses, nats_server: str
) -> None:
    bus = await buses.open("web")
    heard: list[bytes] = []

    async def hear(delivery: Delivery) -> None:
        heard.append(delivery.data)

    await bus.transport.subscribe(f"{bus.prefix}.x.>", hear)
    await bus.transport.flush()
    subject = bus.prefix.encode() + b".x.y"
    await send_raw(
        nats_server,
        b"PUB " + subject + b".\xff\xfe 1\r\na\r\n",
        b"PUB " + subject + b" \xff\xfe 1\r\nb\r\n",
        b"PUB " + subject + b" 5\r\nafter\r\n",
    )
    await until(lambda: b"after" in heard)
    with pytest.raises(NoResponders):
        await bus.ask(NodeList(), budget_ms=5_000)


@pytest.mark.parametrize("space", [b"\x0b", b"\x0c", b"\x1c", b"\xc2\xa0"])
async def test_white_space_in_subjects_and_replies_does_not_end_the_connection(
    buses: Buses, nats_server: str, space: bytes
) -> None:
    bus = await buses.open("web")
    heard: list[tuple[str, str]] = []
    await bus.transport.hand(f"{bus.prefix}.hear.>", lambda one: heard.append((one.subject, one.reply)))
    await bus.transport.flush()
    subject, reply = f"{bus.prefix}.hear.".encode(), b"_I.web." + space + b"7"
    await send_raw(
        nats_server,
        b"PUB " + subject + b"a" + space + b"1 2\r\n{}\r\n",
        b"PUB " + subject + b"a " + reply + b" 2\r\n{}\r\n",
        message(subject + b"a", b"NATS/1.0\r\nA: " + b"b" * 5_000 + b"\r\n\r\n", reply),
        message(subject + b"end", b"NATS/1.0\r\n\r\n"),
    )
    await until(lambda: heard and heard[-1][0].endswith(".end"))
    assert len(heard) == 4
    assert bus.transport.losses == 0


async def test_a_reply_that_nobody_can_answer_to_is_dropped_and_counted(buses: Buses, nats_server: str) -> None:
    asker, master = await buses.open("web"), await buses.open("master")
    served: list[Call[NodeList]] = []
    await master.serve(NodeList, served.append)
    await master.transport.flush()
    subject = NodeList.route.template.subject(prefix=master.prefix, caller="web").encode()
    for data in (b"{}", b"no json"):
        await send_raw(nats_server, b"PUB %b _I.web.s.\x0b %d\r\n%b\r\n" % (subject, len(data), data))
    await until(lambda: master.counters.laundered + len(served) == 2)
    assert not served
    with pytest.raises(OutOfBudget):
        await asker.ask(NodeList(), budget_ms=50)
    assert len(served) == 1


async def test_a_flush_does_not_return_before_the_server_has_seen_a_subscription(buses: Buses) -> None:
    listener, teller = await buses.open("web"), await buses.open("node-a")
    for number in range(300):
        heard = asyncio.Event()

        async def hear(_delivery: Delivery, heard: asyncio.Event = heard) -> None:
            heard.set()

        subject = f"{listener.prefix}.flush.{number}"
        subscription = await listener.transport.subscribe(subject, hear)
        await listener.transport.flush()
        await teller.transport.publish(subject, b"")
        async with asyncio.timeout(5):
            await heard.wait()
        await subscription.drain()


async def test_a_bucket_is_made_again_when_the_server_comes_back_without_its_data(nats_fabric: NatsFabric) -> None:
    buses = Buses(nats_fabric)
    bus = await buses.open("master")
    hold = await bus.transport.key_value(Bucket("test-lost", "a test", value_bytes_max=1_024, bytes_max=65_536))
    await hold.put("a", b"1")
    state: dict[str, bytes | None] = {}

    def changed(entry: Entry) -> None:
        state[entry.key] = entry.value

    await hold.watch(changed)
    assert state == {"a": b"1"}
    await nats_fabric.lose()
    assert nats_fabric.server is not None
    shutil.rmtree(nats_fabric.server.data)
    await nats_fabric.bring_back()
    await until(lambda: state == {"a": None})
    await hold.put("b", b"2")
    await until(lambda: state == {"a": None, "b": b"2"})
    await buses.close()
