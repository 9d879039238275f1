"""JetStream's streams over one connection, for the NATS transport: append, read, set timers, follow, forget.

Each question has a token of its own below one private subject, and each answer is taken as it is read: no task, no
subscription of its own. What is read comes by direct get (`direct.py`). Timers are scheduled messages (ADR-51).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import count
from typing import Any, cast

import nats.errors
import nats.js.errors
import orjson
import structlog
from nats.js import api
from nats.js.client import JetStreamContext

from antiphon.bus.dial import CONNECT_TIMEOUT_S
from antiphon.bus.direct import END, NO_STREAM, NOTHING, DirectGets, stamp_ms
from antiphon.bus.following import Follower, Living
from antiphon.bus.protocol import Follow, Headers, JournalStream, Stored, Subscription
from antiphon.errors import NotConnected, Overloaded, Oversize

log = structlog.get_logger("antiphon.bus")

EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence"
OVER_HEADER = "Nats-Expected-Last-Subject-Sequence-Subject"
TTL_HEADER = "Nats-TTL"
SCHEDULE_HEADER = "Nats-Schedule"
TARGET_HEADER = "Nats-Schedule-Target"
FIRED_TTL_HEADER = "Nats-Schedule-TTL"
WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for a failed compare-and-set."""
NOT_STORED = 10077
"""JetStream's error code for what a stream does not take: it is full, or the subject is taken."""
TAKEN = "maximum messages per subject exceeded"
SUBJECTS_MAX = 1_024
"""Subjects that the server answers one question for; it refuses more with 413."""
FULL_RETRY_MS = 5_000
NUMBERS = count(1)
"""Two holds of one stream over one connection are told apart."""


async def open_journal(transport: Living, js: JetStreamContext, stream: JournalStream, inbox: str) -> NatsJournal:
    """Open a declared stream, creating it where it is missing; answers come below `inbox`."""
    journal = NatsJournal(transport, js, stream, f"{inbox}.j-{stream.name}-{next(NUMBERS)}")
    try:
        await journal.ensure()
    except nats.js.errors.NotFoundError as error:
        raise NotConnected("the NATS server has no JetStream: start it with -js") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise NotConnected(f"the stream {stream.name} cannot be opened: {error}") from error
    await journal.start()
    return journal


