"""The NATS transport: the only module that imports nats-py.

A lost connection is tried again for ever; meanwhile publishes fail at once with `NotConnected`, because a request
that waits in a buffer is answered after its asker has gone.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, cast

import nats.aio.subscription
import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import PING_PROTO, Client
from nats.js import api
from nats.js.client import JetStreamContext
from nats.js.kv import KeyValue as NatsBucket

from antiphon.bus.endpoint import Endpoint
from antiphon.bus.protocol import (
    Bucket,
    Counter,
    CounterStream,
    Entry,
    Headers,
    KeyValue,
    Logins,
    Receive,
    Subscription,
)
from antiphon.bus.server import check_version
from antiphon.errors import NotConnected, Oversize

log = structlog.get_logger("antiphon.bus")

CONNECT_TIMEOUT_S = 5
RECONNECT_WAIT_S = 0.2
FIRST_ATTEMPTS_MAX = 1
"""Further attempts at each server before the first connection fails; a lost one is tried again for ever."""
DRAIN_TIMEOUT_S = 10
INCREMENT_HEADER = "Nats-Incr"
DELETE_HEADER = "KV-Operation"
EXPECTED_HEADER = "Nats-Expected-Last-Subject-Sequence"
WRONG_LAST_SEQUENCE = 10071
"""JetStream's error code for a failed compare-and-set."""


