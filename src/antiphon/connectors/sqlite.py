"""A table of a SQLite file as a node; it is read only, and read again when somebody commits a change.

Names of tables and columns cannot be SQL parameters. So they are never trusted: each must be one that the file's own
schema holds, letter for letter, and is quoted as an identifier all the same.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import structlog

from antiphon.connectors.base import Indexed, Progress, silent
from antiphon.connectors.entry import Entry
from antiphon.errors import ContentUnreadable

log = structlog.get_logger(__name__)

BUSY_MS = 5_000
"""How long a read waits for another program's write lock."""
PROGRESS_ROWS = 500
"""Rows between two reports of progress."""

_Value = str | int | float | bytes | None


@dataclass(frozen=True)
class Sqlite(Indexed):
    """A table or view of a SQLite file; a row is a document.

    Attributes:
        file: the database file; it is opened read-only.
        table: the table or view.
        columns: the columns that are searched, repeated or comma-separated; all with text in them if none is given.
        id: the column that identifies a row; the primary key or the row number if none is given.
        title: the column shown as the title; the first of `columns` if none is given.
        url: the column that holds a row's web address.
        rows_max: a larger table is refused.
        poll_ms: milliseconds between two looks whether another program has changed the file.
    """

    kind: ClassVar[str] = "sqlite"

    file: Path
    _: KW_ONLY
    table: str
    columns: tuple[str, ...] = ()
    id: str | None = None
    title: str | None = None
    url: str | None = None
    rows_max: int = 200_000
    poll_ms: int = 1_000

    def describe(self) -> str:
        """Return the table's and the file's name."""
        return f"Rows of {self.table} in {self.file.name}"

    def topics(self) -> tuple[str, ...]:
        """Return the table's name."""
        return (self.kind, self.table.lower())

    def entries(self, progress: Progress) -> Iterator[Entry]:
        """Read every row.

        Raises:
            ContentUnreadable: the file is no database, the schema does not hold a name, or there are too many rows.
        """
        try:
            with closing(self._connect()) as database:
                yield from self._rows(database, progress)
        except sqlite3.Error as error:
            raise ContentUnreadable(f"{self.file}: {error}") from error

    async def watch(self, changed: Callable[[str], None]) -> None:
        """Look at the file's version every `poll_ms` and re-index what differs, until cancelled."""
        version, seen = (
            _Version(self.file, self._connect),
            None,
        )  # so the first look compares: the file may have changed since
        try:
            while True:
                now = await asyncio.to_thread(version.look)
                if now != seen:
                    await self._refresh(changed)
                seen = now
                await asyncio.sleep(self.poll_ms / 1_000)
        finally:
            await asyncio.to_thread(version.close)  # waits for a look that the cancelling left running

    async def _refresh(self, changed: Callable[[str], None]) -> None:
        try:
            count = await asyncio.to_thread(self.refresh)
        except ContentUnreadable as error:
            log.warning("table.unreadable", table=self.table, reason=str(error))
            return
        if count:
            log.info("table.reindexed", table=self.table, rows=count, entries=len(self.index))
            changed(f"{count} rows changed")

    def refresh(self) -> int:
        """Compare the table with the index, re-index the rows that differ, and return how many there were.

        Raises:
            ContentUnreadable: as for `entries`.
        """
        return self.index.sync(self.entries(silent))

    def _connect(self) -> sqlite3.Connection:
        if not os.path.isfile(self.file):  # noqa: PTH113 -- Path.is_file raises where a folder may not be entered
            raise ContentUnreadable(f"{self.file} is not a file, or may not be read")
        # The path is quoted so that `?` and `#` in it cannot become options of the URI.
        uri = f"file:{quote(str(self.file.resolve()))}?mode=ro"
        database = sqlite3.connect(uri, uri=True, timeout=BUSY_MS / 1_000, check_same_thread=False)
        database.text_factory = _decoded
        return database

    def _rows(self, database: sqlite3.Connection, progress: Progress) -> Iterator[Entry]:
        schema = self._schema(database)
        columns = self._searched(schema)
        ident = self._known(schema, self.id) if self.id else self._key(database, schema)
        title = self._known(schema, self.title) if self.title else columns[0]
        url = _quoted(self._known(schema, self.url)) if self.url else "NULL"
        table = _quoted(self.table)
        total: int = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 -- quoted, in the schema
        if total > self.rows_max:
            raise ContentUnreadable(f"{self.table} has {total} rows, more than rows_max = {self.rows_max}")
        wanted = ", ".join((ident, url, _quoted(title), *map(_quoted, columns)))
        rows = database.execute(f"SELECT {wanted} FROM {table} LIMIT ?", (self.rows_max,))  # noqa: S608 -- as above
        names = [name for name in columns if name != title]
        for done, (key, link, heading, *values) in enumerate(rows, 1):
            body = [value for name, value in zip(columns, values, strict=True) if name in names]
            yield _entry(done if key is None else key, heading, link, body)
            if done % PROGRESS_ROWS == 0 or done == total:
                progress(done, total)

    def _schema(self, database: sqlite3.Connection) -> dict[str, tuple[str, int]]:
        """Return the table's columns: name -> (declared type, place in the primary key or 0)."""
        rows = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name")
        tables = [name for (name,) in rows]
        if self.table not in tables:
            raise ContentUnreadable(
                f"{self.file.name} has no table {self.table!r}; it has {', '.join(tables) or 'none'}"
            )
        found = database.execute("SELECT name, type, pk FROM pragma_table_xinfo(?)", (self.table,))
        return {name: (declared, key) for name, declared, key in found}

    def _searched(self, schema: dict[str, tuple[str, int]]) -> list[str]:
        asked = [name.strip() for given in self.columns for name in given.split(",") if name.strip()]
        if not asked:
            # SQLite's own rule for text affinity (datatype3.html, 3.1); a view's expression has no type at all.
            texts = ("CHAR", "CLOB", "TEXT")
            asked = [name for name, (declared, _) in schema.items() if any(text in declared.upper() for text in texts)]
        if not asked:
            raise ContentUnreadable(f"{self.table} has no text columns; name the ones to search")
        return [self._known(schema, name) for name in dict.fromkeys(asked)]

    def _known(self, schema: dict[str, tuple[str, int]], name: str) -> str:
        if name not in schema:
            raise ContentUnreadable(f"{self.table} has no column {name!r}; it has {', '.join(schema)}")
        return name

    def _key(self, database: sqlite3.Connection, schema: dict[str, tuple[str, int]]) -> str:
        """Return an SQL expression that identifies a row: the primary key, the row number, or nothing (a view)."""
        keys = [name for name, (_, place) in schema.items() if place]
        if len(keys) == 1:
            return _quoted(keys[0])
        try:
            database.execute(f"SELECT rowid FROM {_quoted(self.table)} LIMIT 0")  # noqa: S608 -- quoted, in the schema
        except sqlite3.OperationalError:
            return "NULL"
        return "rowid"


