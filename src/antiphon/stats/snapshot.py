"""The snapshot: a copy of the rows that are not sealed yet, with views over them and over the segments, for analysts.

It is written beside its place and put there in one step, so whoever has it open goes on with the old one. What it costs
is bounded by the open rows, not by the history. It is written in the format of DuckDB 1.5, which 2.0 reads, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import duckdb

from antiphon.decide.record_rows import timestamp
from antiphon.decide.record_tables import ROLLUP, ROLLUP_COLUMNS, TABLES
from antiphon.stats import views
from antiphon.stats.files import SNAPSHOT, fresh_of, quoted, settle
from antiphon.stats.segments import nothing, reading, rolled_up
from antiphon.stats.store import Store

FORMAT: Final = "v1.5.0"
OPEN: Final = "open_segment"
"""The schema of the rows that are not sealed yet."""
DAY_MS: Final = 86_400_000


def write(store: Store, now_ms: int) -> Path:
    """Write the snapshot of now and return where it is."""
    place = store.folder / SNAPSHOT
    fresh = fresh_of(place)
    with store.writing():
        connection = store.connection
        connection.execute(f"ATTACH {quoted(fresh)} AS snap (STORAGE_VERSION '{FORMAT}')")
        try:
            connection.execute(f"CREATE SCHEMA snap.{OPEN}")
            for name in TABLES:
                connection.execute(f"CREATE TABLE snap.{OPEN}.{name} AS FROM main.{name}")
            connection.execute("CREATE TABLE snap.main.stream_position AS FROM main.stream_position")
            connection.execute("CREATE TABLE snap.main.schema_version AS FROM main.schema_version")
            connection.execute("CREATE TABLE snap.main.snapshot_of AS SELECT ?::TIMESTAMP AS ts", [timestamp(now_ms)])
        finally:
            connection.execute("DETACH snap")
        with duckdb.connect(str(fresh)) as made:
            _create_views(store, made)
        settle(fresh, place)
    return place


def recent(folder: Path, place: Path, now_ms: int, rows_max: int) -> Path:
    """Write a file that holds the last day, bounded, and the roll-ups as tables, and return where it is.

    It names no other file: whoever may ask it anything can reach nothing else. Needs no store: it reads the snapshot.
    """
    fresh = fresh_of(place)
    with duckdb.connect(str(fresh), config={"memory_limit": "512MB", "threads": "1"}) as made:
        made.execute(f"ATTACH {quoted(folder / SNAPSHOT)} AS source (READ_ONLY)")
        since = timestamp(now_ms - DAY_MS)
        for name in TABLES:
            made.execute(
                f"CREATE TABLE {name} AS SELECT * FROM source.{name} WHERE ts >= ? ORDER BY ts DESC LIMIT ?",  # noqa: S608 - our own
                [since, rows_max],
            )
        made.execute(f"CREATE TABLE {ROLLUP} AS SELECT * FROM source.{ROLLUP} ORDER BY minute DESC LIMIT {rows_max}")  # noqa: S608 - our own
        for name in ("stream_position", "schema_version", "snapshot_of"):
            made.execute(f"CREATE TABLE {name} AS FROM source.{name}")
        made.execute("DETACH source")
        views.create(made)
    fresh.replace(place)
    return place


def _create_views(store: Store, made: duckdb.DuckDBPyConnection) -> None:
    """Make every table a view over its open and its sealed rows, then the views for analysts.

    Each view that is made is resolved down to the files, which takes longer the more there are. So they are made over
    stand-ins for the segments, and the segments are named once, at the end.
    """
    tables = {**TABLES, ROLLUP: ROLLUP_COLUMNS}
    for name, columns in tables.items():
        inside = rolled_up(OPEN) if name == ROLLUP else f"SELECT * FROM {OPEN}.{name}"  # noqa: S608 - our own
        both = f"({inside}) UNION ALL BY NAME FROM sealed_{name}()"
        made.execute(f"CREATE MACRO sealed_{name}() AS TABLE {nothing(columns)}")
        made.execute(f"CREATE VIEW {name} AS SELECT {', '.join(columns)} FROM ({both})")  # noqa: S608 - our own names
    views.create(made)
    for name in tables:
        if sealed := reading(store, name):
            made.execute(f"CREATE OR REPLACE MACRO sealed_{name}() AS TABLE {sealed}")
