"""A NATS server in this process: the same laws without a network, for tests and for nodes inside a master.

What is kept true: subjects and wildcards, queue groups, order within a subscription, replies, "no responders",
the payload bound, key-values with revisions and watches, and that a receiver never runs inside the sender's call.
Each subscription hands its messages to one task, as nats-py does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from antiphon.bus.codec import size_of
from antiphon.bus.memory_journal import MemoryJournal, MemoryLog, MemoryReader
from antiphon.bus.protocol import (
    NO_RESPONDERS,
    STATUS,
    Bucket,
    CounterStream,
    Delivery,
    Entry,
    Hand,
    Headers,
    JournalStream,
    KeyValue,
    Receive,
    Take,
)
from antiphon.clock import Clock, LoopClock
from antiphon.errors import NotConnected, Oversize

log = structlog.get_logger("antiphon.bus")


@dataclass(frozen=True, slots=True)
class MemoryDelivery:
    """One message on its way."""

    subject: str
    reply: str
    data: bytes
    headers: Headers | None


class Network(Protocol):
    """What lies between the connections: it may lose, delay, repeat or change what they send (`antiphon.testing`)."""

    def carry(
        self, sender: str, receiver: str, delivery: MemoryDelivery, offer: Callable[[MemoryDelivery], None]
    ) -> None:
        """Carry a message from one party to another: call `offer` now, later, more than once, or never."""


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription pattern (`*` one token, `>` the rest) matches a concrete subject."""
    head = pattern.partition("*")[0].partition(">")[0]
    if not subject.startswith(head):  # as nearly always
        return False
    wanted, given = pattern.split("."), subject.split(".")
    for at, want in enumerate(wanted):
        if want == ">":
            return len(given) > at
        if at >= len(given) or want not in ("*", given[at]):
            return False
    return len(wanted) == len(given)


class MemorySubscription:
    """Interest of one connection in a subject."""

    def __init__(
        self, server: MemoryServer, pattern: str, receive: Receive, queue: str | None, *, party: str = ""
    ) -> None:
        self.pattern = pattern
        self.queue = queue
        self.party = party
        self.is_drained = False
        self._server = server
        self._receive = receive
        self._pending: asyncio.Queue[MemoryDelivery] = asyncio.Queue(server.pending_max)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"memory:{pattern}")

    def offer(self, delivery: MemoryDelivery) -> None:
        """Queue a message; a subscriber that is too slow loses it, as on the real server."""
        with suppress(asyncio.QueueFull):
            self._pending.put_nowait(delivery)

    async def _run(self) -> None:
        while True:
            delivery = await self._pending.get()
            try:
                await self._receive(delivery)
            except Exception:
                # as in nats-py: a bug in a receiver loses its message, not the subscription
                log.exception("bus.receiver_bug", subject=delivery.subject)
            finally:
                self._pending.task_done()

    async def drain(self) -> None:
        """Take no more, and return when all that had arrived were received."""
        self.is_drained = True
        self._server.forget(self)
        if not self._task.done():
            await self._pending.join()
        self._task.cancel()

    def kill(self) -> None:
        """Take no more, and forget what had arrived."""
        self.is_drained = True
        self._server.forget(self)
        self._task.cancel()
        while not self._pending.empty():
            self._pending.get_nowait()
            self._pending.task_done()


@dataclass(slots=True)
class MemoryBucket:
    """A bucket: the last value of each key, the deleted ones too."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    revision: int = 0
    watches: list[MemoryWatch] = field(default_factory=list["MemoryWatch"])

    def write(self, key: str, value: bytes | None) -> int:
        """Write, tell the watches, and return the new revision."""
        self.revision += 1
        entry = Entry(key, value, self.revision)
        self.entries[key] = entry
        for watch in self.watches:
            asyncio.get_running_loop().call_soon(watch.report, entry)
        return self.revision


class MemoryWatch:
    """A running watch; it knows what it has reported, so that after a lost connection it can compare."""

    def __init__(self, transport: MemoryTransport, bucket: MemoryBucket, changed: Callable[[Entry], None]) -> None:
        self._transport = transport
        self._bucket = bucket
        self._changed = changed
        self._known: dict[str, int] = {}
        bucket.watches.append(self)
        transport.on_reconnect(self.compare)

    def compare(self) -> None:
        """Report whatever is not as it was reported last."""
        for entry in sorted(self._bucket.entries.values(), key=lambda e: e.revision):
            self.report(entry)

    def report(self, entry: Entry) -> None:
        """Report one entry, unless it is known, or the connection is lost."""
        if self not in self._bucket.watches or not self._transport.is_connected:
            return
        known = self._known.get(entry.key, 0)
        if entry.revision > known and not (entry.value is None and known == 0):
            self._known[entry.key] = entry.revision
            self._changed(entry)

    async def stop(self) -> None:
        """Report no more changes."""
        with suppress(ValueError):
            self._bucket.watches.remove(self)


class MemoryKeyValue:
    """One connection's hold of a bucket."""

    def __init__(self, transport: MemoryTransport, bucket: MemoryBucket) -> None:
        self._transport = transport
        self._bucket = bucket

    async def get(self, key: str) -> Entry | None:
        """Return the entry, or None when there is no such key."""
        self._transport.check()
        entry = self._bucket.entries.get(key)
        return None if entry is None or entry.value is None else entry

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the new revision."""
        self._transport.check()
        return self._bucket.write(key, value)

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Write if the key's last revision is `revision`; a deleted key counts as 0, as a missing one does."""
        self._transport.check()
        last = self._bucket.entries.get(key)
        current = 0 if last is None or last.value is None else last.revision
        return self._bucket.write(key, value) if current == revision else None

    async def delete(self, key: str) -> None:
        """Delete; deleting what is not there is no error."""
        if await self.get(key) is not None:
            self._bucket.write(key, None)

    async def drop(self, key: str, revision: int) -> int | None:
        """Delete if the key's last revision is `revision`."""
        entry = await self.get(key)
        return self._bucket.write(key, None) if entry is not None and entry.revision == revision else None

    async def watch(self, changed: Callable[[Entry], None]) -> MemoryWatch:
        """Report every key now in the bucket, return, and report every change from then on."""
        self._transport.check()
        watch = MemoryWatch(self._transport, self._bucket, changed)
        watch.compare()
        return watch


