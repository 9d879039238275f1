"""What a bus is made of: a transport that carries bytes, and key-values.

There are two transports, `bus.nats` and `bus.memory`, under one suite of laws (`tests/contract`); everything typed
stands once, above them, in `bus.bus`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

STATUS = "Status"
"""Header of the server's own replies; `503` means that nobody listens on the subject."""
NO_RESPONDERS = "503"

Headers = Mapping[str, str]


class Delivery(Protocol):
    """One message as it arrived."""

    @property
    def subject(self) -> str:
        """The subject it was published on."""
        ...

    @property
    def reply(self) -> str:
        """Where an answer goes; empty when none is wanted."""
        ...

    @property
    def data(self) -> bytes:
        """The payload."""
        ...

    @property
    def headers(self) -> Headers | None:
        """The headers, or None."""
        ...


Receive = Callable[[Delivery], Awaitable[None]]
Hand = Callable[[Delivery], None]
"""Called with a message as it is read from the connection; it must not block."""
Take = Callable[[str, bytes, Headers | None], None]
"""Called with subject, payload and headers as a message is read from the connection; it must not block."""


class Subscription(Protocol):
    """Interest in a subject; its messages arrive in order, one at a time."""

    async def drain(self) -> None:
        """Take no more, and return when all that had arrived were received."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a bucket at one revision; `value` is None when the key was deleted.

    `is_lost`: nobody deleted it; the server has lost it, e.g. came back without its data.
    """

    key: str
    value: bytes | None
    revision: int
    is_lost: bool = False


class Watch(Protocol):
    """A running watch of a bucket."""

    async def stop(self) -> None:
        """Report no more changes."""


class KeyValue(Protocol):
    """A bucket: the last value of each key, with revisions that only grow."""

    async def get(self, key: str) -> Entry | None:
        """Return the entry, or None when there is no such key."""

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the new revision."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int | None:
        """Write if the key's last revision is `revision` (0: no such key); return the new one, or None if it is not."""

    async def delete(self, key: str) -> None:
        """Delete; deleting what is not there is no error."""

    async def drop(self, key: str, revision: int) -> int | None:
        """Delete if the key's last revision is `revision`; return the new one, or None if it is not."""

    async def watch(self, changed: Callable[[Entry], None]) -> Watch:
        """Report every key now in the bucket, return, and report every change from then on.

        After a lost connection the whole bucket is compared again: what went away meanwhile is reported as deleted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bucket:
    """A declared bucket, see `bus.assets`."""

    name: str
    description: str
    value_bytes_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class CounterStream:
    """A declared stream of counters (ADR-49), one a subject, see `bus.assets`."""

    name: str
    subjects: str
    keep_ms: int
    counters_max: int


@dataclass(frozen=True, slots=True)
class JournalStream:
    """A declared stream of messages that are kept, see `bus.assets`; whoever may publish on its subjects writes it.

    Attributes:
        name: the stream's.
        subjects: the patterns of subjects that it keeps.
        description: what it is for.
        keep_ms: how long a message is kept; 0: for good.
        bytes_max: of all messages together.
        message_bytes_max: of one message; a larger one is not stored.
        per_subject_max: messages of one subject; the oldest go first; -1 is no bound of its own.
        is_masters: it lies where nobody but masters comes, where there is such a place; what is published on its
            subjects elsewhere is not kept then.
        refuses_when_full: nothing is given up for what is new: that is refused.
        keeps_first: of one subject the first message stays, and whatever comes after it is refused.
        no_ack: it acknowledges nothing and takes what is plainly published. Others than masters may write it, and the
            server's acknowledgement would go, as a message of the server's own, wherever they aim it. Not for `append`.
        has_timers: it takes `schedule`. The server gives up the oldest of such a stream, whatever else is said here.
    """

    name: str
    subjects: tuple[str, ...]
    description: str
    keep_ms: int
    bytes_max: int
    message_bytes_max: int
    per_subject_max: int
    is_masters: bool = False
    refuses_when_full: bool = False
    keeps_first: bool = False
    has_timers: bool = False
    no_ack: bool = False


@dataclass(frozen=True, slots=True)
class Stored:
    """One message as a stream keeps it; sequences of one stream only grow. `at_ms`: the server's stamp, UTC."""

    subject: str
    sequence: int
    data: bytes
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """Which stream it is, and what is kept of it now.

    Attributes:
        created_us: when it was made, UTC; a stream that was lost and made again has another.
        first: the oldest sequence that is kept, the next one where there is none.
        last: the newest sequence that there was.
    """

    created_us: int
    first: int
    last: int


class Reader(Protocol):
    """A stream as it is read from its beginning to its end, with no consumer: the reader keeps its own position."""

    async def extent(self) -> Extent | None:
        """Return which stream it is and what is kept of it; None where there is none. Raises `NotConnected`."""

    async def read(self, after: int, *, messages_max: int, bytes_max: int) -> list[Stored]:
        """Return the next messages behind a sequence, oldest first, at least one where there is any.

        A server does not answer who reads a stream that there is not. Raises `NotConnected`.
        """
        ...


Follow = Callable[[Stored], Awaitable[bool]]
"""Takes a message of a stream; returns whether it is done with it, else it comes again, here or to another follower."""


