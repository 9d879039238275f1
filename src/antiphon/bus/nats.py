"""The NATS transport: one party's place on a server, whatever connection it has just now (`line.py`).

With `line.py`, `link.py`, `dial.py`, `strict.py`, `interest.py`, `buckets.py`, `journals.py` and `direct.py` the only
importer of nats-py. While the connection is lost, publishes fail at once with `NotConnected`, because a request that
waits in a buffer is answered after its asker has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js.client import JetStreamContext

from antiphon.bus.buckets import NatsWatch, open_bucket, open_counter
from antiphon.bus.codec import size_of
from antiphon.bus.dial import CONNECT_TIMEOUT_S
from antiphon.bus.direct import NatsReader
from antiphon.bus.endpoint import Endpoint
from antiphon.bus.headers import block_of
from antiphon.bus.interest import NatsSubscription
from antiphon.bus.journals import open_journal
from antiphon.bus.line import Line, Party
from antiphon.bus.link import NatsDelivery, Way
from antiphon.bus.protocol import (
    Bucket,
    Counter,
    CounterStream,
    Delivery,
    Hand,
    Headers,
    Journal,
    JournalStream,
    KeyValue,
    Logins,
    Reader,
    Receive,
    Subscription,
    Take,
)
from antiphon.bus.seldom import Seldom
from antiphon.errors import NotConnected, Oversize

log = structlog.get_logger("antiphon.bus")

VIOLATION = "permissions violation"
SELDOM_MS = 60_000
"""How often the same complaint is logged: whoever causes it must not fill the log."""


class CurrentJetStream(JetStreamContext):
    """JetStream over whatever connection there is at the moment."""

    def __init__(self, line: Line) -> None:
        self._line = line
        super().__init__(conn=line.link, timeout=CONNECT_TIMEOUT_S)

    @property
    def _nc(self) -> Client:
        return self._line.link

    @_nc.setter
    def _nc(self, _conn: Client) -> None:
        """Take no notice of the one that nats-py would keep."""


class NatsTransport:
    """One process's way to a NATS server, over one connection at a time, two while they change over."""

    def __init__(self, party: Party) -> None:
        self._inbox = party.inbox
        self._line = Line(party, self._errored)
        self._numbers = 0
        self._violated: list[Callable[[str], None]] = []
        self._seldom = Seldom()
        self.store: NatsTransport | None = None
        """The way to an account with the masters' buckets and counters and nobody else in it; None where it is this."""
        self.violations = 0
        """How often the server has refused a publish or a subscription."""

    @classmethod
    async def connect(cls, endpoint: Endpoint, *, name: str, inbox: str, logins: Logins | None = None) -> NatsTransport:
        """Connect.

        Args:
            endpoint: where, and what to show there unless there are logins.
            name: the connection's name on the server.
            inbox: the prefix of its private subjects; the last token is this session's own.
            logins: what to show, asked for at each connection.

        Raises `NotAuthenticated` when it is not let in, `NotConnected` when nobody is there, `ServerTooOld` for a
        server below the supported version, `InvalidSetting` for a file that is not what it should be, and what
        `logins` raises.
        """
        transport = cls(Party(endpoint, name, inbox, logins))
        await transport._line.begin()
        return transport

    @property
    def payload_max(self) -> int:
        """The largest payload in bytes that the server takes."""
        return int(self._line.link.max_payload)

    @property
    def is_connected(self) -> bool:
        """Whether a publish now would leave this process."""
        return self._line.link.is_live

    @property
    def asks_for_login(self) -> bool:
        """Whether the server asked who this is."""
        return self._line.link.asks_for_login

    @property
    def losses(self) -> int:
        """How often the connection was lost so far; one that was replaced was not."""
        return self._line.losses

    @property
    def renewals(self) -> int:
        """How often it was replaced."""
        return self._line.renewals

    @property
    def reason(self) -> str | None:
        """Why there is no connection now, where somebody has said so."""
        return self._line.reason

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection: nats-py would keep what is sent for the next one."""
        if not self._line.link.is_live:
            raise self._line.lost()

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        """Send; at most once, no acknowledgement. `via`: the connection that brought what this answers."""
        link = via.link if isinstance(via, Way) and via.link.is_live else self._line.link
        if not link.is_live:
            raise self._line.lost()
        block = block_of(headers) if headers else b""
        self._check_size(len(data) + (size_of(headers or {}) if block is None else len(block)))
        try:
            if block is not None and link.post(subject, reply, data, block):
                return
            await link.publish(subject, data, reply, headers)  # type: ignore[arg-type]  # it only reads them
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
            await self._line.link.publish_each(ways, data)
        except (nats.errors.Error, OSError) as error:
            raise NotConnected(f"not sent: {type(error).__name__}") from error

    async def tap(self, subject: str, take: Take) -> Subscription:
        """Take what is published on a subject as it is read."""
        return await self._subscribed(subject, None, take=take)

    async def hand(self, subject: str, hand: Hand, *, queue: str | None = None) -> Subscription:
        """Receive what is published on a subject as it is read."""
        return await self._subscribed(subject, queue, hand=hand)

    def way_of(self, delivery: Delivery) -> object:
        """Return the connection that brought a message."""
        return cast("NatsDelivery", delivery).via

    async def subscribe(self, subject: str, receive: Receive, *, queue: str | None = None) -> Subscription:
        """Receive what is published on a subject."""
        return await self._subscribed(subject, queue, receive=receive)

    async def _subscribed(
        self,
        subject: str,
        queue: str | None,
        *,
        receive: Receive | None = None,
        hand: Hand | None = None,
        take: Take | None = None,
    ) -> NatsSubscription:
        line = self._line
        if line.is_closing:
            raise NotConnected("not subscribed: the connection is closed")
        self._numbers += 1
        subscription = NatsSubscription(
            subject,
            receive=receive,
            hand=hand,
            take=take,
            queue=queue,
            number=self._numbers,
            is_inbox=subject.startswith(self._inbox + "."),
            dropped=self._dropped,
            drained=self._drained,
        )
        line.subscriptions[subscription] = None  # before the first wait: a renewal meanwhile takes it along
        try:
            while line.link.is_live and not subscription.is_on(link := line.link):
                await subscription.open(link)
        except (nats.errors.Error, OSError) as error:
            if line.is_closing:  # else it is opened on the next connection, as it would have been a moment earlier
                raise NotConnected(f"not subscribed: {error}") from error
        return subscription

    async def flush(self) -> None:
        """Return when the server has seen everything sent so far."""
        self.check()
        try:
            await self._line.link.flush(CONNECT_TIMEOUT_S)
        except (nats.errors.Error, OSError) as error:  # a TimeoutError is one, too
            raise NotConnected(f"not flushed: {type(error).__name__}") from error

    async def key_value(self, bucket: Bucket) -> KeyValue:
        """Open a declared bucket, creating it where it is missing."""
        if self.store is not None:
            return await self.store.key_value(bucket)
        return await open_bucket(self, CurrentJetStream(self._line), bucket)

    async def counter(self, stream: CounterStream) -> Counter:
        """Open declared counters, creating the stream where it is missing."""
        if self.store is not None:
            return await self.store.counter(stream)
        return await open_counter(self, CurrentJetStream(self._line), stream)

    async def journal(self, stream: JournalStream) -> Journal:
        """Open a declared stream, creating it where it is missing."""
        if self.store is not None and stream.is_masters:
            return await self.store.journal(stream)
        return await open_journal(self, CurrentJetStream(self._line), stream, self._inbox)

    async def reader(self, stream: str, *, is_masters: bool = False) -> Reader:
        """Read a stream by its name, now or once there is one."""
        if self.store is not None and is_masters:
            return await self.store.reader(stream)
        reader = NatsReader(self, CurrentJetStream(self._line), stream, self._inbox)
        await reader.start()
        return reader

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""
        self._line.reconnected.append(call)

    def on_violation(self, call: Callable[[str], None]) -> None:
        """Call whenever the server has refused a publish or a subscription; its words, lower-cased, are for people."""
        self._violated.append(call)

    @property
    def watches(self) -> set[NatsWatch]:
        """The running watches: they begin again on every new connection, and end before the last one."""
        return self._line.watches

    async def renew(self) -> None:
        """Change over to a new connection with the login of now; no message is lost and none comes twice.

        What is received may be out of order for some milliseconds. Returns when the new connection has taken over; the
        old one stays open until what came over it is answered, at most for `ANSWERS_MS` and not beyond its token.

        Raises what `connect` raises; then the old connection goes on as long as the server lets it. Without a token
        there is nothing to renew.
        """
        if self._line.is_token:
            await self._line.renew()

    async def close(self) -> None:
        """Drain every subscription, send what is left, and disconnect; a change that is under way is given up."""
        await self._line.close()

    # -- what the server and nats-py say

    async def _errored(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"[:300]
        times = self._due(text.partition('"')[0])
        if VIOLATION not in text.lower():
            if times:
                log.warning("bus.error", error=text, times=times)
            return
        self.violations += 1
        if times:
            log.warning("bus.not_permitted", error=text, times=times)
        for call in self._violated:
            call(text)

    def _dropped(self, subject: str) -> None:
        if times := self._due("dropped"):
            log.warning("bus.dropped", subject=subject, times=times)

    def _due(self, kind: str) -> int | None:
        return self._seldom.due(kind, round(asyncio.get_running_loop().time() * 1_000), SELDOM_MS)

    def _drained(self, subscription: NatsSubscription) -> None:
        self._line.subscriptions.pop(subscription, None)
