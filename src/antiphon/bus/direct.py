"""Direct gets (ADR-31): what a stream keeps, read by one question each, with no consumer and so with nothing to lose.

The answer is a message for each one that is found, then a status. A stored message's own headers come before those
that the server adds, and whoever wrote it may have chosen any; so a message is told from a status by the server's own
header, and of two with one name the later one counts, which is the server's.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import count
from typing import Any, Protocol

import nats.errors
import nats.js.errors
import orjson
from nats.js.client import JetStreamContext

from antiphon.bus.dial import CONNECT_TIMEOUT_S
from antiphon.bus.protocol import STATUS, Extent, Headers, Stored, Subscription, Take
from antiphon.errors import NotConnected

SUBJECT_HEADER = "Nats-Subject"
SEQUENCE_HEADER = "Nats-Sequence"
STAMP_HEADER = "Nats-Time-Stamp"
END, NOTHING, NO_STREAM = "204", "404", "503"
NUMBERS = count(1)
"""Two readers of one stream over one connection are told apart."""


class Connected(Protocol):
    """What it needs of the transport that it is over."""

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection."""

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        """Send."""

    async def tap(self, subject: str, take: Take) -> Subscription:
        """Take what is published on a subject as it is read."""
        ...


class _Reading:
    """One question that is being answered."""

    __slots__ = ("done", "found")

    def __init__(self) -> None:
        self.found: list[Stored] = []
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class DirectGets:
    """Questions to one stream; answers come below `inbox`."""

    def __init__(self, transport: Connected, stream: str, inbox: str) -> None:
        self._transport = transport
        self._stream = stream
        self._inbox = inbox
        self._asked = 0
        self._readings: dict[str, _Reading] = {}

    async def start(self) -> None:
        """Listen for answers."""
        await self._transport.tap(f"{self._inbox}.*", self._take)

    async def ask(self, question: dict[str, Any]) -> tuple[list[Stored], str]:
        """Return what is found, in the server's order, and the status; raises `NotConnected` without an answer."""
        self._transport.check()
        self._asked += 1
        token = str(self._asked)
        reading = self._readings[token] = _Reading()
        try:
            subject = f"$JS.API.DIRECT.GET.{self._stream}"
            await self._transport.publish(subject, orjson.dumps(question), reply=f"{self._inbox}.{token}")
            status = await asyncio.wait_for(reading.done, CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            raise NotConnected(f"the stream {self._stream} does not answer") from error
        finally:
            del self._readings[token]
        return reading.found, status

    def _take(self, subject: str, data: bytes, headers: Headers | None) -> None:
        reading = self._readings.get(subject[len(self._inbox) + 1 :])
        if reading is None or headers is None or reading.done.done():
            return
        stored = headers.get(SUBJECT_HEADER)
        if stored is None:
            reading.done.set_result(headers.get(STATUS, ""))
        else:
            at_ms = stamp_ms(headers.get(STAMP_HEADER, ""))
            reading.found.append(Stored(stored, int(headers.get(SEQUENCE_HEADER, "0")), data, at_ms))


class NatsReader:
    """A stream as it is read from its beginning to its end; it makes none."""

    def __init__(self, transport: Connected, js: JetStreamContext, stream: str, inbox: str) -> None:
        self._js = js
        self._stream = stream
        self._gets = DirectGets(transport, stream, f"{inbox}.read-{stream}-{next(NUMBERS)}")

    async def start(self) -> None:
        """Listen for answers."""
        await self._gets.start()

    async def extent(self) -> Extent | None:
        """Return which stream it is and what is kept of it; None where there is none."""
        try:
            found = await self._js.stream_info(self._stream)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"the stream {self._stream} does not answer: {type(error).__name__}") from error
        created = found.created or datetime.fromtimestamp(0, UTC)
        return Extent(round(created.timestamp() * 1_000_000), found.state.first_seq, found.state.last_seq)

    async def read(self, after: int, *, messages_max: int, bytes_max: int) -> list[Stored]:
        """Return the next messages behind a sequence, at least one where there is any."""
        question = {"seq": after + 1, "batch": messages_max, "max_bytes": bytes_max}
        found, _ = await self._gets.ask(question)
        return found


def stamp_ms(text: str) -> int:
    """Return a stamp of the server, RFC 3339 with up to nine digits, as milliseconds since 1970; 0 for none.

    >>> stamp_ms("1970-01-01T00:00:01.5Z"), stamp_ms("")
    (1500, 0)
    """
    if not text:
        return 0
    head, _, rest = text.partition(".")
    digits = rest.rstrip("Z")
    return int(datetime.fromisoformat(f"{head.rstrip('Z')}+00:00").timestamp()) * 1_000 + int((digits + "000")[:3])
