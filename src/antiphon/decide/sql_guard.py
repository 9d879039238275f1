"""Whether a statement of an analyst only reads the record's tables: judged by DuckDB's own parse tree of it.

An analyst's SQL is hostile input. A statement that says SELECT may hide a DELETE or a COPY in a common table
expression, and a function may read a file. This guard is the first of several walls, each enough for most of it: behind
it the file is opened read-only, with no access to anything outside and its settings locked, in a process that may not
write a byte and is killed when it takes too long (FACTS.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""What a statement may be made of; every other node changes something."""
TABLE_FUNCTIONS: Final = frozenset({"unnest", "range", "generate_series"})
FORBIDDEN: Final = frozenset(
    {
        "getenv", "getvariable", "current_setting", "current_database", "current_catalogs", "query", "query_table",
        "read_text", "read_blob", "read_csv", "read_csv_auto", "read_parquet", "read_json", "read_json_auto",
        "parquet_scan", "glob", "sniff_csv", "write_log", "nextval", "currval", "add_parquet_key", "checkpoint",
        "force_checkpoint", "json_execute_serialized_sql", "json_deserialize_sql", "json_serialize_plan", "sleep_ms",
        "in_search_path", "pg_sleep",
    }
)  # fmt: skip
"""Functions that read what is no table, run text as SQL, or change something."""
CATALOGUE: Final = ("duckdb_", "pragma_", "sqlite_", "pg_")
"""How the names begin of everything that DuckDB finds without a schema and that is none of our tables."""
SCHEMAS: Final = frozenset({"", "main"})
NODES_MAX: Final = 20_000
"""Parts of one statement: a larger one is written to exhaust something."""


def refusal(parsed: Mapping[str, Any], tables: frozenset[str]) -> str | None:
    """Return why a statement is refused, or None.

    Args:
        parsed: what `json_serialize_sql` says of it.
        tables: what may be read.

    >>> refusal({"error": True, "error_message": "Only SELECT statements can be serialized to json!"}, frozenset())
    'only statements that read are allowed: Only SELECT statements can be serialized to json!'
    """
    if parsed.get("error"):
        return f"only statements that read are allowed: {str(parsed.get('error_message', ''))[:300]}"
    statements = cast("list[Any]", parsed.get("statements") or [])
    if len(statements) != 1:
        return f"{len(statements)} statements: send each as one of its own"
    parts = list(_parts(statements[0]))
    if len(parts) > NODES_MAX:
        return "the statement is too large"
    declared = {str(key).lower() for part in parts for key in _common(part)}
    strange = sorted(name for name in declared if not name.isidentifier() or name.startswith(CATALOGUE))
    if strange:  # where it is not declared, it would name what is there without us
        return f"{strange[0][:63]!r} is no name for a common table expression here"
    names = tables | declared
    return next((why for part in parts if (why := _why(part, names)) is not None), None)


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of a tree, without recursion: its depth is the sender's choice."""
    waiting: list[Any] = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            found = cast("dict[str, Any]", one)
            yield found
            waiting.extend(found.values())
        elif isinstance(one, list):
            waiting.extend(cast("Any", one))


def _common(part: Mapping[str, Any]) -> list[Any]:
    """Return the names of the common table expressions that a part declares."""
    declared: Any = part.get("cte_map")
    if not isinstance(declared, dict):
        return []
    inside = cast("list[dict[str, Any]]", cast("dict[str, Any]", declared).get("map") or [])
    return [one.get("key") for one in inside]


def _why(part: Mapping[str, Any], names: frozenset[str]) -> str | None:
    kind = str(part.get("type", ""))
    if kind.endswith("_NODE") and kind not in NODES:
        return f"it changes something: {kind.removesuffix('_NODE').lower()}"
    if kind == "BASE_TABLE":
        return _table(part, names)
    if kind == "TABLE_FUNCTION":
        function: Any = part.get("function") or {}
        name = str(function.get("function_name", "")).lower()
        return None if name in TABLE_FUNCTIONS else f"the table function {name!r} is not allowed"
    name = str(part.get("function_name", "")).lower()
    if name in FORBIDDEN or name.startswith(CATALOGUE[:2]):
        return f"the function {name!r} is not allowed"
    return None


def _table(part: Mapping[str, Any], names: frozenset[str]) -> str | None:
    schema, name = str(part.get("schema_name", "")).lower(), str(part.get("table_name", "")).lower()
    if part.get("catalog_name") or schema not in SCHEMAS:
        return f"the schema {schema!r} is not allowed"
    return None if name in names else f"there is no table {name[:63]!r} here"
