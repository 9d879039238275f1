"""The NATS transport: connections that come and go below subscriptions that stay.

With `dial.py` and `buckets.py` the only importer of nats-py. A lost connection is tried again for ever; meanwhile
publishes fail at once with `NotConnected`, because a request that waits in a buffer is answered after its asker has
gone.

Where the login is a token, a connection does not outlive it: `renew` makes a second one with a new token, subscribes
everything on it, and lets the first one go when what it brought has been answered (make before break). Each
subscription without a queue group is in a group of its own that the two connections share, so that every message
comes once meanwhile. A connection that the server has ended for good (its token expired, somebody was kicked) is
replaced in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Any, cast

import nats.aio.subscription
import nats.errors
import structlog
from nats.js.client import JetStreamContext

from antiphon.bus.buckets import NatsWatch, open_bucket, open_counter
from antiphon.bus.dial import CONNECT_TIMEOUT_S, DRAIN_TIMEOUT_S, Calls, StrictClient, dial
from antiphon.bus.endpoint import Endpoint
from antiphon.bus.protocol import (
    Bucket,
    Counter,
    CounterStream,
    Delivery,
    Headers,
    KeyValue,
    Login,
    Logins,
    Receive,
    Subscription,
    Take,
)
from antiphon.errors import AntiphonError, NotAuthenticated, NotConnected, Oversize

log = structlog.get_logger("antiphon.bus")

OUTLIVE_MS = 61_000
"""How long a connection that was replaced stays for answers: the longest budget of a request, and a second."""
HEAL_MS = 200
HEAL_MS_MAX = 10_000
"""First and longest pause between attempts to replace a connection that the server has ended."""
VIOLATIONS_MS = 60_000
"""How often it is logged that the server refuses something."""


class NatsTransport:
    """One process's way to a NATS server, over one connection at a time, two while they change over."""

    def __init__(self, endpoint: Endpoint, *, name: str, inbox: str, logins: Logins | None) -> None:
        self._endpoint = endpoint
        self._name = name
        self._inbox = inbox
        self._logins = logins
        self._group = inbox.rpartition(".")[2]
        self._current: StrictClient | None = None
        self._former: set[StrictClient] = set()
        self._subscriptions: set[NatsSubscription] = set()
        self._reconnected: list[Callable[[], None]] = []
        self._watches: list[NatsWatch] = []
        self._is_closing = False
        self._healing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._leaving: set[asyncio.TimerHandle] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._violated_s = 0.0
        self._is_token = False
        self.losses = 0
        self.renewals = 0
        self.violations = 0
        """How often the server has refused a publish or a subscription."""
        self.reason: str | None = None
        """Why there is no connection now, where somebody has said so."""

    @classmethod
    async def connect(cls, endpoint: Endpoint, *, name: str, inbox: str, logins: Logins | None = None) -> NatsTransport:
        """Connect.

        Args:
            endpoint: where, and what to show there unless there are logins.
            name: the connection's name on the server.
            inbox: the prefix of its private subjects; the last token is this session's own.
            logins: what to show, asked for at each connection.

        Raises `NotAuthenticated` when it is not let in, `NotConnected` when nobody is there, `ServerTooOld` for a
        server below the supported version, and what `logins` raises.
        """
        transport = cls(endpoint, name=name, inbox=inbox, logins=logins)
        transport._current = await transport._dial()
        return transport

    @property
    def _client(self) -> StrictClient:
        assert self._current is not None, "connect() makes it"
        return self._current

    @property
    def payload_max(self) -> int:
        """The largest payload in bytes that the server takes."""
        return int(self._client.max_payload)

    @property
    def is_connected(self) -> bool:
        """Whether a publish now would leave this process."""
        return bool(self._client.is_connected)

    @property
    def asks_for_login(self) -> bool:
        """Whether the server asked who this is."""
        return self._client.asks_for_login

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection: nats-py would keep what is sent for the next one."""
        if not self._client.is_connected:
            why = f": {self.reason}" if self.reason else ""
            raise NotConnected(f"the connection to the NATS server is lost; it is being tried again{why}")

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        """Send; at most once, no acknowledgement. `via`: the connection that brought what this answers."""
        client = self._client
        if via is not client and isinstance(via, StrictClient) and via in self._former:
            client = via
        if not client.is_connected:
            self.check()
            client = self._client
        try:
            await client.publish(subject, data, reply, cast("dict[str, str] | None", headers))
        except nats.errors.MaxPayloadError:
            raise Oversize(f"{len(data)} bytes; the server takes {self.payload_max}") from None
        except (nats.errors.Error, OSError) as error:
            raise NotConnected(f"not sent: {type(error).__name__}") from error

    async def publish_each(self, ways: Sequence[tuple[str, str]], data: bytes) -> None:
        """Send the same payload to each (subject, reply), as one burst."""
        self.check()
        if len(data) > self.payload_max:
            raise Oversize(f"{len(data)} bytes; the server takes {self.payload_max}")
        try:
            await self._client.publish_each(ways, data)
        except (nats.errors.Error, OSError) as error:
            raise NotConnected(f"not sent: {type(error).__name__}") from error

    async def tap(self, subject: str, take: Take) -> Subscription:
        """Take what is published on a subject as it is read."""

        async def receive(delivery: Delivery) -> None:
            take(delivery.subject, delivery.data, delivery.headers)

        return await self._subscribed(NatsSubscription(self, subject, receive, self._own_group, take))

    def way_of(self, delivery: Delivery) -> object:
        """Return the connection that brought a message."""
        return cast("Any", delivery)._client  # noqa: SLF001 - nats-py's own way to respond

    async def subscribe(self, subject: str, receive: Receive, *, queue: str | None = None) -> Subscription:
        """Receive what is published on a subject."""
        return await self._subscribed(NatsSubscription(self, subject, receive, queue or self._own_group))

    @property
    def _own_group(self) -> str:
        return self._group if self._is_token else ""

    async def _subscribed(self, subscription: NatsSubscription) -> NatsSubscription:
        try:
            await subscription.open(self._client)
        except nats.errors.Error as error:
            raise NotConnected(f"not subscribed: {error}") from error
        self._subscriptions.add(subscription)
        return subscription

    def forget(self, subscription: NatsSubscription) -> None:
        """Subscribe it on no further connection."""
        self._subscriptions.discard(subscription)

    async def flush(self) -> None:
        """Return when the server has seen everything sent so far."""
        try:
            await self._client.flush(CONNECT_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError) as error:
            raise NotConnected(f"not flushed: {type(error).__name__}") from error

    async def key_value(self, bucket: Bucket) -> KeyValue:
        """Open a declared bucket, creating it where it is missing."""
        return await open_bucket(self, self._jetstream(), bucket)

    async def counter(self, stream: CounterStream) -> Counter:
        """Open declared counters, creating the stream where it is missing."""
        return await open_counter(self, self._jetstream(), stream)

    def _jetstream(self) -> JetStreamContext:
        assert not self._is_token, "streams belong to masters, whose login is a key and does not end"
        return cast("JetStreamContext", cast("Any", self._client).jetstream(timeout=CONNECT_TIMEOUT_S))

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""
        self._reconnected.append(call)

    def watching(self, watch: NatsWatch) -> None:
        """Remember a watch, so that it is stopped before the connection is drained."""
        self._watches.append(watch)

    # -- changing over

    async def renew(self) -> None:
        """Change over to a new connection with the login of now; no message is lost and none comes twice.

        Raises what `connect` raises; then the old connection goes on as long as the server lets it.
        """
        async with self._changing:
            before = self._client
            fresh = await self._dial()
            await self._change_over(fresh)
            self.renewals += 1
            self._former.add(before)
            for subscription in tuple(self._subscriptions):
                await subscription.leave(before)
            loop = asyncio.get_running_loop()
            handle = loop.call_later(OUTLIVE_MS / 1_000, self._let_go, before)
            self._leaving.add(handle)

    async def _change_over(self, fresh: StrictClient) -> None:
        try:
            for subscription in tuple(self._subscriptions):
                await subscription.open(fresh)
            await fresh.flush(CONNECT_TIMEOUT_S)
        except (nats.errors.Error, TimeoutError) as error:
            await _close(fresh)
            raise NotConnected(f"the new connection was lost at once: {type(error).__name__}") from error
        self._current = fresh
        self.reason = None

    def _let_go(self, client: StrictClient) -> None:
        self._former.discard(client)
        task = asyncio.get_running_loop().create_task(_close(client))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _dial(self) -> StrictClient:
        if self._logins is None:
            return await self._dial_with(None)
        login = await self._logins.login()
        try:
            return await self._dial_with(login)
        except NotAuthenticated:
            # a token from a file may have been revoked since; what it was bought with may still be good
            self._logins.refused()
            other = await self._logins.login()
            if other == login:
                raise
            return await self._dial_with(other)

    async def _dial_with(self, login: Login | None) -> StrictClient:
        self._is_token = login is not None and login.token is not None
        mine: list[StrictClient] = []

        def is_mine() -> bool:
            return bool(mine) and mine[0] is self._current

        async def disconnected() -> None:
            if not self._is_closing and is_mine():
                self.losses += 1
                log.warning("bus.disconnected")

        async def reconnected() -> None:
            log.info("bus.reconnected", server=str(self._client.connected_server_version))
            self._tell_reconnected()

        async def closed() -> None:
            if self._is_closing or not mine:
                return
            if not is_mine():
                self._former.discard(mine[0])
            elif self._healing is None:
                self._healing = asyncio.get_running_loop().create_task(self._heal(), name="bus:heal")

        calls = Calls(errored=self._errored, disconnected=disconnected, reconnected=reconnected, closed=closed)
        client = await dial(self._endpoint, login, name=self._name, inbox=self._inbox, calls=calls)
        mine.append(client)
        return client

    async def _heal(self) -> None:
        """Replace a connection that the server has ended, however long it takes."""
        pause_ms, dice, told = HEAL_MS, Random(), ""  # noqa: S311 - spreads attempts, guards nothing
        try:
            while not self._is_closing:
                try:
                    async with self._changing:
                        await self._change_over(await self._dial())
                except AntiphonError as error:
                    self.reason = error.text
                    if told != error.text:  # once for each reason, not once for each attempt
                        told = error.text
                        log.warning("bus.not_healed", code=error.code, error=error.text)
                    await asyncio.sleep(pause_ms * dice.uniform(0.5, 1.0) / 1_000)
                    pause_ms = min(2 * pause_ms, HEAL_MS_MAX)
                else:
                    log.info("bus.reconnected", server=str(self._client.connected_server_version))
                    self._tell_reconnected()
                    return
        finally:
            self._healing = None

    def _tell_reconnected(self) -> None:
        for call in self._reconnected:
            call()

    async def _errored(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"[:300]
        if "permissions violation" in text.lower():
            self.violations += 1
            now_s = asyncio.get_running_loop().time()
            if self.violations == 1 or now_s - self._violated_s > VIOLATIONS_MS / 1_000:
                self._violated_s = now_s
                log.warning("bus.not_permitted", error=text, times=self.violations)
            return
        is_trying = self._current is None or not self._current.is_connected or self._healing is not None
        (log.debug if is_trying else log.warning)("bus.error", error=text)

    async def close(self) -> None:
        """Drain every subscription, send what is left, and disconnect."""
        self._is_closing = True
        for watch in tuple(self._watches):
            await watch.stop()
        if self._healing is not None:
            self._healing.cancel()
            with suppress(asyncio.CancelledError):
                await self._healing
        for handle in self._leaving:
            handle.cancel()
        for former in tuple(self._former):
            await _close(former)
        if self._ending:
            await asyncio.wait(self._ending)
        await _close(self._client)


async def _close(client: StrictClient) -> None:
    try:
        await client.drain()
    except (nats.errors.Error, OSError, TimeoutError):
        with suppress(Exception):
            await client.close()


class NatsSubscription:
    """Interest in a subject, on whatever connection there is."""

    def __init__(
        self, transport: NatsTransport, subject: str, receive: Receive, queue: str, take: Take | None = None
    ) -> None:
        self.subject = subject
        self._take = take
        self._transport = transport
        self._receive = receive
        self._queue = queue
        self._on: dict[StrictClient, nats.aio.subscription.Subscription] = {}

    async def open(self, client: StrictClient) -> None:
        """Subscribe on one more connection; on those that are closed there is none any more."""
        self._on = {one: subscription for one, subscription in self._on.items() if not one.is_closed}
        made: nats.aio.subscription.Subscription
        made = await cast("Any", client).subscribe(self.subject, self._queue, self._receive)
        self._on[client] = made
        if self._take is not None:
            client.taps[made._id] = self._take  # noqa: SLF001 - how nats-py knows it

    async def leave(self, client: StrictClient) -> None:
        """Take no more from one connection, and return when all that had arrived there were received."""
        subscription = self._on.pop(client, None)
        if subscription is None:
            return
        if self._take is not None:
            client.taps.pop(subscription._id, None)  # noqa: SLF001 - how nats-py knows it
        try:
            await asyncio.wait_for(subscription.drain(), DRAIN_TIMEOUT_S / 2)  # type: ignore[no-untyped-call]
        except (nats.errors.Error, TimeoutError, OSError) as error:
            log.info("bus.not_drained", subject=self.subject, error=type(error).__name__)

    async def drain(self) -> None:
        """Take no more, and return when all that had arrived were received; without a connection, at once."""
        self._transport.forget(self)
        for client in tuple(self._on):
            await self.leave(client)
