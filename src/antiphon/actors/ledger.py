"""The ledger of identities: the book as it stands in the shared bucket, written by compare-and-set only.

It is the identity actor's own part: the watch fills the book, `write` changes the bucket and the book together. What
the server has lost (it came back without its data) is written back from memory, so that nobody whom an operator has
shut out comes in again by a disk that was swapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog

from antiphon.bus.assets import identity_of
from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Entry, KeyValue, Watch
from antiphon.decide.book import KINDS, POLICY, RING, Book, owner
from antiphon.decide.identities import IdentityRecord, Record
from antiphon.errors import NotConnected, Overloaded
from antiphon.identity.authority import Write
from antiphon.identity.record_mac import opened, signed

log = structlog.get_logger("antiphon.identity")

TRIES_MAX = 8
"""Times that a change is decided anew because another master wrote first."""


class Lost(Exception):
    """Another master wrote first: decide again, from the book as it is now."""


class Ledger:
    """The identity bucket and its book."""

    def __init__(
        self,
        bus: Bus,
        pepper: bytes,
        *,
        changed: Callable[[str, Record | None, Record | None], None],
        ring: Callable[[bytes], None],
        tell: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        """Make a ledger; call `open` before anything else.

        Args:
            bus: a master's bus.
            pepper: what records are authenticated with.
            changed: called with the key and the record before and after (None: not there) of every change, before
                anybody reads it.
            ring: called with the sealed signing keys whenever they change.
            tell: puts work into the mailbox of the actor that holds the ledger.
        """
        self.bus = bus
        self._pepper = pepper
        self.book = Book()
        self._changed = changed
        self._ring = ring
        self._tell = tell
        self._bucket: KeyValue | None = None
        self._watch: Watch | None = None

    async def open(self) -> None:
        """Return when the book is complete."""
        self._bucket = await self.bus.transport.key_value(identity_of(self.bus.prefix))
        self._watch = await self._bucket.watch(self._heard)

    async def close(self) -> None:
        """Hear no more."""
        if self._watch is not None:
            await self._watch.stop()

    @property
    def kv(self) -> KeyValue:
        """The bucket."""
        assert self._bucket is not None, "open() comes first"
        return self._bucket

    async def change(self, decide: Callable[[], Iterable[Write]]) -> None:
        """Write what `decide` returns; it is called again whenever another master wrote one of the records first.

        Raises `NotConnected`, and `Overloaded` when others keep writing. Whatever `decide` raises goes through.
        """
        for _ in range(TRIES_MAX):
            try:
                for write in decide():
                    await self._write(write)
            except Lost:
                continue
            return
        raise Overloaded("other masters keep writing this identity; try again", retry_after_ms=100)

    async def _write(self, write: Write) -> None:
        key = _key(write.record)
        data = self._signed(key, write.record)
        revision = await self.kv.update(key, data, write.revision)
        if revision is not None:
            self._take(key, data, revision)
            return
        await self.read(key)
        found = self.book.records.get(key)
        if isinstance(write.record, IdentityRecord) and not write.revision and found is not None:
            now = write.record.model_copy(update={"created_ms": getattr(found, "created_ms", 0)})
            if now == found:
                return  # another master has made the same identity meanwhile, as for another instance of a new node
        raise Lost

    async def write_ring(self, sealed: bytes) -> bool:
        """Write the signing keys; False when another master did so first, whose keys are taken."""
        revision = await self.kv.update(RING, sealed, self.book.revision(RING))
        if revision is None:
            await self.read(RING)
            return False
        self._take(RING, sealed, revision)
        return True

    async def deny(self, key: str, until_ms: int) -> None:
        """Revoke one access token until it expires."""
        data = str(until_ms).encode()
        self._take(key, data, await self.kv.put(key, data))

    async def read(self, key: str) -> None:
        """Read one key again: what was just written elsewhere may not have been heard yet."""
        entry = await self.kv.get(key)
        self._take(key, entry.value if entry else None, entry.revision if entry else 0)

    async def freshen(self, keys: Iterable[str]) -> None:
        """Read records again, and whose they are, where there is a connection."""
        try:
            for key in keys:
                await self.read(key)
                record = self.book.records.get(key)
                if record is not None and not isinstance(record, IdentityRecord):
                    await self.read(f"{IdentityRecord.area}.{owner(record)}")
        except NotConnected:
            return

    async def drop(self, key: str) -> None:
        """Delete a record, if it is still as it was heard."""
        revision = await self.kv.drop(key, self.book.revision(key))
        if revision is not None:
            self._take(key, None, revision)

    def _heard(self, entry: Entry) -> None:
        held = self.book.records.get(entry.key)
        if entry.is_lost:
            self.book.revisions.pop(entry.key, None)
            if held is not None:
                self._tell(partial(self._write_back, entry.key, self._signed(entry.key, held)))
            elif entry.key == RING and self.book.ring is not None:
                self._tell(partial(self._write_back, RING, self.book.ring))
            return
        self._take(entry.key, entry.value, entry.revision)

    def _take(self, key: str, value: bytes | None, revision: int) -> None:
        before = self.book.records.get(key)
        was_denied = len(self.book.denied)
        if value is not None and key.partition(".")[0] in KINDS:
            value = opened(value, self._pepper, self._place(key))
            if value is None:
                log.error("identity.record_forged", key=key)
                if key in self.book.records:  # as it was; so the next change of it is written over what stands there
                    self.book.revisions[key] = revision
                return
        if not self.book.take(key, value, revision):
            log.error("identity.record_unreadable", key=key)
            return
        if key == RING:
            if value is not None:
                self._ring(value)
        elif key != POLICY and (self.book.records.get(key) is not before or len(self.book.denied) > was_denied):
            self._changed(key, before, self.book.records.get(key))

    def _signed(self, key: str, record: Record) -> bytes:
        return signed(record.model_dump_json(exclude_none=True).encode(), self._pepper, self._place(key))

    def _place(self, key: str) -> str:
        return f"{self.bus.prefix}.{key}"

    async def _write_back(self, key: str, data: bytes) -> None:
        try:
            if await self.kv.update(key, data, 0) is not None:
                log.warning("identity.written_back", key=key)
        except NotConnected:
            log.warning("identity.not_written_back", key=key)


def _key(record: Record) -> str:
    key = getattr(record, "key", None)
    assert isinstance(key, str), f"{type(record).__name__} has no key of its own"
    return key
