"""The NATS transport: connections that come and go below subscriptions that stay.

With `dial.py`, `strict.py` and `buckets.py` the only importer of nats-py. A lost connection is tried again for ever;
meanwhile publishes fail at once with `NotConnected`, because a request that waits in a buffer is answered after its
asker has gone.

Where the login is a token, a connection does not outlive it: `renew` makes a second one with a new token, subscribes
everything on it, and lets the first one go when what it brought has been answered (make before break). Each
subscription without a queue group is in a group of its own that the two connections share, so that every message
comes once meanwhile. A connection that the server has ended for good (its token expired, somebody was kicked) is
replaced in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, cast

import nats.aio.subscription
import nats.errors
import structlog
from nats.js.client import JetStreamContext

from antiphon.bus.buckets import NatsWatch, open_bucket, open_counter
from antiphon.bus.codec import size_of
from antiphon.bus.dial import CONNECT_TIMEOUT_S, Calls, dial
from antiphon.bus.endpoint import Endpoint
from antiphon.bus.journals import open_journal
from antiphon.bus.protocol import (
    Bucket,
    Counter,
    CounterStream,
    Delivery,
    Headers,
    Journal,
    JournalStream,
    KeyValue,
    Login,
    Logins,
    Receive,
    Subscription,
    Take,
)
from antiphon.bus.strict import StrictClient
from antiphon.errors import AntiphonError, NotAuthenticated, NotConnected, Oversize

log = structlog.get_logger("antiphon.bus")

OUTLIVE_MS = 61_000
"""How long a connection that was replaced stays for answers: the longest budget of a request, and a second."""
HEAL_MS = 200
HEAL_MS_MAX = 10_000
"""First and longest pause between attempts to replace a connection that the server has ended."""
VIOLATIONS_MS = 60_000
"""How often it is logged that the server refuses something."""
REASONS_MAX = 16
"""Reasons that are logged for one loss; some have a number in them."""


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
        self._changing = asyncio.Lock()
        self._healing: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._leaving: dict[StrictClient, asyncio.TimerHandle] = {}
        self._violated_s = 0.0
        self._told: set[str] = set()
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
        if via is not client and isinstance(via, StrictClient) and via.is_connected:
            client = via  # one that is replaced, or one that replaces and has brought something already
        elif not client.is_connected:
            self.check()
        self._check_size(len(data) + (size_of(headers) if headers else 0))
        try:
            await client.publish(subject, data, reply, cast("dict[str, str] | None", headers))
        except (nats.errors.Error, OSError) as error:
            raise NotConnected(f"not sent: {type(error).__name__}") from error

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.payload_max:
            raise Oversize(f"{size_bytes} bytes; the server takes {self.payload_max}")

    async def publish_each(self, ways: Sequence[tuple[str, str]], data: bytes) -> None:
        """Send the same payload to each (subject, reply), as one burst."""
        self.check()
        self._check_size(len(data))
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
        self._subscriptions.add(subscription)  # before the first wait: a renewal meanwhile takes it along
        try:
            while not subscription.is_on(client := self._client):
                await subscription.open(client)
        except nats.errors.ConnectionClosedError as error:
            if self._is_closing:  # else it is opened on the next connection, as it would have been a moment earlier
                self.forget(subscription)
                raise NotConnected(f"not subscribed: {error}") from error
        return subscription

    def forget(self, subscription: NatsSubscription) -> None:
        """Subscribe it on no further connection."""
        self._subscriptions.discard(subscription)

    async def flush(self) -> None:
        """Return when the server has seen everything sent so far."""
        self.check()
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

    async def journal(self, stream: JournalStream) -> Journal:
        """Open a declared stream, creating it where it is missing."""
        return await open_journal(self, self._jetstream(), stream, self._inbox)

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

        Raises what `connect` raises; then the old connection goes on as long as the server lets it. Without a token
        there is nothing to renew.
        """
        if self._is_token:
            renewing = _begin(self._renew(), self._changes)
            try:
                await renewing
            except asyncio.CancelledError:
                if not self._is_closing or not renewing.cancelled():
                    raise
                raise NotConnected("the connection was closed while it was renewed") from None

    async def _renew(self) -> None:
        async with self._changing:
            before = self._client
            await self._change_over()
            self.renewals += 1
            self._former.add(before)
        try:
            await asyncio.gather(*(subscription.leave(before) for subscription in tuple(self._subscriptions)))
        finally:
            loop = asyncio.get_running_loop()
            self._leaving[before] = loop.call_later(OUTLIVE_MS / 1_000, self._let_go, before)

    async def _change_over(self) -> None:
        """Have everything on a new connection that is on the current one, which is no longer that then."""
        fresh = await self._dial()
        try:
            # again, as long as somebody subscribes meanwhile: between the last look and the change nobody can
            while behind := [one for one in self._subscriptions if not one.is_on(fresh)]:
                for subscription in behind:
                    await subscription.open(fresh)
                await fresh.flush(CONNECT_TIMEOUT_S)
            if not fresh.is_connected:
                raise nats.errors.ConnectionClosedError  # noqa: TRY301 - as it is said of one that is noticed above
        except (nats.errors.Error, OSError) as error:
            await fresh.end()
            raise NotConnected(f"the new connection was lost at once: {type(error).__name__}") from error
        except BaseException:
            await fresh.end()  # nobody knows it: what it took would be lost
            raise
        self._current = fresh
        self.reason = None

    def _let_go(self, client: StrictClient) -> None:
        del self._leaving[client]
        self._former.discard(client)
        _begin(client.end(), self._ends)

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
            return bool(mine) and mine[0] is self._current and not self._is_closing

        async def errored(error: Exception) -> None:
            self._errored(error, is_current=is_mine())

        async def disconnected() -> None:
            if is_mine():
                self.losses += 1
                log.warning("bus.disconnected")

        async def reconnected() -> None:
            self._back()

        async def closed() -> None:
            if is_mine() and self._healing is None:
                self._healing = _begin(self._heal(), self._changes)
            elif mine:
                self._former.discard(mine[0])

        calls = Calls(errored=errored, disconnected=disconnected, reconnected=reconnected, closed=closed)
        client = await dial(self._endpoint, login, name=self._name, inbox=self._inbox, calls=calls)
        mine.append(client)
        return client

    async def _heal(self) -> None:
        """Replace a connection that the server has ended, however long it takes."""
        pause_ms, dice = HEAL_MS, Random()  # noqa: S311 - spreads attempts, guards nothing
        try:
            while not await self._is_healed():
                await asyncio.sleep(pause_ms * dice.uniform(0.5, 1.0) / 1_000)
                pause_ms = min(2 * pause_ms, HEAL_MS_MAX)
        finally:
            self._healing = None
        self._back()

    async def _is_healed(self) -> bool:
        try:
            async with self._changing:
                if not self._client.is_connected:  # a renewal may have done it
                    await self._change_over()
        except AntiphonError as error:
            self._not_back(error.code, error.text)
        except OSError as error:  # of a credential file
            self._not_back(type(error).__name__, str(error))
        else:
            return True
        return False

    def _not_back(self, code: str, text: str) -> None:
        """Note why there is no connection, once for each reason and not once for each attempt."""
        self.reason = text
        if text not in self._told and len(self._told) < REASONS_MAX:
            self._told.add(text)
            log.warning("bus.not_healed", code=code, error=text)

    def _back(self) -> None:
        self.reason = None
        self._told.clear()
        log.info("bus.reconnected", server=str(self._client.connected_server_version))
        for call in self._reconnected:
            call()

    def _errored(self, error: Exception, *, is_current: bool) -> None:
        text = f"{type(error).__name__}: {error}"[:300]
        if "permissions violation" in text.lower():
            self.violations += 1
            now_s = asyncio.get_running_loop().time()
            if self.violations == 1 or now_s - self._violated_s > VIOLATIONS_MS / 1_000:
                self._violated_s = now_s
                log.warning("bus.not_permitted", error=text, times=self.violations)
        elif is_current and not self._client.is_connected:
            self._not_back(type(error).__name__, text)
        else:
            (log.warning if is_current else log.debug)("bus.error", error=text)

    async def close(self) -> None:
        """Drain every subscription, send what is left, and disconnect; a change that is under way is given up."""
        self._is_closing = True
        for watch in tuple(self._watches):
            await watch.stop()
        changes = set(self._changes)
        for change in changes:
            change.cancel()
        if changes:
            await asyncio.wait(changes)
        for handle in self._leaving.values():
            handle.cancel()
        await asyncio.gather(*(client.end() for client in {*self._former, self._client}), *self._ends)


