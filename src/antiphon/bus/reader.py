"""What a server sends, as it is read: whole messages are handed over at once, all else is left to nats-py's parser."""

from __future__ import annotations

from typing import Final, Protocol

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from antiphon.bus.headers import headers_of
from antiphon.bus.protocol import Headers

MESSAGES: Final = (b"MSG ", b"HMSG ")
LINE_BYTES_MAX: Final = 1024 * 1024
"""Bytes of a line of the server's that is no message's; its greeting names a cluster's servers."""


class Deliverer(Protocol):
    """Whoever knows who takes the messages of a subscription."""

    def deliver(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Headers | None = None) -> bool:
        """Hand a message over; return False where it is to be left to nats-py."""
        ...


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
            # a message of either kind ends with the size of what follows its line
            words = data[at:line].split() if data.startswith(MESSAGES, at) else None
            stop = line + 2 if words is None else line + 4 + _number(words[-1])
            if end < stop:
                self._hold(data, at, stop - at)
                return
            if words is None or not self._is_delivered(words, data[line + 2 : stop - 2]):
                await super().parse(data[at:stop])
            at = stop

    def _is_delivered(self, words: list[bytes], body: bytes) -> bool:
        """Hand over `MSG subject sid [reply] size` or `HMSG subject sid [reply] headers size`, whose body is given.

        Return whether that was possible; else nats-py makes of it what it can, or says why not.
        """
        headers: Headers | None = None
        if words[0] == b"HMSG":
            size = _number(words.pop(-2))
            headers = headers_of(body[:size])
            if headers is None:
                return False
            body = body[size:]
        try:
            reply = words[3] if len(words) == 5 else b""  # noqa: PLR2004 - as above
            return self._client.deliver(_number(words[2]), words[1], reply, body, headers)
        except UnicodeDecodeError:
            return False

    def _hold(self, data: bytes, at: int, wanted_bytes: int) -> None:
        self._held.append(data[at:])
        self._held_bytes, self._wanted_bytes = len(data) - at, wanted_bytes


def _number(word: bytes) -> int:
    if not word.isdigit():
        raise ProtocolError("nats: malformed MSG")
    return int(word)
