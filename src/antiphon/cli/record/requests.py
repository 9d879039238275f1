"""What `antiphon requests` does: the last searches, line by line, and one of them with its nodes as a waterfall."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from antiphon.cli.options import Connection
from antiphon.cli.record.asking import tables
from antiphon.cli.record.writing import cell
from antiphon.cli.record.writing import show as show_rows
from antiphon.cli.safe import json_text
from antiphon.errors import InvalidSetting

if TYPE_CHECKING:
    from antiphon.messages.stats import StatsTable

LAST = """SELECT ts, request, caller, query, round(took_us / 1000, 2) AS took_ms, hits, answered, expected, code,
    seq, fact, writer FROM requests {where} ORDER BY ts DESC, seq DESC, fact DESC LIMIT {limit}"""
FIRST = "FROM requests WHERE starts_with(request, '{request}') ORDER BY request <> '{request}', ts DESC LIMIT"
ONE = f"SELECT * {FIRST} 2"
NODES = f"""SELECT node, instance, outcome, took_us, hits, contributed, attempts, code, detail FROM node_replies
WHERE request = (SELECT request {FIRST} 1) ORDER BY took_us DESC, node"""  # noqa: S608 - our own names; an id is legal before it comes here
COLUMNS = ("at", "request", "caller", "ms", "hits", "answered", "query")
BAR_CHARS = 32
ID_CHARS = 12
"""On a terminal so much of an id is enough to name a request."""
AGAIN_S = 2.0
FOLLOWED_MAX = 500
LEGAL = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def tail(at: Connection, count: int, output: str, *, follow: bool, history: bool) -> int:
    """Write the last searches, oldest first, and with `follow` those that come."""
    seen: set[tuple[Any, ...]] = set()
    limit, where = count, ""
    while True:
        [table] = tables(at, [LAST.format(where=where, limit=limit)], rows_max=limit, history=history)
        rows = _named(table)
        fresh = [row for row in reversed(rows) if _key(row) not in seen]
        if output == "json":
            for row in fresh:
                print(json_text(json.dumps(row, default=str)))
        elif fresh:
            show_rows(COLUMNS, [_line(row) for row in fresh], head=sys.stdout.isatty() and not seen)
        sys.stdout.flush()
        if not follow:
            return 0
        if rows and (not where or len(rows) == limit):
            where = f"WHERE ts >= TIMESTAMP '{rows[-1]['ts']}'"  # what is older was not asked for
        seen = {_key(row) for row in rows}
        limit = FOLLOWED_MAX
        time.sleep(AGAIN_S)


def show(at: Connection, request: str, output: str, *, history: bool) -> int:
    """Write one search and its nodes; raises `InvalidSetting` where no id or more than one begins so."""
    if not LEGAL.fullmatch(request):
        raise InvalidSetting(f"{request[:80]!r} is no request's id: `antiphon requests tail` shows some")
    asked = [ONE.format(request=request), NODES.format(request=request)]
    whole, nodes = tables(at, asked, rows_max=1_000, history=history)
    found = _named(whole)
    if not found:
        raise InvalidSetting(f"no request {request!r} in the record of the last day: --history looks further back")
    if len(found) > 1 and request not in {found[0]["request"], found[1]["request"]} and len(_ids(found)) > 1:
        raise InvalidSetting(f"more than one request begins with {request!r}: {' and '.join(_ids(found))} are two")
    if output == "json":
        print(json_text(json.dumps({**found[0], "nodes": _named(nodes)}, default=str)))
        return 0
    _waterfall(found[0], _named(nodes))
    return 0


def _ids(found: list[dict[str, Any]]) -> list[str]:
    return sorted({str(one["request"]) for one in found})


def bar(took_us: int, most_us: int, width: int = BAR_CHARS) -> str:
    """Return a bar as long as something took, of the longest.

    >>> bar(50, 100, 4)
    '██··'
    """
    full = min(width, max(1, round(width * took_us / most_us))) if most_us and took_us else 0
    return "█" * full + "·" * (width - full)


def _waterfall(one: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    question = cell(one["query"]) or "(not kept)"
    print(f"{cell(one['ts'])}  {question}  by {cell(one['caller'])}, master {cell(one['writer'])}")
    lines = [("whole", int(one["took_us"] or 0), _how(one))]
    for node in nodes:
        parts = [str(node["outcome"]), f"{node['hits']} hits, {node['contributed']} shown"]
        parts += [f"asked {node['attempts']} times"] if node["attempts"] > 1 else []
        parts += [cell(node["code"])] if node["code"] else []
        lines.append((cell(node["node"]), int(node["took_us"] or 0), ", ".join(parts)))
    wide, most = max(len(name) for name, _, _ in lines), max(took_us for _, took_us, _ in lines)
    for name, took_us, how in lines:
        print(f"{name:<{wide}}  {bar(took_us, most)}  {took_us / 1_000:>9.2f} ms  {how}")


def _how(one: dict[str, Any]) -> str:
    if one["code"]:
        return f"refused: {cell(one['code'])}"
    return f"{one['hits']} hits, {one['answered']} of {one['expected']} answered, {cell(one['fusion'])}"


def _line(row: dict[str, Any]) -> list[Any]:
    how = row["code"] or f"{row['answered']}/{row['expected']}"
    at, request = str(row["ts"])[: len("2026-11-23 15:26:50.813")], str(row["request"])
    if sys.stdout.isatty():
        at, request = at[len("2026-") : len("2026-11-23 15:26:50")], request[:ID_CHARS]
    return [at, request, row["caller"], row["took_ms"], row["hits"], how, row["query"]]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["writer"], row["seq"], row["fact"]


def _named(table: StatsTable) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