class NatsJournal:
    """One connection's hold of a stream."""

    def __init__(self, transport: Living, js: JetStreamContext, stream: JournalStream, inbox: str) -> None:
        self._transport = transport
        self._js = js
        self._stream = stream
        self._inbox = inbox
        self._asked = 0
        self._gets = DirectGets(transport, stream.name, f"{inbox}.d")
        self._asking: dict[str, asyncio.Future[bytes]] = {}
        self._followers: list[Follower] = []
        self._ensuring: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen for answers, and make the stream again when a server comes back without it."""
        await self._transport.tap(f"{self._inbox}.*", self._take)
        await self._gets.start()
        self._transport.on_reconnect(self._reconnected)

    async def ensure(self) -> None:
        """Make the stream where it is missing, and whoever follows it."""
        stream = self._stream
        config = api.StreamConfig(
            name=stream.name,
            description=stream.description,
            subjects=list(stream.subjects),
            storage=api.StorageType.FILE,
            max_age=stream.keep_ms / 1_000,
            max_bytes=stream.bytes_max,
            max_msg_size=stream.message_bytes_max,
            max_msgs_per_subject=stream.per_subject_max,
            discard=api.DiscardPolicy.NEW if stream.refuses_when_full else api.DiscardPolicy.OLD,
            discard_new_per_subject=stream.keeps_first,
            allow_direct=True,
            allow_rollup_hdrs=stream.has_timers,
            allow_msg_schedules=stream.has_timers,
            allow_msg_ttl=stream.is_masters,
            no_ack=stream.no_ack,
            deny_delete=True,
            deny_purge=not stream.is_masters,
        )
        await cast("Any", self._js).add_stream(config)
        for follower in self._followers:
            await self._consumer(follower.name, follower.pattern)

    async def append(
        self, subject: str, data: bytes, *, over: str | None = None, last: int = 0, keep_ms: int | None = None
    ) -> int | None:
        """Store and return the sequence; with `over`, only if the last one over those subjects is `last`."""
        assert not self._stream.no_ack, "nobody would say that it was stored"
        headers = {} if over is None else {EXPECTED_HEADER: str(last), OVER_HEADER: over}
        if keep_ms is not None:
            headers[TTL_HEADER] = _seconds(keep_ms)
        return await self._stored(subject, data, headers)

    async def schedule(
        self, subject: str, data: bytes, *, target: str, at_ms: int, is_first: bool = False, keep_ms: int | None = None
    ) -> bool:
        """Have the server store the same under `target` at a time, UTC."""
        at = datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        headers = {SCHEDULE_HEADER: f"@at {at}", TARGET_HEADER: target}
        if is_first:
            headers[EXPECTED_HEADER] = "0"
        if keep_ms is not None:
            headers[FIRED_TTL_HEADER] = _seconds(keep_ms)
        return await self._stored(subject, data, headers) is not None

    async def follow(self, name: str, pattern: str, take: Follow) -> Subscription:
        """Take what is stored under a pattern; of all who follow under a name one gets each."""
        try:
            await self._consumer(name, pattern)
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"the stream {self._stream.name} cannot be followed: {error}") from error
        inbox = f"{self._inbox}.f.{name}"
        follower = Follower(self._transport, self._stream.name, take, name=name, pattern=pattern, inbox=inbox)
        self._followers.append(follower)
        await follower.start()
        return follower

    async def last(self, *patterns: str) -> list[Stored]:
        """Return the last message of each subject, oldest first."""
        found, status = await self._gets.ask({"multi_last": patterns, "batch": SUBJECTS_MAX})
        if status not in (END, NOTHING, NO_STREAM):
            raise Oversize(f"more than {SUBJECTS_MAX} subjects in {self._stream.name}: status {status}")
        return found

    async def subjects(self, pattern: str) -> list[str]:
        """Return all subjects that match a pattern and have a message, sorted."""
        found: dict[str, int] = {}
        while True:
            question = {"subjects_filter": pattern, "offset": len(found)}
            answer = await self._api(f"STREAM.INFO.{self._stream.name}", question)
            page = cast("dict[str, int]", answer.get("state", {}).get("subjects") or {})
            found |= page
            if not page or len(found) >= int(answer.get("total", 0)):
                return sorted(found)

    async def now_ms(self) -> int:
        """Return the server's time, UTC."""
        return stamp_ms((await self._api(f"STREAM.INFO.{self._stream.name}", {}))["ts"])

    async def fill_permille(self) -> int:
        """Return how much of its bytes is taken, 1,000 where it is full."""
        answer = await self._api(f"STREAM.INFO.{self._stream.name}", {})
        return int(answer["state"]["bytes"]) * 1_000 // int(answer["config"]["max_bytes"])

    async def purge(self, pattern: str, *, before: int | None = None) -> None:
        """Forget what matches a pattern, with `before` only what has a lower sequence."""
        question = {"filter": pattern} | ({} if before is None else {"seq": before})
        await self._api(f"STREAM.PURGE.{self._stream.name}", question)

    # -- questions and answers

    def _token(self) -> str:
        self._asked += 1
        return str(self._asked)

    async def _stored(self, subject: str, data: bytes, headers: Headers) -> int | None:
        ack = orjson.loads(await self._ask(subject, data, headers or None))
        error = ack.get("error")
        if error is None:
            return int(ack["seq"])
        code, text = error.get("err_code"), str(error.get("description", ""))
        if code == WRONG_LAST_SEQUENCE or (code == NOT_STORED and text == TAKEN):
            return None
        if code == NOT_STORED:
            raise Overloaded(f"the stream {self._stream.name} is full: {text}", retry_after_ms=FULL_RETRY_MS)
        raise NotConnected(f"{subject} cannot be stored: {text}")

    async def _api(self, name: str, question: dict[str, Any]) -> dict[str, Any]:
        answer = orjson.loads(await self._ask(f"$JS.API.{name}", orjson.dumps(question), None))
        if "error" in answer:
            raise NotConnected(f"{name}: {answer['error'].get('description')}")
        return cast("dict[str, Any]", answer)

    async def _ask(self, subject: str, data: bytes, headers: Headers | None) -> bytes:
        self._transport.check()
        token, loop = self._token(), asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._asking[token] = answer
        timer = loop.call_later(CONNECT_TIMEOUT_S, self._give_up, answer, subject)
        try:
            await self._transport.publish(subject, data, reply=f"{self._inbox}.{token}", headers=headers)
            return await answer
        finally:
            timer.cancel()
            del self._asking[token]

    def _give_up(self, answer: asyncio.Future[bytes], subject: str) -> None:
        if not answer.done():
            answer.set_exception(NotConnected(f"{subject}: the stream {self._stream.name} does not answer"))

    def _take(self, subject: str, data: bytes, _headers: Headers | None) -> None:
        asking = self._asking.get(subject[len(self._inbox) + 1 :])
        if asking is None or asking.done():
            return
        if data:
            asking.set_result(data)
        else:
            asking.set_exception(NotConnected(f"no stream takes it: {self._stream.name} is away"))

    async def _consumer(self, name: str, pattern: str) -> None:
        config = api.ConsumerConfig(
            durable_name=name,
            filter_subject=pattern,
            deliver_policy=api.DeliverPolicy.ALL,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=Follower.AGAIN_S,
            max_ack_pending=Follower.PENDING_MAX,
        )
        await cast("Any", self._js).add_consumer(self._stream.name, config)

    def _reconnected(self) -> None:
        task = asyncio.get_running_loop().create_task(self._ensure_again(), name="bus:journal")
        self._ensuring.add(task)
        task.add_done_callback(self._ensuring.discard)

    async def _ensure_again(self) -> None:
        try:
            await self.ensure()
        except (nats.errors.Error, TimeoutError) as error:
            log.warning("bus.journal_lost", stream=self._stream.name, error=f"{type(error).__name__}: {error}"[:200])
        for follower in self._followers:
            follower.pull_again()


def _seconds(keep_ms: int) -> str:
    return f"{max(1, keep_ms // 1_000)}s"
