"""JetStream's buckets and counters over one connection, for the NATS transport.

nats-py leaves the options of these calls untyped, so pyright cannot follow them; mypy checks their arguments.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, cast

import nats.errors
import nats.js.errors
import structlog
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue as NatsBucket

from antiphon.bus.dial import CONNECT_TIMEOUT_S, RECONNECT_WAIT_S
from antiphon.bus.ending import ended
from antiphon.bus.protocol import Bucket, CounterStream, Entry
from antiphon.errors import NotConnected

log = structlog.get_logger("antiphon.bus")

INCREMENT_HEADER = "Nats-Incr"
DELETE_HEADER = "KV-Operation"
EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence"
WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for a failed compare-and-set."""


class Connected(Protocol):
    """What they need of the transport that they are over."""

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection."""

    @property
    def watches(self) -> set[NatsWatch]:
        """The running watches: they begin again on every new connection, and end before the last one."""
        ...


async def open_bucket(transport: Connected, js: JetStreamContext, bucket: Bucket) -> NatsKeyValue:
    """Open a declared bucket, creating it where it is missing."""
    config = api.StreamConfig(
        name=f"KV_{bucket.name}",
        description=bucket.description,
        subjects=[f"$KV.{bucket.name}.>"],
        storage=api.StorageType.FILE,
        max_msgs_per_subject=1,
        max_bytes=bucket.bytes_max,
        max_msg_size=bucket.value_bytes_max,
        discard=api.DiscardPolicy.NEW,
        allow_direct=True,
        allow_rollup_hdrs=False,
        deny_delete=True,
        deny_purge=True,
    )

    async def ensure() -> None:
        await cast("Any", js).add_stream(config)

    try:
        await ensure()
        opened = NatsKeyValue(transport, js, bucket.name, await js.key_value(bucket.name), ensure)
    except nats.js.errors.NotFoundError as error:
        raise NotConnected("the NATS server has no JetStream: start it with -js") from error
    except (nats.errors.Error, TimeoutError) as error:
        raise NotConnected(f"the bucket {bucket.name} cannot be opened: {error}") from error
    return opened


async def open_counter(transport: Connected, js: JetStreamContext, stream: CounterStream) -> NatsCounter:
    """Open declared counters, creating the stream where it is missing."""
    config = api.StreamConfig(
        name=stream.name,
        subjects=[stream.subjects],
        storage=api.StorageType.MEMORY,  # a count that a restart loses lets some more in; it is no record
        max_age=stream.keep_ms / 1_000,
        max_msgs=stream.counters_max,
        max_msgs_per_subject=1,
        allow_msg_counter=True,
        allow_direct=True,
        deny_delete=True,
        deny_purge=True,
    )
    try:
        await cast("Any", js).add_stream(config)
    except (nats.errors.Error, TimeoutError) as error:
        raise NotConnected(f"the counters {stream.name} cannot be opened: {error}") from error
    return NatsCounter(transport, js, stream.name)


class NatsCounter:
    """One connection's hold of counters (ADR-49): the acknowledgement of a publish carries the new value."""

    def __init__(self, transport: Connected, js: JetStreamContext, stream: str) -> None:
        self._transport = transport
        self._js = js
        self._stream = stream

    async def add(self, subject: str, delta: int) -> int:
        """Add to a counter and return its new value."""
        self._transport.check()
        try:
            ack = await self._js.publish(subject, headers={INCREMENT_HEADER: f"{delta:+d}"})
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{subject} cannot be counted: {type(error).__name__}") from error
        return int(ack.val or 0)

    async def value(self, subject: str) -> int:
        """Return a counter's value, 0 where it was never added to."""
        self._transport.check()
        try:
            last = await self._js.get_last_msg(self._stream, subject, direct=True)
        except nats.js.errors.NotFoundError:
            return 0
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{subject} cannot be read: {type(error).__name__}") from error
        return int(json.loads(last.data or b"{}").get("val", 0))


