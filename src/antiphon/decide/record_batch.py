"""What a stretch of a stream becomes: rows by table, and dead facts for what cannot be read, all in the stream's order.

A message of the stream `facts` holds many facts. They are told apart without being read, so a fact that is no legal
message of its kind is kept with the very bytes that it came as.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import msgspec
from pydantic import ValidationError

from antiphon.decide import saga_rows
from antiphon.decide.record_rows import KINDS, Hide, Place, Row, as_is, rows, timestamp
from antiphon.decide.record_tables import TABLES
from antiphon.errors import AntiphonError, Malformed
from antiphon.messages.records import FACTS
from antiphon.messages.saga_history import OUTCOMES, SAGAS

WHOLE_BITS: Final[Mapping[str, int]] = MappingProxyType({"SMALLINT": 16, "INTEGER": 32, "BIGINT": 64})
BUCKETS: Final = ("registry", "breakers", "alerts")
"""The buckets that masters share; that of identities is not read: it holds what credentials are checked by."""
REASON_CHARS_MAX: Final = 300
DEAD_BYTES_MAX: Final = 1024 * 1024
"""Of the bytes that are kept of one: as many as a message may have."""


class _Line(msgspec.Struct):
    """One fact of a message, not read yet."""

    kind: str
    fact: msgspec.Raw


class _Lines(msgspec.Struct):
    """A message of the stream of facts."""

    facts: list[_Line]


_decode: Final = msgspec.json.Decoder(_Lines).decode


@dataclass(frozen=True, slots=True)
class Taken:
    """One message of a stream as it is taken from there."""

    subject: str
    sequence: int
    data: bytes
    at_ms: int


@dataclass(slots=True)
class Batch:
    """What some messages of one stream have become."""

    stream: str
    is_strict: bool = False
    """Whether each value is looked at: where the tables have refused a message, one fact shall take no other along."""
    rows: dict[str, list[Row]] = field(default_factory=dict[str, list[Row]])
    facts: int = 0
    dead: int = 0

    @property
    def count(self) -> int:
        """Rows of all tables."""
        return sum(map(len, self.rows.values()))

    def add(self, table: str, row: Row) -> None:
        """Take a row on."""
        self.rows.setdefault(table, []).append(row)

    def bury(self, place: Place, kind: str, data: bytes, reason: str) -> None:
        """Take a dead fact on."""
        self.dead += 1
        cut = (kind[:200], _plain(reason)[:REASON_CHARS_MAX], data[:DEAD_BYTES_MAX])
        self.add("dead_facts", (timestamp(place.at_ms), place.stream, place.sequence, place.index, *cut))


Read = Callable[[Taken, Batch, str, Hide], None]
"""Adds a message to a batch: the message, the batch, what its subject begins with, and what is stored of a query."""


def read(stream: str, messages: Iterable[Taken], prefix: str, hide: Hide = as_is, *, is_strict: bool = False) -> Batch:
    """Return what messages of a stream become."""
    batch, one = Batch(stream, is_strict), source(stream)
    shard = stream.rpartition("-")[0]
    beginning = f"{prefix}-{shard}" if shard else prefix
    for message in messages:
        one.read(message, batch, beginning, hide)
    return batch


def buried(stream: str, message: Taken, reason: str) -> Batch:
    """Return a message as dead as a whole: the tables refuse what it becomes."""
    batch = Batch(stream)
    batch.bury(_place(stream, message, 0), "", message.data, reason)
    return batch


def _facts(message: Taken, batch: Batch, _prefix: str, hide: Hide) -> None:
    try:
        lines = _decode(message.data).facts
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        batch.bury(_place(batch.stream, message, 0), "FactsKept", message.data, str(error))
        return
    for index, line in enumerate(lines):
        place, data = _place(batch.stream, message, index), bytes(line.fact)
        batch.facts += 1
        try:
            found = list(_rows(line.kind, data, place, hide))
        except (ValidationError, AntiphonError, ValueError, OverflowError) as error:
            batch.bury(place, line.kind, data, str(error))
            continue
        if batch.is_strict and (why := next(filter(None, (refused(*row) for row in found)), None)):
            batch.bury(place, line.kind, data, why)
            continue
        for table, row in found:
            batch.add(table, row)


def refused(table: str, row: Row) -> str | None:
    """Return why a table does not take a row, as far as its values tell.

    >>> refused("gaps", (None, "facts", 1, 2**63, "retention"))
    'last_seq: 9223372036854775808 is no BIGINT'
    """
    for (column, kind), value in zip(TABLES[table].items(), row, strict=True):
        bits = WHOLE_BITS.get(kind)
        if bits is not None and isinstance(value, int) and not -(2 ** (bits - 1)) <= value < 2 ** (bits - 1):
            return f"{column}: {value} is no {kind}"
    return None


def _rows(kind: str, data: bytes, place: Place, hide: Hide) -> Iterator[tuple[str, Row]]:
    known = KINDS.get(kind)
    if known is None:
        raise Malformed(f"no table is known for {kind!r}")
    return rows(known.__pydantic_validator__.validate_json(data), place, hide)


def _history(message: Taken, batch: Batch, prefix: str, _hide: Hide) -> None:
    place = _place(batch.stream, message, 0)
    batch.facts += 1
    try:
        rows_ = list(saga_rows.rows(message.subject, message.data, place, prefix))
    except (ValidationError, AntiphonError, ValueError, OverflowError) as error:
        batch.bury(place, message.subject, message.data, str(error))
        return
    for row in rows_:
        batch.add("saga_events", row)


def _bucket(message: Taken, batch: Batch, prefix: str, _hide: Hide) -> None:
    """Take what was written into a bucket; one without a value was a deletion. Who wrote it only the value may say."""
    batch.facts += 1
    bucket = batch.stream
    entry = message.subject.removeprefix(f"$KV.{prefix}-{bucket}.")
    value = message.data.decode("utf-8", "replace") or None
    operation = "delete" if value is None else "put"
    row = (timestamp(message.at_ms), None, message.sequence, 0, bucket, entry, operation, value)
    batch.add("bucket_writes", row)


def _place(stream: str, message: Taken, index: int) -> Place:
    return Place(stream, message.sequence, index, message.subject.rpartition(".")[2], message.at_ms)


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


@dataclass(frozen=True, slots=True)
class Source:
    """A stream that a recorder reads.

    Attributes:
        read: makes rows of its messages.
        is_masters: whether it is kept where only masters come.
        is_whole: whether every sequence is there until it is too old; of other streams messages are purged one by one.
        server_name: what the server calls it, from the fabric's prefix and the stream's name.
    """

    read: Read
    is_masters: bool
    is_whole: bool
    server_name: str = "{prefix}-{stream}"


SOURCES: Final[Mapping[str, Source]] = MappingProxyType(
    {
        FACTS: Source(_facts, is_masters=True, is_whole=True),
        SAGAS: Source(_history, is_masters=True, is_whole=False),
        OUTCOMES: Source(_history, is_masters=True, is_whole=False),
        **dict.fromkeys(BUCKETS, Source(_bucket, is_masters=True, is_whole=False, server_name="KV_{prefix}-{stream}")),
    }
)
"""The streams by name, after `<prefix>-`, and for those of further shards of sagas after `<prefix>-<shard>-`."""


def source(stream: str) -> Source:
    """Return how a stream is read, which may be one of a further shard.

    >>> source("1-sagas") is source("sagas")
    True
    """
    return SOURCES[stream.rpartition("-")[2]]


def streams(shards: int) -> tuple[str, ...]:
    """Return the streams of a fabric whose sagas are spread so; one that there is not yet is read once there is.

    >>> streams(2)
    ('facts', 'sagas', 'outcomes', 'registry', 'breakers', 'alerts', '1-sagas', '1-outcomes')
    """
    return (*SOURCES, *(f"{at}-{name}" for at in range(1, shards) for name in (SAGAS, OUTCOMES)))


def taken(messages: Iterable[Any]) -> list[Taken]:
    """Return messages as a transport has read them."""
    return [Taken(one.subject, one.sequence, one.data, one.at_ms) for one in messages]
