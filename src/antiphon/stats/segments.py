"""Sealed rows: Parquet files, each written beside its place and registered in the transaction that takes its rows.

A file that no transaction has registered was left by a kill and is removed; a registered one is complete. So every row
is in the hot file or in exactly one segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from antiphon.decide.record_rows import timestamp
from antiphon.decide.record_tables import BUCKET_BASE, ROLLUP, ROLLUP_COLUMNS, TABLES, Columns
from antiphon.decide.upkeep import Segment, merges
from antiphon.stats.files import FRESH, quoted, settle
from antiphon.stats.schema import VERSION
from antiphon.stats.store import Store

log = structlog.get_logger("antiphon.record")

FORMAT: Final = "(FORMAT parquet, COMPRESSION zstd)"
_BUCKET: Final = f"CAST(CASE WHEN took_us > 0 THEN floor(ln(took_us) / ln({BUCKET_BASE})) ELSE 0 END AS SMALLINT)"
_MERGED: Final = "SELECT minute, scope, node, outcome, bucket, sum(n)::BIGINT AS n, sum(took_us)::BIGINT AS took_us, "


def rolled_up(schema: str) -> str:
    """Return the query that makes roll-ups of the rows of a schema."""
    return f"""
SELECT date_trunc('minute', ts) AS minute, 'request' AS scope, '' AS node,
    coalesce(code, CASE WHEN complete THEN 'complete' ELSE 'partial' END) AS outcome, {_BUCKET} AS bucket,
    count(*) AS n, sum(took_us)::BIGINT AS took_us, sum(hits)::BIGINT AS hits
