"""The worker: one process for one question to the record, which can do nothing but read one file and answer.

`python -m antiphon.stats.worker` takes one JSON object from stdin and writes one to stdout. Before it opens anything it
gives up the right to write files, to use more memory and CPU time than it was given, and to open more files.
"""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import duckdb
import orjson

from antiphon.decide.record_tables import ROLLUP, TABLES
from antiphon.decide.sql_guard import refusal
from antiphon.stats.views import VIEWS

if sys.platform != "win32":  # which has no limits of this kind; DuckDB's own hold there
    import resource

MAY_READ: Final = frozenset({*TABLES, *VIEWS, ROLLUP, "stream_position", "schema_version", "snapshot_of"})
FILES_MAX: Final = 64
HEAD_SHARE: Final = 4
"""The names of all columns take at most one part in so many of an answer, beside its rows."""
WHOLE_MAX: Final = 2**63
"""Larger whole numbers become text: hardly anybody's JSON reads them."""
UTC: Final = "SET TimeZone = 'UTC'"
"""Times in the record are UTC without a zone; this makes now() the same, whatever the zone of the machine."""
OVERHEAD_BYTES: Final = 640 * 1024 * 1024
"""Address space of Python and DuckDB themselves."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one worker is to do.

    Attributes:
        file: what it reads.
        statements: each is one of its own.
        rows_max: of each.
        bytes_max: of all rows together, as JSON.
        time_ms: of each statement, and as CPU time of the process.
        memory_bytes: of DuckDB; the process may use some more.
        format: json, ndjson or csv.
    """

    file: str
    statements: list[str]
    rows_max: int
    bytes_max: int
    time_ms: int
    memory_bytes: int
    format: str = "json"


def main() -> None:
    """Answer one question."""
    asked = Asked(**json.loads(sys.stdin.buffer.read()))
    limit(asked)
    try:
        answer: dict[str, Any] = {"tables": answered(asked)}
    except Refused as error:
        answer = {"refused": str(error)}
    except (RecursionError, orjson.JSONEncodeError):
        answer = {"refused": "the statement, or what it finds, is nested too deeply"}
    except (duckdb.InterruptException, duckdb.OutOfMemoryException, MemoryError) as error:
        answer = {"limit": str(error).partition("\n")[0][:300] or "out of memory"}
    except duckdb.Error as error:
        answer = {"refused": str(error)[:1_000]}
    sys.stdout.buffer.write(orjson.dumps(answer, default=plain, option=orjson.OPT_PASSTHROUGH_DATETIME))
    sys.stdout.buffer.flush()


class Refused(Exception):
    """A statement that is not run."""


def limit(asked: Asked) -> None:
    """Give up what the question does not need; the operating system enforces it."""
    if sys.platform == "win32":
        return
    seconds = asked.time_ms * len(asked.statements) // 1_000 + 2
    limits = {
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_NOFILE: FILES_MAX,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: asked.memory_bytes + OVERHEAD_BYTES,
    }
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def opened(asked: Asked) -> duckdb.DuckDBPyConnection:
    """Return the file, open for reading and for nothing else; its settings can no longer be changed."""
    connection = duckdb.connect(
        asked.file,
        read_only=True,
        config={
            "enable_external_access": False,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
            "temp_directory": "",
            "threads": 1,
            "memory_limit": f"{asked.memory_bytes // 1024}KiB",
            "max_execution_time": asked.time_ms,
        },
    )
    connection.execute(UTC)
    connection.execute("SET lock_configuration = true")
    return connection


def answered(asked: Asked) -> list[dict[str, Any]]:
    """Return a table for each statement; raises `Refused` for one that does more than read."""
    with opened(asked) as connection:
        for statement in asked.statements:
            check(connection, statement)
        left = asked.bytes_max
        tables: list[dict[str, Any]] = []
        for statement in asked.statements:
            made, size = table(connection, statement, asked, left)
            left = max(0, left - size)
            tables.append(made)
        return tables


def check(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Raise `Refused` unless a statement only reads the record's tables."""
    found = connection.execute("SELECT json_serialize_sql(?)", [statement]).fetchone()
    why = refusal(json.loads(found[0]) if found else {"error": True}, MAY_READ)
    if why is not None:
        raise Refused(why)


def table(
    connection: duckdb.DuckDBPyConnection, statement: str, asked: Asked, bytes_max: int
) -> tuple[dict[str, Any], int]:
    """Return what a statement finds, as much of it as there is room for, and how many bytes that is."""
    cursor = connection.execute(statement)
    described = cursor.description or []
    refuse_zones(described)
    columns = names(described)
    made: dict[str, Any] = {"columns": columns, "types": [str(one[1])[:200] for one in described]}
    is_json = asked.format == "json"
    shown: list[Any] = [csv_line(columns)] if asked.format == "csv" else []
    size, count, is_cut = len(orjson.dumps([made, shown])), 0, False
    if size * HEAD_SHARE * len(asked.statements) > asked.bytes_max:
        raise Refused(f"the names of its {len(columns)} columns take too much of an answer")
    while (row := cursor.fetchone()) is not None:
        values = [plain(value) for value in row]
        one = values if is_json else csv_line(values) if asked.format == "csv" else ndjson_line(columns, values)
        size += len(orjson.dumps(one, default=plain)) + 1
        if count == asked.rows_max or size > bytes_max:
            is_cut = True
            break
        shown.append(one)
        count += 1
    made |= {"rows": shown} if is_json else {"text": "".join(shown)}
    return {**made, "count": count, "is_cut": is_cut}, size


def refuse_zones(described: Sequence[Sequence[Any]]) -> None:
    """Raise `Refused` for a column with a zone, which DuckDB hands to Python by way of a library that is not here."""
    for name, kind, *_ in described:
        if "WITH TIME ZONE" in str(kind):
            raise Refused(f"the column {str(name)[:63]!r} is a time with a zone: write ::TIMESTAMP behind it, for UTC")


def names(described: Sequence[Sequence[Any]]) -> list[str]:
    """Return the names of a result's columns, each different: in a JSON object two of one name would be one.

    >>> names([("a",), ("a",), ("a_1",)])
    ['a', 'a_1', 'a_1_1']
    """
    found: dict[str, int] = {}
    for one, *_ in described:
        name = first = str(one)[:190]
        while name in found:
            found[first] += 1
            name = f"{first}_{found[first]}"
        found[name] = 0
    return list(found)


def ndjson_line(columns: Sequence[str], row: Sequence[Any]) -> str:
    """Return a row as a line of JSON."""
    return f"{json.dumps(dict(zip(columns, row, strict=True)), default=str)}\n"


def csv_line(row: Sequence[Any]) -> str:
    """Return a row as a line of CSV (RFC 4180)."""
    written = io.StringIO()
    csv.writer(written).writerow(row)
    return written.getvalue()


def plain(value: Any) -> Any:
    """Return a value as JSON has it; times become text, bytes hexadecimal digits, and what is no number null."""
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in cast("Sequence[Any]", value)]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in cast("Any", value).items()}
    return _single(value)


def _single(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if abs(value) < WHOLE_MAX else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value.hex() if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    main()
