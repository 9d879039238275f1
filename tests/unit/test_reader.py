"""What a connection's reader makes of the bytes of a server, however they are cut, against nats-py's own parser."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from antiphon.bus.headers import block_of, headers_of
from antiphon.bus.protocol import Headers
from antiphon.bus.reader import LINE_BYTES_MAX, Reader

Event = tuple[Any, ...]


def stock_headers(block: bytes) -> dict[str, str]:
    """What nats-py makes of a block without a status."""
    return Client._parse_header_lines(block.removeprefix(b"NATS/1.0\r\n"))


class Heard:
    """What a parser told its client; subscriptions with an odd number are of the short way."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Headers | None = None) -> bool:
        _ = subject.decode() + reply.decode()
        if sid % 2:
            self.events.append((sid, subject, reply, data, headers))
        return sid % 2 == 1

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.events.append((sid, subject, reply, data, stock_headers(headers) if headers else None))

    async def _process_err(self, text: str) -> None:
        self.events.append(("err", text))

    async def _process_ping(self) -> None:
        self.events.append(("ping",))

    async def _process_pong(self) -> None:
        self.events.append(("pong",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.events.append(("info", info))


words = st.text("ab.\u00fc", min_size=1, max_size=9).map(str.encode)
payloads = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\r\n", b"MSG a 1 1\r\nx\r\n", b"PING\r\n", b"x" * 70_000])
)


HEADS = (
    b"NATS/1.0\r\nA: b\r\n\r\n",
    b"NATS/1.0\r\nA-b:  c : d \r\nE:\r\n\r\n",
    b"NATS/1.0\r\nA: \xc3\xbc\r\nB c: d\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n\r\n",
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    subject, sid, payload = draw(words), draw(st.integers(1, 12)), draw(payloads)
    reply = draw(st.one_of(st.none(), words))
    names = b" ".join([subject, str(sid).encode(), *([reply] if reply else [])])
    if draw(st.booleans()):
        return b"MSG %b %d\r\n%b\r\n" % (names, len(payload), payload)
    head = draw(st.sampled_from(HEADS))
    return b"HMSG %b %d %d\r\n%b%b\r\n" % (names, len(head), len(head) + len(payload), head, payload)


control = st.sampled_from(
    [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Permissions Violation'\r\n", b'INFO {"a":1}\r\n']
)
undecodable = st.just(b"MSG \xff 1 1\r\nx\r\n")


async def parsed(parser: Any, chunks: list[bytes]) -> None:
    for chunk in chunks:
        await parser.parse(chunk)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True) if start < end]


@given(
    st.lists(st.one_of(messages(), messages(), control, undecodable), max_size=12), st.lists(st.integers(0), max_size=9)
)
def test_however_the_bytes_are_cut_each_message_is_heard_once_in_order(stream: list[bytes], places: list[int]) -> None:
    data = b"".join(stream)
    ours, stock = Heard(), Heard()
    asyncio.run(parsed(Reader(ours), cut(data, places)))
    asyncio.run(parsed(Parser(stock), [data]))
    assert ours.events == stock.events


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 1 x\r\n",
        b"MSG a one 1\r\nx\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 b c 1\r\nx\r\n",
        b"what\r\n",
        b"what" + b"x" * 5_000 + b"\r\n",
        b"HMSG a 1 1 x\r\n",
        b"HMSG a 1 x 1\r\nx\r\n",
    ],
)
def test_what_no_server_says_ends_the_connection(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        asyncio.run(parsed(Reader(Heard()), [line]))


def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    with pytest.raises(ProtocolError):
        asyncio.run(parsed(Reader(Heard()), [b"INFO " + b"x" * (LINE_BYTES_MAX // 2)] * 3))


def test_a_new_connection_begins_anew() -> None:
    heard = Heard()
    reader = Reader(heard)
    asyncio.run(parsed(reader, [b"MSG a 1 10\r\nhalf"]))
    reader.reset()
    asyncio.run(parsed(reader, [b"MSG a 1 1\r\nx\r\n"]))
    assert heard.events == [(1, b"a", b"", b"x", None)]


names = st.text("Ab-_1", min_size=1, max_size=5)
values = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), max_size=9)


@given(st.dictionaries(names, values, min_size=1, max_size=4))
def test_a_block_says_what_nats_py_reads_of_it(headers: dict[str, str]) -> None:
    block = block_of(headers)
    assert block is not None
    read = headers_of(block)
    assert read is None or read == stock_headers(block)
    assert stock_headers(block) == {name: value.encode().strip().decode() for name, value in headers.items()}


@pytest.mark.parametrize(
    "headers", [{"a b": ""}, {"": "x"}, {"a:": "x"}, {"a": "x\r\nb: y"}, {"a": "x\n"}, {"\u00fc": "x"}]
)
def test_what_would_be_read_as_something_else_is_not_written(headers: dict[str, str]) -> None:
    assert block_of(headers) is None


@pytest.mark.parametrize(
    "status", [b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 100 Idle Heartbeat\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n"]
)
def test_a_block_with_a_status_is_left_to_nats_py(status: bytes) -> None:
    assert headers_of(status) is None


@pytest.mark.parametrize("space", [b"\x0b", b"\x0c", b"\x1c"])
def test_white_space_that_the_server_lets_through_is_a_part_of_the_word_it_stands_in(space: bytes) -> None:
    heard = Heard()
    subject, reply = b"a" + space + b"1", b"r" + space + b"7"
    head = b"NATS/1.0\r\n\r\n"
    stream = b"".join(
        [
            b"MSG %b 1 1\r\nx\r\n" % subject,
            b"MSG %b 1 %b 1\r\nx\r\n" % (subject, reply),
            b"MSG a 2 %b 1\r\nx\r\n" % reply,
            b"HMSG a 1 %b %d %d\r\n%b%b\r\n" % (reply, len(head), len(head) + 9_000, head, b"y" * 9_000),
            b"PING\r\n",
        ]
    )
    asyncio.run(parsed(Reader(heard), [stream]))
    assert heard.events == [
        (1, subject, b"", b"x", None),
        (1, subject, reply, b"x", None),
        (2, b"a", reply, b"x", None),
        (1, b"a", reply, b"y" * 9_000, {}),
        ("ping",),
    ]
