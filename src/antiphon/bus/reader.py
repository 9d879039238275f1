"""What a server sends, as it is read: whole messages are handed over at once, all else is left to nats-py's parser."""

from __future__ import annotations

from typing import Final, Protocol

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from antiphon.bus.headers import headers_of
from antiphon.bus.protocol import Headers

MESSAGES: Final = (b"MSG ", b"HMSG ")
_LENGTHS: Final = {b"MSG": (4, 5), b"HMSG": (5, 6)}
"""Words of their lines, without a reply and with one."""
LINE_BYTES_MAX: Final = 1024 * 1024
"""Bytes of a line of the server's that is no message's; its greeting names a cluster's servers."""


class Deliverer(Protocol):
    """Whoever knows who takes the messages of a subscription."""

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Headers | None = None) -> bool:
        """Hand a message over; return False where it is to be left to nats-py."""
        ...

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Do what nats-py does with a message."""


class Reader(Parser):
    """nats-py's parser, with a short way for whole messages; of the rest it is given one thing at a time."""

    def __init__(self, client: Deliverer) -> None:
        super().__init__(client)  # pyright: ignore[reportUnknownMemberType] - untyped
        self._client = client
        self._held: list[bytes] = []
        """What was read of a message or line that is not whole yet; joined once, when it is."""
        self._held_bytes = self._wanted_bytes = 0

    def reset(self) -> None:
        """Begin with a new connection."""
        super().reset()
        self._held, self._held_bytes, self._wanted_bytes = [], 0, 0

    async def parse(self, data: bytes = b"") -> None:
        """Hand over every message that is whole."""
        if self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            if self._held_bytes < self._wanted_bytes:
                return
            data = b"".join(self._held)
            self._held.clear()
        at, end = 0, len(data)
        while at < end:
            line = data.find(b"\r\n", at)
            if line < 0:
                if end - at > LINE_BYTES_MAX:
                    raise ProtocolError("nats: a line without an end")
                self._hold(data, at, end - at + 1)
                return
            words = _words(data[at:line]) if data.startswith(MESSAGES, at) else None
            # a message of either kind ends with the size of what follows its line
            stop = line + 2 if words is None else line + 4 + _number(words[-1])
            if end < stop:
                self._hold(data, at, stop - at)
                return
            if words is None:
                await super().parse(data[at:stop])
                if self.buf:  # nats-py would wait for the rest of it, and take what follows for that
                    raise ProtocolError("nats: unknown protocol")
            else:
                await self._hand_over(words, data[line + 2 : stop - 2])
            at = stop

    async def _hand_over(self, words: list[bytes], body: bytes) -> None:
        """Hand over `MSG subject sid [reply] size` or `HMSG subject sid [reply] headers size`, whose body is given.

        What is not plain goes the long way, for nats-py to make of it what it can, or to say why not.
        """
        block, headers = b"", None
        if words[0] == b"HMSG":
            size = _number(words.pop(-2))
            block, body = body[:size], body[size:]
            headers = headers_of(block)
        sid, subject = _number(words[2]), words[1]
        reply = words[3] if len(words) == 5 else b""  # noqa: PLR2004 - as above
        if headers is not None or not block:
            try:
                if self._client.deliver(sid, subject, reply, body, headers):
                    return
            except UnicodeDecodeError:
                pass
        process = self._client._process_msg  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001 - as nats-py's parser
        await process(sid, subject, reply, body, block)

    def _hold(self, data: bytes, at: int, wanted_bytes: int) -> None:
        self._held.append(data[at:])
        self._held_bytes, self._wanted_bytes = len(data) - at, wanted_bytes


def _words(line: bytes) -> list[bytes]:
    """Return the words of a message's line.

    The server ends a word at a space or a tab and writes single spaces. nats-py, and `split()`, end it at other white
    space too, which may stand in a subject or in a reply: anybody could end our connection with one.
    """
    words = line.split(b" ")
    if len(words) not in _LENGTHS[words[0]]:
        raise ProtocolError("nats: malformed MSG")
    return words


def _number(word: bytes) -> int:
    if not word.isdigit():
        raise ProtocolError("nats: malformed MSG")
    return int(word)