class StrictClient(Client):
    """nats-py's client without two of its faults (2.16)."""

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Drop a message that cannot be read; stock nats-py stops reading for good, and anybody could send one."""
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except (ValueError, IndexError) as error:
            # a subject that is not UTF-8, a header block of a bare or an undecodable status
            await self._error_cb(error)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        """Ping behind what is pending; stock nats-py overtakes it, and a flush returns before it was sent."""
        if not self.is_connected:
            await super()._send_ping(future)  # pyright: ignore[reportUnknownMemberType] - nats-py's futures name no result
            return
        self._pongs.append(  # pyright: ignore[reportUnknownMemberType] - the same
            asyncio.get_running_loop().create_future() if future is None else future
        )
        await self._send_command(PING_PROTO)
        await self._flush_pending()


class NatsTransport:
    """One connection to a NATS server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._reconnected: list[Callable[[], None]] = []
        self._watches: list[NatsWatch] = []
        self._is_closing = False
        self.losses = 0
        self._reason: Exception | None = None

    @classmethod
    async def connect(
        cls, endpoint: Endpoint, *, name: str, inbox: str, logins: Logins | None = None
    ) -> NatsTransport:
        """Connect, or raise `NotConnected`; `ServerTooOld` for a server below the supported version."""
        client = StrictClient()
        transport = cls(client)
        given = credentials(endpoint)
        if logins is not None:
            login = await logins.login()
            given |= {"nkeys_seed_str": login.nkey_seed, "token": login.token}
        try:
            await client.connect(
                endpoint.url,
                name=name,
                inbox_prefix=inbox,
                connect_timeout=CONNECT_TIMEOUT_S,
                reconnect_time_wait=cast("int", RECONNECT_WAIT_S),
                # nats-py counts the first connection as a reconnection, and -1 would keep trying for ever
                max_reconnect_attempts=FIRST_ATTEMPTS_MAX,
                allow_reconnect=True,
                drain_timeout=DRAIN_TIMEOUT_S,
                error_cb=transport._errored,
                disconnected_cb=transport._disconnected,
                reconnected_cb=transport._reconnect,
                **given,
            )
        except (OSError, TimeoutError, nats.errors.Error) as error:
            with suppress(Exception):
                await client.close()
            reason = transport._reason or error
            raise NotConnected(f"no NATS server at {endpoint.url}: {reason}") from error
        client.options["max_reconnect_attempts"] = -1
        check_version(str(client.connected_server_version))
        return transport

    @property
    def payload_max(self) -> int:
        """The largest payload in bytes that the server takes."""
        return int(self._client.max_payload)

    @property
    def is_connected(self) -> bool:
        """Whether a publish now would leave this process."""
        return bool(self._client.is_connected)

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection: nats-py would keep what is sent for the next one."""
        if not self._client.is_connected:
            raise NotConnected("the connection to the NATS server is lost; it is being tried again")

    async def publish(self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None) -> None:
        """Send; at most once, no acknowledgement."""
        self.check()
        try:
            await self._client.publish(subject, data, reply, cast("dict[str, str] | None", headers))
        except nats.errors.MaxPayloadError:
            raise Oversize(f"{len(data)} bytes; the server takes {self.payload_max}") from None
        except (nats.errors.Error, OSError) as error:
            raise NotConnected(f"not sent: {type(error).__name__}") from error

    async def subscribe(self, subject: str, receive: Receive, *, queue: str | None = None) -> Subscription:
        """Receive what is published on a subject."""
        try:
            return NatsSubscription(await cast("Any", self._client).subscribe(subject, queue or "", receive))
        except nats.errors.Error as error:
            raise NotConnected(f"not subscribed: {error}") from error

    async def flush(self) -> None:
        """Return when the server has seen everything sent so far."""
        try:
            await self._client.flush(CONNECT_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"not flushed: {type(error).__name__}") from error

    async def key_value(self, bucket: Bucket) -> KeyValue:
        """Open a declared bucket, creating it where it is missing."""
        # nats-py leaves its options untyped, so pyright cannot follow these calls; mypy checks their arguments
        js: JetStreamContext = cast("Any", self._client).jetstream(timeout=CONNECT_TIMEOUT_S)
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
            opened = NatsKeyValue(self, js, bucket.name, await js.key_value(bucket.name), ensure)
        except nats.js.errors.NotFoundError as error:
            raise NotConnected("the NATS server has no JetStream: start it with -js") from error
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"the bucket {bucket.name} cannot be opened: {error}") from error
        return opened

    async def counter(self, stream: CounterStream) -> Counter:
        """Open declared counters, creating the stream where it is missing."""
        js: JetStreamContext = cast("Any", self._client).jetstream(timeout=CONNECT_TIMEOUT_S)
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
        return NatsCounter(self, js, stream.name)

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""
        self._reconnected.append(call)

    async def close(self) -> None:
        """Drain every subscription, send what is left, and disconnect."""
        self._is_closing = True
        for watch in tuple(self._watches):
            await watch.stop()
        try:
            await self._client.drain()
        except nats.errors.Error:
            with suppress(Exception):
                await self._client.close()

    def watching(self, watch: NatsWatch) -> None:
        """Remember a watch, so that it is stopped before the connection is drained."""
        self._watches.append(watch)

    async def _errored(self, error: Exception) -> None:
        self._reason = error
        tell = log.debug if self._client.is_reconnecting else log.warning
        tell("bus.error", error=f"{type(error).__name__}: {error}"[:300])

    async def _disconnected(self) -> None:
        if not self._is_closing:
            self.losses += 1
            log.warning("bus.disconnected")

    async def _reconnect(self) -> None:
        log.info("bus.reconnected", server=str(self._client.connected_server_version))
        for call in self._reconnected:
            call()


class NatsSubscription:
    """Interest in a subject on a connection that may be lost."""

    def __init__(self, subscription: nats.aio.subscription.Subscription) -> None:
        self._subscription = subscription

    async def drain(self) -> None:
        """Take no more, and return when all that had arrived were received; without a connection, at once."""
        try:
            await asyncio.wait_for(self._subscription.drain(), DRAIN_TIMEOUT_S / 2)  # type: ignore[no-untyped-call]
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.info("bus.not_drained", subject=self._subscription.subject, error=type(error).__name__)


def credentials(endpoint: Endpoint) -> dict[str, Any]:
    """Return the connect options that an endpoint's credentials stand for."""
    given = {
        "user": endpoint.user,
        "password": endpoint.password,
        "token": endpoint.token,
        "user_credentials": None if endpoint.credentials is None else str(endpoint.credentials),
        "nkeys_seed": None if endpoint.nkey_seed_file is None else str(endpoint.nkey_seed_file),
    }
    return {option: value for option, value in given.items() if value is not None}