class MemoryCounter:
    """One connection's hold of the counters."""

    def __init__(self, transport: MemoryTransport, values: dict[str, int]) -> None:
        self._transport = transport
        self._values = values

    async def add(self, subject: str, delta: int) -> int:
        """Add to a counter and return its new value."""
        self._transport.check()
        self._values[subject] = value = self._values.get(subject, 0) + delta
        return value

    async def value(self, subject: str) -> int:
        """Return a counter's value."""
        self._transport.check()
        return self._values.get(subject, 0)


class MemoryServer:
    """The server that memory transports connect to.

    A `network` stands between them, where one is given; without one, messages arrive as they are, at once.
    """

    network: Network | None = None

    def __init__(
        self, *, seed: int = 0, payload_max: int = 1024 * 1024, pending_max: int = 65_536, clock: Clock | None = None
    ) -> None:
        self.clock = clock or LoopClock()
        self.payload_max = payload_max
        self.pending_max = pending_max
        self.buckets: dict[str, MemoryBucket] = {}
        self.counters: dict[str, dict[str, int]] = {}
        self.logs: dict[str, MemoryLog] = {}
        self._dice = random.Random(seed)  # noqa: S311 - repeatable choice of a queue member, no secret
        self._exact: dict[str, list[MemorySubscription]] = {}
        """Those without wildcards, by subject: most of them, found at once."""
        self._wild: list[MemorySubscription] = []

    def connect(self, party: str = "") -> MemoryTransport:
        """Return a new connection; `party` is what the network knows it by."""
        return MemoryTransport(self, party)

    def subscribe(self, pattern: str, receive: Receive, queue: str | None, party: str = "") -> MemorySubscription:
        """Add interest."""
        subscription = MemorySubscription(self, pattern, receive, queue, party=party)
        self.remember(subscription)
        return subscription

    def remember(self, subscription: MemorySubscription) -> None:
        """Have the interest of a connection that is back, unless it was drained meanwhile."""
        if not subscription.is_drained:
            self._like(subscription).append(subscription)

    def forget(self, subscription: MemorySubscription) -> None:
        """Remove interest."""
        with suppress(ValueError):
            self._like(subscription).remove(subscription)

    def _like(self, subscription: MemorySubscription) -> list[MemorySubscription]:
        pattern = subscription.pattern
        return self._wild if "*" in pattern or ">" in pattern else self._exact.setdefault(pattern, [])

    def route(self, delivery: MemoryDelivery, sender: str = "") -> int:
        """Hand a message to subscribers, one of each queue group, and streams; return how many are to get it."""
        keeping = [log for log in self.logs.values() if any(matches(p, delivery.subject) for p in log.stream.subjects)]
        for kept in keeping:
            self._store(kept, delivery, sender)
        groups: dict[tuple[str, str], list[MemorySubscription]] = {}
        singles: list[MemorySubscription] = []
        wild = (one for one in self._wild if matches(one.pattern, delivery.subject))
        for subscription in (*self._exact.get(delivery.subject, ()), *wild):
            if subscription.queue is None:
                singles.append(subscription)
            else:
                groups.setdefault((subscription.queue, subscription.pattern), []).append(subscription)
        chosen = singles + [self._dice.choice(members) for members in groups.values()]
        for subscription in chosen:
            if self.network is None:
                subscription.offer(delivery)
            else:
                self.network.carry(sender, subscription.party, delivery, subscription.offer)
        return len(chosen) + len(keeping)

    def _store(self, kept: MemoryLog, delivery: MemoryDelivery, sender: str) -> None:
        def offer(one: MemoryDelivery) -> None:
            if kept.store(one.subject, one.data) and one.reply and not kept.stream.no_ack:
                ack = f'{{"stream":"{kept.stream.name}","seq":{kept.sequence}}}'
                self.route(MemoryDelivery(one.reply, "", ack.encode(), None))

        if self.network is None:
            offer(delivery)
        else:
            self.network.carry(sender, "", delivery, offer)


