"""Tables on their way to stdout: for people aligned, for programs as JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Any

from antiphon.cli import say
from antiphon.cli.safe import json_text, line

if TYPE_CHECKING:
    from antiphon.messages.stats import StatsTable

CELL_CHARS_MAX = 80


def write(table: StatsTable, output: str) -> None:
    """Write a table in one of the forms table, json, ndjson, csv."""
    named = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    if output == "json":
        print(json_text(json.dumps(named, default=str)))
    elif output == "ndjson":
        for one in named:
            print(json_text(json.dumps(one, default=str)))
    elif output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(table.rows)
    elif sys.stdout.isatty():
        _aligned(table)
    else:
        print("\t".join(table.columns))
        for row in table.rows:
            print("\t".join(cell(value) for value in row))
    sys.stdout.flush()
    if table.is_cut:
        say(f"the first {table.count} rows; there are more: --rows-max N, or a LIMIT of your own")


def cell(value: Any) -> str:
    """Return a value as people read it, on one line."""
    if value is None:
        return ""
    return line(json.dumps(value) if isinstance(value, (list, dict)) else str(value))


def _aligned(table: StatsTable) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for at, column in enumerate(table.columns):
        is_number = any(isinstance(row[at], (int, float)) for row in table.rows)
        shown.add_column(Text(line(column)), justify="right" if is_number else "left")
    for row in table.rows:
        shown.add_row(*(Text(cell(value)[:CELL_CHARS_MAX]) for value in row))
    Console(highlight=False).print(shown)