class Journal(Protocol):
    """One connection's hold of a stream."""

    async def append(
        self, subject: str, data: bytes, *, over: str | None = None, last: int = 0, keep_ms: int | None = None
    ) -> int | None:
        """Store and return the sequence, once the server has it.

        With `over`, a pattern, only if the last sequence over all subjects that match it is `last` (0: there is none);
        else None, as for a subject that is taken in a stream that keeps the first. With `keep_ms` it is kept so long.
        Raises `NotConnected` where it may or may not have been stored, `Overloaded` where the stream is full.
        """

    async def schedule(
        self, subject: str, data: bytes, *, target: str, at_ms: int, is_first: bool = False, keep_ms: int | None = None
    ) -> bool:
        """Have the server store the same under `target` at a time, UTC, and keep it under `subject` until then.

        With `keep_ms` what is stored then is kept so long. A timer under the same subject is replaced; with `is_first`
        this one is refused instead, and False returned.
        One that is due is stored at once, and all of them up to a quarter of a second late. Raises `NotConnected`.
        """
        ...

    async def follow(self, name: str, pattern: str, take: Follow) -> Subscription:
        """Take what is stored under a pattern, from the beginning; of all who follow under a name one gets each.

        What nobody was done with comes again, after at most half a minute, also after everybody has gone meanwhile.
        """
        ...

    async def last(self, *patterns: str) -> list[Stored]:
        """Return the last message of each subject that matches a pattern, oldest first.

        A message that was published a moment ago may not have been stored yet. Raises `Oversize` for more than 1,024
        subjects, `NotConnected` without an answer.
        """
        ...

    async def subjects(self, pattern: str) -> list[str]:
        """Return all subjects that match a pattern and have a message, sorted. Raises `NotConnected`."""
        ...

    async def now_ms(self) -> int:
        """Return the server's time, UTC, as it stamps what it stores. Raises `NotConnected`."""
        ...

    async def fill_permille(self) -> int:
        """Return how much of its bytes is taken, 1,000 where it is full. Raises `NotConnected`."""
        ...

    async def purge(self, pattern: str, *, before: int | None = None) -> None:
        """Forget what matches a pattern, with `before` only what has a lower sequence. Raises `NotConnected`."""


class Counter(Protocol):
    """Counts that all connections share exactly."""

    async def add(self, subject: str, delta: int) -> int:
        """Add to a counter and return its new value."""
        ...

    async def value(self, subject: str) -> int:
        """Return a counter's value, 0 where it was never added to."""
        ...


@dataclass(frozen=True, slots=True)
class Login:
    """What to show at a server's door.

    Attributes:
        nkey_seed: the user key whose owner signs the server's nonce.
        token: an access token, or what one is asked for with.
        expires_ms: when the token expires, on this process's monotonic clock; None for one that does not.
    """

    nkey_seed: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    expires_ms: int | None = None


class Logins(Protocol):
    """Where a transport gets its login from, at every connection anew."""

    async def login(self) -> Login:
        """Return the login of now; raises an `AntiphonError` where none can be had."""
        ...

    def refused(self) -> None:
        """Note that the server did not take the login of now: the next one has to be another."""


class Transport(Protocol):
    """A connection that carries bytes on subjects."""

    @property
    def payload_max(self) -> int:
        """The largest payload in bytes that the server takes."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether a publish now would leave this process."""
        ...

    @property
    def asks_for_login(self) -> bool:
        """Whether the server asked who this is; one that does not lets everybody in."""
        ...

    @property
    def losses(self) -> int:
        """How often the connection was lost so far: an answer may have been lost with it."""
        ...

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Headers | None = None, via: object = None
    ) -> None:
        """Send; at most once, no acknowledgement.

        `via` is the way that a message came by (`way_of`), where this answers it: the server lets only that one answer.
        Raises `NotConnected` or `Oversize`.
        """

    async def subscribe(self, subject: str, receive: Receive, *, queue: str | None = None) -> Subscription:
        """Receive what is published on a subject; of a queue group one member gets each message.

        While there is no connection, this takes effect with the next one. Raises `NotConnected` after `close`.
        """
        ...

    async def hand(self, subject: str, hand: Hand, *, queue: str | None = None) -> Subscription:
        """Receive what is published on a subject as it is read, in order: no queue and no task for each message."""
        ...

    async def publish_each(self, ways: Sequence[tuple[str, str]], data: bytes) -> None:
        """Send the same payload to each (subject, reply), as one burst. Raises `NotConnected` or `Oversize`."""

    async def tap(self, subject: str, take: Take) -> Subscription:
        """Take what is published on a subject as it is read: no queue, no task, no object for each message."""
        ...

    async def flush(self) -> None:
        """Return when the server has seen everything sent so far."""

    async def key_value(self, bucket: Bucket) -> KeyValue:
        """Open a declared bucket, creating it where it is missing."""
        ...

    async def counter(self, stream: CounterStream) -> Counter:
        """Open declared counters, creating the stream where it is missing."""
        ...

    async def journal(self, stream: JournalStream) -> Journal:
        """Open a declared stream, creating it where it is missing."""
        ...

    async def reader(self, stream: str, *, is_masters: bool = False) -> Reader:
        """Read a stream by its name, now or once there is one."""
        ...

    def way_of(self, delivery: Delivery) -> object:
        """Return the connection that brought a message: its answer has to take the same (`publish`)."""
        ...

    async def renew(self) -> None:
        """Change over to a new connection with the login of now; nothing is lost and nothing comes twice."""

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""

    async def close(self) -> None:
        """Drain every subscription, send what is left, and disconnect."""
