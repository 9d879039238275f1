"""Reading the snapshot on the machine that it lies on, as its owner: every statement that reads, over all history."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from antiphon.errors import InvalidSetting
from antiphon.stats.files import quoted
from antiphon.stats.worker import UTC, Refused, names, plain, refuse_zones


@contextmanager
def opened(place: Path) -> Generator[duckdb.DuckDBPyConnection]:
    """Open a snapshot; it stays as it is while the recorder puts newer ones into its place.

    Raises `InvalidSetting` for a file that is none.
    """
    try:
        connection = duckdb.connect(str(place), read_only=True)
    except duckdb.Error as error:
        raise InvalidSetting(_first_line(error)) from error
    try:
        connection.execute(UTC)
        yield connection
    finally:
        connection.close()


def table(connection: duckdb.DuckDBPyConnection, statement: str, rows_max: int) -> dict[str, Any]:
    """Return what a statement finds, in the form of a `StatsTable`; `error` says what is wrong with it."""
    try:
        cursor = connection.execute(statement)
        described = cursor.description or []
        refuse_zones(described)
        rows = cursor.fetchmany(rows_max + 1)
    except (duckdb.Error, Refused) as error:
        return {"error": str(error)[:1_000]}
    return {
        "columns": names(described),
        "types": [str(one[1])[:200] for one in described],
        "rows": [[plain(value) for value in row] for row in rows[:rows_max]],
        "count": min(len(rows), rows_max),
        "is_cut": len(rows) > rows_max,
    }


def export(place: Path, folder: Path, names: list[str], form: str, since_ms: int) -> dict[str, int]:
    """Write tables into a folder, a file each, and return how many rows each has; `form` is parquet or csv.

    Raises `InvalidSetting` for a folder that cannot be written to.
    """
    written: dict[str, int] = {}
    with opened(place) as connection:
        for name in names:
            target = folder / f"{name}.{form}"
            where = "WHERE ts >= (now() AT TIME ZONE 'UTC') - to_milliseconds(?)" if since_ms else ""
            query = f"COPY (SELECT * FROM {name} {where} ORDER BY ts) TO {quoted(target)} (FORMAT {form})"  # noqa: S608 - our own names
            try:
                found = connection.execute(query, [since_ms] if since_ms else []).fetchone()
            except duckdb.Error as error:
                raise InvalidSetting(_first_line(error)) from error
            written[name] = int(found[0]) if found else 0
    return written


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0][:300]