class _Version:
    """What changes when another program commits to a file, or puts another file in its place.

    Source: https://www.sqlite.org/pragma.html#pragma_data_version; the number holds for one connection only.
    """

    def __init__(self, file: Path, connect: Callable[[], sqlite3.Connection]) -> None:
        self._file = file
        self._connect = connect
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._seen = (0, 0)

    def look(self) -> tuple[int, int]:
        """Return the present version; the last one while the file is locked or gone."""
        with self._lock:
            try:
                inode = self._file.stat().st_ino
                if self._database is None or inode != self._seen[0]:
                    self._drop()
                    self._database = self._connect()
                self._seen = (inode, int(self._database.execute("PRAGMA data_version").fetchone()[0]))
            except (sqlite3.Error, OSError, ContentUnreadable) as error:
                log.debug("table.not_looked_at", reason=str(error))
            return self._seen

    def close(self) -> None:
        """Close the connection, after a look that is under way."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: _Value) -> str:
    return "" if value is None or isinstance(value, bytes) else str(value)


def _entry(key: _Value, title: _Value, url: _Value, body: list[_Value]) -> Entry:
    ident = _text(key) or repr(key)
    text = "\n".join(filter(None, map(_text, body)))
    return Entry(ident, " ".join(_text(title).split()), text, _text(url) or None, kind="row", origin=ident)