FROM {schema}.requests GROUP BY ALL
UNION ALL
SELECT date_trunc('minute', ts), 'reply', node, outcome, {_BUCKET}, count(*), sum(took_us)::BIGINT, sum(hits)::BIGINT
FROM {schema}.node_replies GROUP BY ALL"""  # noqa: S608 - our own names


def sweep(store: Store) -> int:
    """Remove the files that no transaction has registered; return how many."""
    known = {file for (file,) in store.execute("SELECT file FROM segments UNION SELECT file FROM discarded")}
    with store.writing():
        strays = [path for path in store.segments.iterdir() if path.name not in known and not path.is_dir()]
        for path in strays:
            path.unlink()
    return len(strays)


def seal(store: Store, now_ms: int) -> int:
    """Move all rows of the hot file into segments, and roll them up; return how many."""
    names = [name for name in TABLES if store.execute(f"SELECT 1 FROM {name} LIMIT 1")]  # noqa: S608 - our own name
    made = [_write(store, name, f"SELECT * FROM {name}", now_ms) for name in names]  # noqa: S608 - our own name
    if "requests" in names:
        made.append(_write(store, ROLLUP, rolled_up("main"), now_ms))
    with store.transaction() as connection:
        for segment in made:
            connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", segment)
        for name in names:
            connection.execute(f"DELETE FROM {name}")  # noqa: S608 - our own name
    rows, store.open_rows = store.open_rows, 0
    store.execute("CHECKPOINT")
    return rows


def compact(store: Store, now_ms: int, rows_max: int) -> int:
    """Merge small segments of past hours and days; return how many files that has replaced."""
    count = 0
    for name in (*TABLES, ROLLUP):
        for group in merges(listed(store, name), now_ms, rows_max):
            _merge(store, name, group, now_ms)
            count += len(group)
    return count


def expire(store: Store, now_ms: int, keep_ms: int) -> int:
    """Give up segments that are too old; return how many.

    Old is what was sealed long ago by this machine's clock: a master whose clock is wrong loses nothing here.
    """
    with store.transaction() as connection:
        old = [timestamp(now_ms), timestamp(now_ms - keep_ms), ROLLUP]
        connection.execute("INSERT INTO discarded SELECT file, ? FROM segments WHERE sealed_ts < ? AND name <> ?", old)
        found = connection.execute("DELETE FROM segments WHERE sealed_ts < ? AND name <> ?", old[1:]).fetchone()
    return int(found[0]) if found else 0


def discard(store: Store, before_ms: int | None) -> int:
    """Remove files that were given up or replaced before a time, None for all of them; return how many."""
    where, values = ("true", []) if before_ms is None else ("ts < ?", [timestamp(before_ms)])
    files = [file for (file,) in store.execute(f"SELECT file FROM discarded WHERE {where}", values)]  # noqa: S608 - ours
    with store.writing():
        for file in files:
            (store.segments / file).unlink(missing_ok=True)
    store.execute(f"DELETE FROM discarded WHERE {where}", values)  # noqa: S608 - our own words
    return len(files)


def listed(store: Store, name: str) -> list[Segment]:
    """Return the segments of a table, oldest first."""
    query = "SELECT file, level, rows, epoch_ms(sealed_ts) FROM segments WHERE name = ? ORDER BY sealed_ts, file"
    return [Segment(*row) for row in store.execute(query, [name])]


def reading(store: Store, name: str) -> str:
    """Return the query that reads all segments of a table, empty where there are none.

    Only those that may lack columns are read by name: for that each file is opened as soon as somebody only looks.
    """
    query = "SELECT file, version = ? FROM segments WHERE name = ? ORDER BY sealed_ts, file"
    found = store.execute(query, [VERSION, name])
    current, older = (
        [quoted(store.segments / file) for file, is_now in found if bool(is_now) is now] for now in (True, False)
    )
    parts = [f"FROM read_parquet([{', '.join(current)}])"] if current else []
    parts += [f"FROM read_parquet([{', '.join(older)}], union_by_name = true)"] if older else []
    return " UNION ALL BY NAME ".join(parts)


def nothing(columns: Columns) -> str:
    """Return the query that finds no row, with these columns."""
    return f"SELECT {', '.join(f'NULL::{kind} AS {column}' for column, kind in columns.items())} WHERE false"


def rewrite(store: Store, name: str, segment: Segment, columns: str, now_ms: int) -> None:
    """Replace a segment by one with other values in some columns, and remove the old file at once."""
    inside = f"SELECT {columns} FROM read_parquet({quoted(store.segments / segment.file)})"  # noqa: S608 - our own file
    made = _write(store, name, inside, now_ms, level=segment.level, sealed_ms=segment.sealed_ms)
    _swap(store, [segment], made, None)
    with store.writing():
        (store.segments / segment.file).unlink(missing_ok=True)


def _merge(store: Store, name: str, group: Sequence[Segment], now_ms: int) -> None:
    files = ", ".join(quoted(store.segments / one.file) for one in group)
    inside = f"SELECT * FROM read_parquet([{files}], union_by_name = true)"  # noqa: S608 - our own files
    if name == ROLLUP:
        inside = f"{_MERGED}sum(hits)::BIGINT AS hits FROM ({inside}) GROUP BY ALL"
    made = _write(store, name, inside, now_ms, level=group[0].level + 1, sealed_ms=group[0].sealed_ms)
    _swap(store, group, made, now_ms)


def _swap(store: Store, old: Sequence[Segment], made: tuple[object, ...], now_ms: int | None) -> None:
    """Register a segment in the place of others; their files are removed later where a time is given."""
    with store.transaction() as connection:
        for one in old:
            connection.execute("DELETE FROM segments WHERE file = ?", [one.file])
            if now_ms is not None:
                connection.execute("INSERT INTO discarded VALUES (?, ?)", [one.file, timestamp(now_ms)])
        connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", list(made))


def _write(
    store: Store, name: str, query: str, now_ms: int, *, level: int = 0, sealed_ms: int | None = None
) -> tuple[object, ...]:
    """Write a segment and return its row of the register, not registered yet."""
    place = _free(store.segments, f"{name}-{now_ms:013d}-{level}")
    fresh = place.with_suffix(FRESH)
    columns = ROLLUP_COLUMNS if name == ROLLUP else TABLES[name]
    whole = f"SELECT {', '.join(columns)} FROM (({query}) UNION ALL BY NAME {nothing(columns)})"  # noqa: S608 - our own
    store.execute(f"COPY ({whole}) TO {quoted(fresh)} {FORMAT}")
    with store.writing():
        settle(fresh, place)
        size = place.stat().st_size
    at = "minute" if name == ROLLUP else "ts"
    query = f"SELECT count(*), min({at}), max({at}) FROM read_parquet({quoted(place)})"  # noqa: S608 - our own file
    [(rows, first, last)] = store.execute(query)
    sealed = timestamp(now_ms if sealed_ms is None else sealed_ms)
    return place.name, name, level, rows, size, first, last, sealed, VERSION


def _free(folder: Path, stem: str) -> Path:
    """Return a name that no file has."""
    number = 0
    while (place := folder / f"{stem}-{number}.parquet").exists():
        number += 1
    return place