class NatsKeyValue:
    """One connection's hold of a JetStream bucket."""

    def __init__(
        self,
        transport: Connected,
        js: JetStreamContext,
        name: str,
        bucket: NatsBucket,
        ensure: Callable[[], Awaitable[None]],
    ) -> None:
        self.transport = transport
        self.js = js
        self.name = name
        self.ensure = ensure
        self.bucket = bucket

    async def get(self, key: str) -> Entry | None:
        """Return the entry, or None when there is no such key."""
        self.transport.check()
        try:
            entry = await self.bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be read: {type(error).__name__}") from error
        return Entry(key, entry.value, entry.revision or 0)

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the new revision."""
        self.transport.check()
        try:
            return await self.bucket.put(key, value)
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be written: {type(error).__name__}") from error

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Write if the key's last revision is `revision`."""
        self.transport.check()
        try:
            if revision == 0:
                return await self.bucket.create(key, value)
            return await self.bucket.update(key, value, revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be written: {type(error).__name__}") from error

    async def delete(self, key: str) -> None:
        """Delete; deleting what is not there is no error."""
        self.transport.check()
        try:
            await self.bucket.delete(key)
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be deleted: {type(error).__name__}") from error

    async def drop(self, key: str, revision: int) -> int | None:
        """Delete if the key's last revision is `revision`; nats-py's own delete does not tell the new one."""
        self.transport.check()
        headers = {DELETE_HEADER: "DEL", EXPECTED_HEADER: str(revision)}
        try:
            ack = await self.js.publish(f"$KV.{self.name}.{key}", headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                return None
            raise NotConnected(f"{key} cannot be deleted: {error.description}") from error
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be deleted: {type(error).__name__}") from error
        return int(ack.seq)

    async def watch(self, changed: Callable[[Entry], None]) -> NatsWatch:
        """Report every key now in the bucket, return, and report every change from then on."""
        watch = NatsWatch(self, changed)
        await watch.start()
        return watch


class NatsWatch:
    """A running watch; after a reconnect the server's consumer may be gone, so it starts over and compares."""

    def __init__(self, hold: NatsKeyValue, changed: Callable[[Entry], None]) -> None:
        self._hold = hold
        self._changed = changed
        self._known: dict[str, int] = {}
        self._complete = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Return when the whole bucket was reported."""
        self._hold.transport.watches.add(self)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="bus:watch")
        waiting = asyncio.ensure_future(self._complete.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._hold.transport.watches.discard(self)
            self._task.result()

    def begin_again(self) -> None:
        """Compare with the whole bucket once more."""
        if self._again is not None and not self._again.done():
            self._again.set_result(None)

    async def stop(self) -> None:
        """Report no more changes."""
        self._hold.transport.watches.discard(self)
        await ended(self._task)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._again = loop.create_future()
            following = loop.create_task(self._follow(), name="bus:follow")
            try:
                await asyncio.wait({following, self._again}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await ended(following)
            error = None if following.cancelled() else following.exception()
            if error is None or self._again.done():
                continue
            if not isinstance(error, (nats.errors.Error, TimeoutError)):
                raise error
            if not self._complete.is_set():
                raise NotConnected(f"the bucket cannot be watched: {type(error).__name__}") from error
            if not isinstance(error, nats.errors.ConnectionClosedError):  # which is told as such
                log.warning("bus.watch_lost", error=f"{type(error).__name__}: {error}"[:200])
            await asyncio.wait({self._again}, timeout=RECONNECT_WAIT_S)

    async def _follow(self) -> None:
        # a server that came back may have lost its data
        await self._hold.ensure()
        watcher: Any = await cast("Any", self._hold.bucket).watchall()
        try:
            seen: set[str] = set()
            while True:
                entry: NatsBucket.Entry | None = await watcher.updates(timeout=CONNECT_TIMEOUT_S)
                if entry is None:
                    break
                seen.add(entry.key)
                self._report(entry)
            for key in set(self._known) - seen:
                # a deletion leaves a marker, so what is neither there nor marked was lost; but what was written while
                # the list was read stands behind its end, and is reported when it comes
                if not await self._has_trace(key):
                    self._changed(Entry(key, None, self._known.pop(key), is_lost=True))
            self._complete.set()
            async for entry in watcher:
                if entry is not None:
                    self._report(entry)
        finally:
            with suppress(nats.errors.Error, TimeoutError):
                await watcher.stop()

    async def _has_trace(self, key: str) -> bool:
        """Whether the bucket has an entry of a key, or its deletion."""
        name = self._hold.name
        try:
            await self._hold.js.get_last_msg(f"KV_{name}", f"$KV.{name}.{key}")
        except nats.js.errors.NotFoundError:
            return False
        return True

    def _report(self, entry: NatsBucket.Entry) -> None:
        revision = entry.revision or 0
        if entry.operation is None:
            if self._known.get(entry.key) != revision:
                self._known[entry.key] = revision
                self._changed(Entry(entry.key, entry.value or b"", revision))
        elif self._known.pop(entry.key, None) is not None:
            self._changed(Entry(entry.key, None, revision))
