"""Tables on their way to stdout: for people aligned, for programs as tab-separated lines, JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from antiphon.cli import say
from antiphon.cli.safe import json_text, line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from antiphon.messages.stats import StatsTable

CELL_CHARS_MAX = 80
GAP = 2
COLUMN_CHARS_MIN = 12
"""A column that is cut for others to fit keeps so much; where that is not enough, each row is shown as a record."""


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
    else:
        show(table.columns, table.rows)
    sys.stdout.flush()
    if table.is_cut:
        say(f"the first {table.count} rows; there are more: --rows-max N, or a LIMIT of your own")


def show(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, head: bool = True) -> None:
    """Write rows as people read them: on a terminal aligned, elsewhere with tabs; `head` says whether with names."""
    if not sys.stdout.isatty():
        for row in ([columns] if head else []) + list(rows):
            print("\t".join(cell(value) for value in row))
        return
    from rich.console import Console  # noqa: PLC0415 - for people only

    console = Console(highlight=False)
    console.print(rendered(columns, rows, console, head=head))


def cell(value: Any) -> str:
    """Return a value as people read it, on one line."""
    if value is None:
        return ""
    return line(json.dumps(value) if isinstance(value, (list, dict)) else str(value))


def fitting(widths: Sequence[int], width: int) -> Mapping[int, int] | None:
    """Return the columns that have to be cut for all to fit, and to what; None where that cannot be.

    The widest is cut first, down to the next one.

    >>> fitting([10, 20], 40), fitting([10, 60], 40), fitting([12] * 10, 40)
    ({}, {1: 28}, None)
    """
    kept = list(widths)
    excess = sum(kept) + GAP * (len(kept) - 1) - width
    while excess > 0:
        widest = max(range(len(kept)), key=kept.__getitem__)
        if kept[widest] <= COLUMN_CHARS_MIN:
            return None
        next_one = max((one for one in kept if one < kept[widest]), default=0)
        less = min(excess, kept[widest] - max(next_one, COLUMN_CHARS_MIN))
        kept[widest] -= less
        excess -= less
    return {at: new for at, (old, new) in enumerate(zip(widths, kept, strict=True)) if new < old}


def rendered(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], console: Console, *, head: bool = True
) -> RenderableType:
    """Return rows for a terminal: as a table where it fits, else a record of lines for each."""
    from rich.cells import cell_len  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    names = [line(column) for column in columns]
    shown = [[cell(value) for value in row] for row in rows]
    widths = [
        max([cell_len(name) if head else 0, *(min(cell_len(row[at]), CELL_CHARS_MAX) for row in shown)])
        for at, name in enumerate(names)
    ]
    cut = fitting(widths, console.width)
    if cut is None and shown:
        return _records(names, shown, console.width)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim", show_header=head)
    for at, name in enumerate(names):
        is_number = any(isinstance(row[at], (int, float)) for row in rows)
        most = (cut or {}).get(at, widths[at])
        table.add_column(Text(name), justify="right" if is_number else "left", no_wrap=True, width=most)
    for row in shown:
        table.add_row(*map(Text, row))
    return table


def _records(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    parts: list[RenderableType] = []
    for number, row in enumerate(rows, 1):
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(style="dim", no_wrap=True, max_width=max(8, width // 3))
        grid.add_column(overflow="fold")
        for name, value in zip(names, row, strict=True):
            grid.add_row(Text(name), Text(value))
        parts += [Text(f"row {number}", "bold"), grid]
    return Group(*parts)
