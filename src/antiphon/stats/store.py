"""The store: the hot file that facts are written into, rows and position in one transaction.

Exactly once, whoever is killed: the position in a stream stands in the file that the rows stand in, so both are there
or neither is, and reading begins again behind it (FACTS.md, design A). Everything here blocks, so it runs in a thread
of its own (`actors/recorder.py`), one call at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import structlog

from antiphon.decide.reading import Gap, Position
from antiphon.decide.record_batch import Batch, Taken, buried, read
from antiphon.decide.record_bounds import StoreBounds
from antiphon.decide.record_rows import Hide, Row, as_is, timestamp
from antiphon.decide.record_tables import NAMED, TABLES, TEXT
from antiphon.errors import RecordUnwritable
from antiphon.stats import schema
from antiphon.stats.files import HOT, SEGMENTS, fresh_of, quoted, settle, wal_of

log = structlog.get_logger("antiphon.record")

REFUSED = (duckdb.DataError, duckdb.InvalidInputException, UnicodeError)
"""What DuckDB raises for a value that a column does not hold."""


class Store:
    """The open store of one folder.

    Args:
        folder: the record's directory, locked by whoever makes this.
        prefix: the fabric's.
        hide: what is stored of a query.
        bounds: what it may use.
    """

    def __init__(self, folder: Path, prefix: str, hide: Hide = as_is, bounds: StoreBounds | None = None) -> None:
        self.folder = folder
        self.prefix = prefix
        self.hide = hide
        self.bounds = bounds or StoreBounds()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.positions: dict[str, Position] = {}
        self.forgotten: set[str] = set()
        self.open_rows = 0
        """Rows in the hot file that are not sealed yet."""

    @property
    def segments(self) -> Path:
        """Where sealed rows are."""
        return self.folder / SEGMENTS

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The connection; opens the file first."""
        if self._connection is None:
            raise RecordUnwritable("the record is not open")
        return self._connection

    def open(self, now_ms: int) -> None:
        """Open the file and read how far it is; raises `RecordUnwritable` while it cannot be."""
        if self._connection is not None:
            return
        with self.writing():
            self.segments.mkdir(exist_ok=True)
            memory = f"{self.bounds.memory_bytes_max // 1024}KiB"
            config: dict[str, str | bool | int | float | list[str]] = {
                "memory_limit": memory,
                "threads": str(self.bounds.threads),
                "preserve_insertion_order": "true",
            }
            self._connection = duckdb.connect(str(self.folder / HOT), config=config)
            schema.prepare(self._connection, now_ms)
            found = self._connection.execute("SELECT stream, created_us, seq FROM stream_position").fetchall()
            self.positions = {stream: Position(created_us, sequence) for stream, created_us, sequence in found}
            self.forgotten = {one for (one,) in self.connection.execute("SELECT caller FROM forgotten").fetchall()}
            self.open_rows = sum(self._count(name) for name in TABLES)

    def close(self) -> None:
        """Close the file; what was committed is there."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except duckdb.Error as error:
                log.warning("record.not_closed", error=str(error)[:200])

    def rewrite(self, now_ms: int) -> None:
        """Write the file anew, so that nothing is left in it of rows that were changed or deleted."""
        place = self.folder / HOT
        with self.writing():
            fresh, connection = fresh_of(place), self.connection
            connection.execute("CHECKPOINT")
            connection.execute(f"ATTACH {quoted(fresh)} AS fresh")
            try:
                connection.execute(f"COPY FROM DATABASE {place.stem} TO fresh")
            finally:
                connection.execute("DETACH fresh")
            self.close()
            wal_of(place).unlink(missing_ok=True)  # all of it is in the file
            settle(fresh, place)
        self.open(now_ms)

    def begin(self, stream: str, position: Position, gap: Gap | None, now_ms: int) -> None:
        """Note from where a stream is read from now on, and what of it is lost."""
        lost = None if gap is None else (timestamp(now_ms), stream, gap.first, gap.last, gap.reason)
        rows: dict[str, list[Row]] = {} if lost is None else {"gaps": [lost]}
        with self.transaction():
            self._write(rows, stream, position, now_ms)
        self._went(stream, position, rows)

    def write(self, stream: str, created_us: int, messages: Sequence[Taken], now_ms: int) -> tuple[int, int]:
        """Write what some messages of a stream have become; return how many rows, and how many dead facts.

        Of messages that the tables refuse each half is written alone, and of one message what they take: a fact that
        they refuse is dead, and the message as a whole only where nobody knows which one it is.
        """
        batch = read(stream, messages, self.prefix, self.hide)
        try:
            self._commit(batch, created_us, messages[-1].sequence, now_ms)
        except REFUSED as error:
            if len(messages) > 1:
                middle = len(messages) // 2
                first = self.write(stream, created_us, messages[:middle], now_ms)
                rest = self.write(stream, created_us, messages[middle:], now_ms)
                return first[0] + rest[0], first[1] + rest[1]
            batch = self._commit_what_fits(messages[0], stream, created_us, str(error), now_ms)
        return batch.count, batch.dead

    def _commit(self, batch: Batch, created_us: int, sequence: int, now_ms: int) -> None:
        position = Position(created_us, sequence)
        self._forget(batch)
        with self.transaction():
            self._write(batch.rows, batch.stream, position, now_ms)
        self._went(batch.stream, position, batch.rows)

    def _commit_what_fits(self, message: Taken, stream: str, created_us: int, reason: str, now_ms: int) -> Batch:
        batch = read(stream, [message], self.prefix, self.hide, is_strict=True)
        try:
            self._commit(batch, created_us, message.sequence, now_ms)
        except REFUSED:
            batch = buried(stream, message, reason)
            self._commit(batch, created_us, message.sequence, now_ms)
        return batch

    @contextmanager
    def transaction(self) -> Generator[duckdb.DuckDBPyConnection]:
        """Do several things or none of them; raises `RecordUnwritable` where the disk refuses."""
        connection = self.connection
        with self.writing():
            connection.begin()
            try:
                yield connection
                connection.commit()
            except BaseException:
                self._roll_back(connection)
                raise

    @contextmanager
    def writing(self) -> Generator[None]:
        """Raise `RecordUnwritable` for what the disk refuses, and close: what is in memory is not to be believed then.

        The next `open` reads what is on the disk.
        """
        try:
            yield
        except (duckdb.OperationalError, duckdb.InternalError, duckdb.FatalException, OSError) as error:
            self.close()
            raise RecordUnwritable(str(error)[:200]) from error

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement of our own and return its rows."""
        with self.writing():
            return self.connection.execute(statement, list(values)).fetchall()

    def _write(self, rows: dict[str, list[Row]], stream: str, position: Position, now_ms: int) -> None:
        connection = self.connection
        for table, some in rows.items():
            with connection.appender(table) as appender:
                appender.append_rows(some)
        values = [stream, position.created_us, position.sequence, timestamp(now_ms)]
        connection.execute("INSERT OR REPLACE INTO stream_position VALUES (?, ?, ?, ?)", values)

    def _went(self, stream: str, position: Position, rows: dict[str, list[Row]]) -> None:
        self.positions[stream] = position
        self.open_rows += sum(map(len, rows.values()))

    def _forget(self, batch: Batch) -> None:
        """Take out of new rows whom this record was told to forget."""
        if not self.forgotten:
            return
        for table, columns in NAMED.items():
            names = list(TABLES[table])
            named = [names.index(column) for column in columns]
            texts = [names.index(column) for column in TEXT.get(table, ())]
            for at, row in enumerate(batch.rows.get(table, ())):
                found = [place for place in named if row[place] in self.forgotten]
                if found:
                    gone = {*found, *(texts if named[0] in found else ())}
                    batch.rows[table][at] = tuple(None if place in gone else one for place, one in enumerate(row))

    def _roll_back(self, connection: duckdb.DuckDBPyConnection) -> None:
        try:
            connection.rollback()
        except duckdb.Error as error:
            # after a failed write there may be no transaction any more; the file is closed then
            log.debug("record.not_rolled_back", error=str(error)[:200])

    def _count(self, table: str) -> int:
        found = self.connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - our own name
        return int(found[0]) if found else 0