def _begin(work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(work)
    among.add(task)
    task.add_done_callback(among.discard)
    return task


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
        self._is_drained = False
        self._on: dict[StrictClient, nats.aio.subscription.Subscription] = {}

    def is_on(self, client: StrictClient) -> bool:
        """Whether it need not be opened there any more."""
        return self._is_drained or client in self._on

    async def open(self, client: StrictClient) -> None:
        """Subscribe on one more connection; on those that are closed there is none any more."""
        self._on = {one: subscription for one, subscription in self._on.items() if not one.is_closed}
        if self.is_on(client):
            return
        self._on[client] = await client.listen(self.subject, self._queue, self._receive, self._take)
        if self._is_drained:  # meanwhile
            await self.leave(client)

    async def leave(self, client: StrictClient) -> None:
        """Take no more from one connection, and return when all that had arrived there were received."""
        subscription = self._on.pop(client, None)
        if subscription is None or client.is_closed:
            return
        try:
            await client.leave(subscription)
        except (nats.errors.Error, OSError) as error:  # a TimeoutError is one, too
            log.info("bus.not_drained", subject=self.subject, error=type(error).__name__)

    async def drain(self) -> None:
        """Take no more, and return when all that had arrived were received; without a connection, at once."""
        self._is_drained = True
        self._transport.forget(self)
        for client in tuple(self._on):
            await self.leave(client)