class NatsCounter:
    """One connection's hold of counters (ADR-49): the acknowledgement of a publish carries the new value."""

    def __init__(self, transport: NatsTransport, js: JetStreamContext, stream: str) -> None:
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
        transport: NatsTransport,
        js: JetStreamContext,
        name: str,
        bucket: NatsBucket,
        ensure: Callable[[], Awaitable[None]],
    ) -> None:
        self._transport = transport
        self._js = js
        self._name = name
        self._ensure = ensure
        self.bucket = bucket

    async def get(self, key: str) -> Entry | None:
        """Return the entry, or None when there is no such key."""
        self._transport.check()
        try:
            entry = await self.bucket.get(key)
        except nats.js.errors.KeyNotFoundError:
            return None
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be read: {type(error).__name__}") from error
        return Entry(key, entry.value, entry.revision or 0)

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the new revision."""
        self._transport.check()
        try:
            return await self.bucket.put(key, value)
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be written: {type(error).__name__}") from error

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Write if the key's last revision is `revision`."""
        self._transport.check()
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
        self._transport.check()
        try:
            await self.bucket.delete(key)
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be deleted: {type(error).__name__}") from error

    async def drop(self, key: str, revision: int) -> int | None:
        """Delete if the key's last revision is `revision`; nats-py's own delete does not tell the new one."""
        self._transport.check()
        headers = {DELETE_HEADER: "DEL", EXPECTED_HEADER: str(revision)}
        try:
            ack = await self._js.publish(f"$KV.{self._name}.{key}", headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                return None
            raise NotConnected(f"{key} cannot be deleted: {error.description}") from error
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"{key} cannot be deleted: {type(error).__name__}") from error
        return int(ack.seq)

    async def watch(self, changed: Callable[[Entry], None]) -> NatsWatch:
        """Report every key now in the bucket, return, and report every change from then on."""
        watch = NatsWatch(self.bucket, changed, self._ensure)
        self._transport.watching(watch)
        self._transport.on_reconnect(watch.begin_again)
        await watch.start()
        return watch


class NatsWatch:
    """A running watch; after a reconnect the server's consumer may be gone, so it starts over and compares."""

    def __init__(
        self, bucket: NatsBucket, changed: Callable[[Entry], None], ensure: Callable[[], Awaitable[None]]
    ) -> None:
        self._bucket = bucket
        self._ensure = ensure
        self._changed = changed
        self._known: dict[str, int] = {}
        self._complete = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the whole bucket was reported."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="bus:watch")
        waiting = asyncio.ensure_future(self._complete.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._task.done():
            self._task.result()

    def begin_again(self) -> None:
        """Compare with the whole bucket once more."""
        if self._following is not None:
            self._following.cancel()

    async def stop(self) -> None:
        """Report no more changes."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            self._following = following = asyncio.get_running_loop().create_task(self._follow(), name="bus:follow")
            try:
                await asyncio.wait({following})
            finally:
                following.cancel()
            error = None if following.cancelled() else following.exception()
            if error is not None:
                if not isinstance(error, (nats.errors.Error, TimeoutError)):
                    raise error
                if not self._complete.is_set():
                    raise NotConnected(f"the bucket cannot be watched: {type(error).__name__}") from error
                log.warning("bus.watch_lost", error=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(RECONNECT_WAIT_S)

    async def _follow(self) -> None:
        # a server that came back may have lost its data
        await self._ensure()
        watcher: Any = await cast("Any", self._bucket).watchall()
        try:
            seen: set[str] = set()
            while True:
                entry: NatsBucket.Entry | None = await watcher.updates(timeout=CONNECT_TIMEOUT_S)
                if entry is None:
                    break
                seen.add(entry.key)
                self._report(entry)
            for key in set(self._known) - seen:
                # a deletion leaves a marker, so what is neither there nor marked was lost
                self._changed(Entry(key, None, self._known.pop(key), is_lost=True))
            self._complete.set()
            async for entry in watcher:
                if entry is not None:
                    self._report(entry)
        finally:
            with suppress(nats.errors.Error, TimeoutError):
                await watcher.stop()

    def _report(self, entry: NatsBucket.Entry) -> None:
        revision = entry.revision or 0
        if entry.operation is None:
            if self._known.get(entry.key) != revision:
                self._known[entry.key] = revision
                self._changed(Entry(entry.key, entry.value or b"", revision))
        elif self._known.pop(entry.key, None) is not None:
            self._changed(Entry(entry.key, None, revision))
