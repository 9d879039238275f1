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
from antiphon.cli.safe import json_text
from antiphon.errors import InvalidSetting

if TYPE_CHECKING:
    from antiphon.messages.stats import StatsTable

LAST = """SELECT ts, request, caller, query, round(took_us / 1000, 2) AS took_ms, hits, answered, expected, code,
    seq, fact, writer FROM requests {where} ORDER BY ts DESC, seq DESC, fact DESC LIMIT {limit}"""
ONE = "SELECT * FROM requests WHERE request = '{request}' ORDER BY ts DESC LIMIT 1"
NODES = """SELECT node, instance, outcome, took_us, hits, contributed, attempts, code, detail FROM node_replies
WHERE request = '{request}' ORDER BY took_us DESC, node"""
BAR_CHARS = 32
AGAIN_S = 2.0
FOLLOWED_MAX = 500
LEGAL = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def tail(at: Connection, count: int, output: str, *, follow: bool, history: bool) -> int:
    """Write the last searches, oldest first, and with `follow` those that come."""
    seen: set[tuple[Any, ...]] = set()
    limit = count
    while True:
        [table] = tables(at, [LAST.format(where="", limit=limit)], rows_max=limit, history=history)
        fresh = [row for row in reversed(_named(table)) if _key(row) not in seen]
        for row in fresh:
            print(json_text(json.dumps(row, default=str)) if output == "json" else "\t".join(_line(row)))
        sys.stdout.flush()
        if not follow:
            return 0
        seen = {_key(row) for row in _named(table)}
        limit = FOLLOWED_MAX
        time.sleep(AGAIN_S)


def show(at: Connection, request: str, output: str, *, history: bool) -> int:
    """Write one search and its nodes; exit code 1 where there is none of that id."""
    if not LEGAL.fullmatch(request):
        raise InvalidSetting(f"{request[:80]!r} is no request's id: `antiphon requests tail` shows some")
    asked = [ONE.format(request=request), NODES.format(request=request)]
    whole, nodes = tables(at, asked, rows_max=1_000, history=history)
    found = _named(whole)
    if not found:
        raise InvalidSetting(f"no request {request!r} in the record of the last day: --history looks further back")
    if output == "json":
        print(json_text(json.dumps({**found[0], "nodes": _named(nodes)}, default=str)))
        return 0
    _waterfall(found[0], _named(nodes))
    return 0


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


def _line(row: dict[str, Any]) -> list[str]:
    how = row["code"] or f"{row['answered']}/{row['expected']}"
    shown = (row["ts"], row["request"], row["caller"], row["took_ms"], row["hits"], how, row["query"])
    return [cell(value) for value in shown]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["writer"], row["seq"], row["fact"]


def _named(table: StatsTable) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
