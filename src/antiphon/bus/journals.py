"""JetStream's streams over one connection, for the NATS transport: append, and read the last message of each subject.

What is read comes by direct get (ADR-31, `multi_last`): one question, a message an answer, then a status. A stored
message's own headers come before those that the server adds, and whoever wrote it may have chosen any; so a message is
told from a status by the server's own header, and of two with one name the later one counts, which is the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

import nats.errors
import nats.js.errors
import orjson
import structlog
from nats.js import api
from nats.js.client import JetStreamContext

from antiphon.bus.dial import CONNECT_TIMEOUT_S
from antiphon.bus.protocol import STATUS, Headers, JournalStream, Stored, Subscription, Take
from antiphon.errors import NotConnected, Oversize

log = structlog.get_logger("antiphon.bus")

EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence"
OVER_HEADER = "Nats-Expected-Last-Subject-Sequence-Subject"
SUBJECT_HEADER = "Nats-Subject"
SEQUENCE_HEADER = "Nats-Sequence"
WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for a failed compare-and-set."""
SUBJECTS_MAX = 1_024
"""Subjects that the server answers one question for; it refuses more with 413."""
END, NOTHING, NO_STREAM = "204", "404", "503"


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

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""


async def open_journal(transport: Connected, js: JetStreamContext, stream: JournalStream, inbox: str) -> NatsJournal:
    """Open a declared stream, creating it where it is missing; answers come below `inbox`."""
    journal = NatsJournal(transport, js, stream, f"{inbox}.j-{stream.name}")
    try:
        await journal.ensure()
    except nats.js.errors.NotFoundError as error:
        raise NotConnected("the NATS server has no JetStream: start it with -js") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise NotConnected(f"the stream {stream.name} cannot be opened: {error}") from error
    await journal.start()
    return journal


class _Reading:
    """One question that is being answered."""

    __slots__ = ("done", "found")

    def __init__(self) -> None:
        self.found: list[Stored] = []
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class NatsJournal:
    """One connection's hold of a stream."""

    def __init__(self, transport: Connected, js: JetStreamContext, stream: JournalStream, inbox: str) -> None:
        self._transport = transport
        self._js = js
        self._stream = stream
        self._inbox = inbox
        self._asked = 0
        self._readings: dict[str, _Reading] = {}
        self._ensuring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen for answers, and make the stream again when a server comes back without it."""
        await self._transport.tap(f"{self._inbox}.*", self._take)
        self._transport.on_reconnect(self._reconnected)

    async def ensure(self) -> None:
        """Make the stream where it is missing."""
        stream = self._stream
        config = api.StreamConfig(
            name=stream.name,
            description=stream.description,
            subjects=[stream.subjects],
            storage=api.StorageType.FILE,
            max_age=stream.keep_ms / 1_000,
            max_bytes=stream.bytes_max,
            max_msg_size=stream.message_bytes_max,
            max_msgs_per_subject=stream.per_subject_max,
            discard=api.DiscardPolicy.OLD,
            allow_direct=True,
            allow_rollup_hdrs=False,
            deny_delete=True,
            deny_purge=True,
        )
        await cast("Any", self._js).add_stream(config)

    async def append(self, subject: str, data: bytes, *, over: str | None = None, last: int = 0) -> int | None:
        """Store and return the sequence; with `over`, only if the last one over those subjects is `last`."""
        self._transport.check()
        headers = None if over is None else {EXPECTED_HEADER: str(last), OVER_HEADER: over}
        try:
            ack = await self._js.publish(subject, data, headers=cast("dict[str, Any] | None", headers))
        except nats.js.errors.APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                return None
            raise NotConnected(f"{subject} cannot be stored: {error.description}") from error
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{subject} cannot be stored: {type(error).__name__}") from error
        return int(ack.seq)

    async def last(self, *patterns: str) -> list[Stored]:
        """Return the last message of each subject, oldest first."""
        self._transport.check()
        self._asked += 1
        token = str(self._asked)
        reading = self._readings[token] = _Reading()
        question = orjson.dumps({"multi_last": patterns, "batch": SUBJECTS_MAX})
        try:
            subject = f"$JS.API.DIRECT.GET.{self._stream.name}"
            await self._transport.publish(subject, question, reply=f"{self._inbox}.{token}")
            status = await asyncio.wait_for(reading.done, CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            raise NotConnected(f"the stream {self._stream.name} does not answer") from error
        finally:
            del self._readings[token]
        if status not in (END, NOTHING, NO_STREAM):
            raise Oversize(f"more than {SUBJECTS_MAX} subjects in {self._stream.name}: status {status}")
        return reading.found

    def _take(self, subject: str, data: bytes, headers: Headers | None) -> None:
        reading = self._readings.get(subject[len(self._inbox) + 1 :])
        if reading is None or headers is None or reading.done.done():
            return
        stored = headers.get(SUBJECT_HEADER)
        if stored is None:
            reading.done.set_result(headers.get(STATUS, ""))
        else:
            reading.found.append(Stored(stored, int(headers.get(SEQUENCE_HEADER, "0")), data))

    def _reconnected(self) -> None:
        task = asyncio.get_running_loop().create_task(self._ensure_again(), name="bus:journal")
        self._ensuring.add(task)
        task.add_done_callback(self._ensuring.discard)

    async def _ensure_again(self) -> None:
        try:
            await self.ensure()
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("bus.journal_lost", stream=self._stream.name, error=f"{type(error).__name__}: {error}"[:200])
