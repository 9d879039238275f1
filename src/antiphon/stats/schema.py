"""The tables of the hot file: made from their declaration, numbered, and brought forward by migrations.

A file says which version it has. One that is older is migrated in one transaction when it is opened; one that is newer
belongs to a newer Antiphon and is refused, because what this one would write could not be read there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import duckdb

from antiphon.decide.record_tables import TABLES, Columns
from antiphon.errors import InvalidSetting

VERSION: Final = 4
MIGRATIONS: Final[Mapping[int, Sequence[str]]] = {
    2: (
        "ALTER TABLE node_replies ADD COLUMN reply_bytes BIGINT",
        "ALTER TABLE node_replies ADD COLUMN hedge VARCHAR",
        "ALTER TABLE node_replies ADD COLUMN wasted_us BIGINT",
        "ALTER TABLE node_replies ADD COLUMN cached BOOLEAN",
    ),
    3: (
        "ALTER TABLE segments ADD COLUMN IF NOT EXISTS version INTEGER",
        "ALTER TABLE forgotten ADD COLUMN IF NOT EXISTS done TIMESTAMP",
    ),
    4: (
        """CREATE TABLE IF NOT EXISTS bucket_writes (ts TIMESTAMP, writer VARCHAR, seq BIGINT, fact INTEGER,
            bucket VARCHAR, entry VARCHAR, operation VARCHAR, value VARCHAR)""",
    ),
}
"""The statements that make each version of the one before; a column is added at the end of its table."""
OWN_TABLES: Final = """
CREATE TABLE IF NOT EXISTS stream_position (stream VARCHAR PRIMARY KEY, created_us BIGINT, seq BIGINT, ts TIMESTAMP);
CREATE TABLE IF NOT EXISTS segments (
    file VARCHAR PRIMARY KEY, name VARCHAR, level INTEGER, rows BIGINT, bytes BIGINT,
    first_ts TIMESTAMP, last_ts TIMESTAMP, sealed_ts TIMESTAMP, version INTEGER
);
CREATE TABLE IF NOT EXISTS discarded (file VARCHAR PRIMARY KEY, ts TIMESTAMP);
CREATE TABLE IF NOT EXISTS forgotten (caller VARCHAR, ts TIMESTAMP, done TIMESTAMP);
"""
"""The recorder's own: how far it has read, which Parquet files there are, which of them nobody needs any more.

A segment's version says which columns it has; one of before there were versions may have fewer than the tables. Of whom
it is not done to forget, files may still tell: a kill came in between.
"""


def create(name: str, columns: Columns) -> str:
    """Return the statement that makes a table unless there is one.

    >>> create("gaps", {"ts": "TIMESTAMP"})
    'CREATE TABLE IF NOT EXISTS gaps ("ts" TIMESTAMP)'
    """
    inside = ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
    return f"CREATE TABLE IF NOT EXISTS {name} ({inside})"


def prepare(connection: duckdb.DuckDBPyConnection, now_ms: int) -> None:
    """Make the tables, or bring them forward; raises `InvalidSetting` for a file of a newer Antiphon."""
    connection.begin()
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER, ts TIMESTAMP)")
    found = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    version = found[0] if found else None
    if version is not None and version > VERSION:
        connection.rollback()
        raise InvalidSetting(f"the record has schema {version}, this Antiphon writes {VERSION}: use the newer one")
    if version is None:
        for name, columns in TABLES.items():
            connection.execute(create(name, columns))
        for statement in OWN_TABLES.split(";")[:-1]:
            connection.execute(statement)
    for step in range((version or VERSION) + 1, VERSION + 1):
        for statement in MIGRATIONS[step]:
            connection.execute(statement)
    if version != VERSION:
        connection.execute("INSERT INTO schema_version VALUES (?, make_timestamp(? * 1000))", [VERSION, now_ms])
    connection.commit()