class MemoryTransport:
    """One connection to a `MemoryServer`."""

    def __init__(self, server: MemoryServer, party: str = "") -> None:
        self._server = server
        self.party = party
        self._subscriptions: list[MemorySubscription] = []
        self._reconnected: list[Callable[[], None]] = []
        self._closed = False
        self.losses = 0
        self._severed = False

    @property
    def payload_max(self) -> int:
        """The largest payload in bytes."""
        return self._server.payload_max

    @property
    def is_connected(self) -> bool:
        """Whether a publish now would leave this connection."""
        return not (self._closed or self._severed)

    def check(self) -> None:
        """Raise `NotConnected` unless there is a connection."""
        if not self.is_connected:
            raise NotConnected("the memory connection is closed" if self._closed else "the memory server is away")

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        reply: str = "",
        headers: Headers | None = None,
        via: object = None,  # noqa: ARG002 - there is one way here
    ) -> None:
        """Send; the receivers run later, never inside this call."""
        self.check()
        size_bytes = len(data) + (size_of(headers) if headers else 0)
        if size_bytes > self.payload_max:
            raise Oversize(f"{size_bytes} bytes; the server takes {self.payload_max}")
        delivery = MemoryDelivery(subject, reply, bytes(data), None if headers is None else dict(headers))
        if self._server.route(delivery, self.party) == 0 and reply:
            self._server.route(MemoryDelivery(reply, "", b"", {STATUS: NO_RESPONDERS}))

    async def publish_each(self, ways: Sequence[tuple[str, str]], data: bytes) -> None:
        """Send the same payload to each (subject, reply)."""
        for subject, reply in ways:
            await self.publish(subject, data, reply=reply)

    async def tap(self, subject: str, take: Take) -> MemorySubscription:
        """Take what is published on a subject; here by a task, because no receiver runs inside a sender's call."""
        return await self.hand(subject, lambda one: take(one.subject, one.data, one.headers))

    async def hand(self, subject: str, hand: Hand, *, queue: str | None = None) -> MemorySubscription:
        """Receive what is published on a subject; by a task, as above."""

        async def receive(delivery: Delivery) -> None:
            hand(delivery)

        return await self.subscribe(subject, receive, queue=queue)

    async def subscribe(self, subject: str, receive: Receive, *, queue: str | None = None) -> MemorySubscription:
        """Receive what is published on a subject; while the server is away, from when it is back."""
        if self._closed:
            self.check()
        subscription = self._server.subscribe(subject, receive, queue, self.party)
        self._subscriptions.append(subscription)
        if self._severed:
            self._server.forget(subscription)
        return subscription

    async def flush(self) -> None:
        """Let everything that was sent reach its subscription."""
        await asyncio.sleep(0)

    async def key_value(self, bucket: Bucket) -> KeyValue:
        """Open a declared bucket."""
        self.check()
        return MemoryKeyValue(self, self._server.buckets.setdefault(bucket.name, MemoryBucket()))

    async def counter(self, stream: CounterStream) -> MemoryCounter:
        """Open declared counters."""
        self.check()
        return MemoryCounter(self, self._server.counters.setdefault(stream.name, {}))

    async def journal(self, stream: JournalStream) -> MemoryJournal:
        """Open a declared stream."""
        self.check()
        clock = self._server.clock
        return MemoryJournal(self, self._server.logs.setdefault(stream.name, MemoryLog(stream, clock)), clock)

    async def reader(self, stream: str, *, is_masters: bool = False) -> MemoryReader:  # noqa: ARG002 - one place here
        """Read a stream by its name."""
        return MemoryReader(self, self._server.logs, stream)

    @property
    def asks_for_login(self) -> bool:
        """Whether anybody is asked who he is: nobody is."""
        return False

    def way_of(self, delivery: Delivery) -> object:  # noqa: ARG002 - there is one way here
        """Return nothing: every message came by the one connection."""
        return None

    async def renew(self) -> None:
        """Have nothing to renew: nobody logs in here."""

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""
        self._reconnected.append(call)

    def sever(self) -> None:
        """Lose the connection, for tests: publishes are refused until `mend`."""
        self._severed = True
        self.losses += 1
        for subscription in self._subscriptions:
            self._server.forget(subscription)

    def mend(self) -> None:
        """Have the connection back."""
        self._severed = False
        for subscription in self._subscriptions:
            self._server.remember(subscription)
        for call in self._reconnected:
            call()

    def kill(self) -> None:
        """Lose the connection for good, as a process does that is killed: what had arrived is not received."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.kill()

    async def close(self) -> None:
        """Drain every subscription and disconnect."""
        for subscription in self._subscriptions:
            await subscription.drain()
        self._closed = True
