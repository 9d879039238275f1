"""What `antiphon stats` shows: the figures of a while, with a line of blocks for the traffic."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from antiphon.cli import say
from antiphon.cli.options import Connection
from antiphon.cli.record.asking import tables
from antiphon.cli.record.figures import FIGURES, statement
from antiphon.cli.record.writing import cell, show
from antiphon.cli.safe import json_text

if TYPE_CHECKING:
    from antiphon.messages.stats import StatsTable

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK_CHARS = 61
ROWS_MAX = 2_000
DAY_MS = 86_400_000


def overview(at: Connection, since_ms: int, node: str | None, output: str, *, sql: bool, history: bool) -> int:
    """Show the figures, or with `sql` the statements behind them."""
    statements = {name: statement(name, since_ms, node) for name in FIGURES}
    if sql:
        for name, text in statements.items():
            print(f"-- {name}\n{text};\n")
        return 0
    found = dict(zip(FIGURES, tables(at, list(statements.values()), rows_max=ROWS_MAX, history=history), strict=True))
    if output == "json":
        whole = {name: _named(table) for name, table in found.items()}
        print(json_text(json.dumps(whole, default=str)))
    else:
        _shown(found)
    sys.stdout.flush()
    if since_ms > DAY_MS and not history:
        say("over the bus rows are of the last day, and traffic, latency and nodes of all time: --history has it all")
    if node is not None and not found["slowest nodes"].rows:
        say(f"nothing was asked of a node {node!r} in this time: `antiphon node ls` lists the nodes")
    if not _named(found["requests"])[0].get("requests"):
        say("no search in this time: `--since 7d --history` looks further back")
    return 0


def spark(values: Sequence[float], width: int = SPARK_CHARS) -> str:
    """Return values as a line of blocks, the largest one full; neighbours are added up where there are more than fit.

    >>> spark([0, 1, 2, 4])
    '▁▃▅█'
    """
    if not values:
        return ""
    each = -(-len(values) // width)
    sums = [sum(values[at : at + each]) for at in range(0, len(values), each)]
    most = max(sums) or 1
    return "".join(BLOCKS[round(value / most * (len(BLOCKS) - 1))] for value in sums)


def _shown(found: dict[str, StatsTable]) -> None:
    [whole] = _named(found["requests"]) or [{}]
    latency = (_named(found["latency"]) or [{}])[0]
    cache = (_named(found["cache"]) or [{}])[0]
    traffic = [float(row.get("requests") or 0) for row in _named(found["traffic"])]
    counts = {name: whole.get(name) or 0 for name in ("requests", "refused", "callers", "without_hits")}
    times = [f"{name.removesuffix('_ms')} {cell(latency[name]) or '-'} ms" for name in latency]
    coverage = "-" if whole.get("coverage") is None else f"{float(whole['coverage']):.1%}"
    _heads(
        ["requests", str(counts["requests"]), f"refused {counts['refused']}", f"callers {counts['callers']}"],
        ["traffic", spark(traffic)],
        ["latency", *times],
        ["cache", f"{float(cache.get('hit_rate') or 0):.1%}", f"of {cache.get('answers') or 0} answers of nodes"],
        ["coverage", coverage, f"without hits {counts['without_hits']}"],
    )
    for name in ("slowest nodes", "breakers", "sagas", "actions", "alerts", "losses"):
        if found[name].rows:
            print(f"\n{name}", flush=True)
            show(found[name].columns, found[name].rows)


def _heads(*lines: Sequence[str]) -> None:
    """Write what is said first: on a terminal with blanks, elsewhere with tabs."""
    wide = max(len(one[0]) for one in lines)
    for first, *rest in lines:
        print(f"{first:<{wide}}  {'   '.join(rest)}" if sys.stdout.isatty() else "\t".join([first, *rest]))


def _named(table: StatsTable) -> list[dict[str, Any]]:
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
