"""What the verbs of operators share: a desk for one question, times as people read them, and what is printed once."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from antiphon.cli.listing import since
from antiphon.cli.nodes.asking import asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text
from antiphon.identity.desk import Desk
from antiphon.messages.base import Message

T = TypeVar("T")


def at_desk(at: Connection, ask: Callable[[Desk], Awaitable[T]]) -> T:
    """Return what an operator is answered."""
    return asked(at, lambda client: ask(Desk(client.bus)))


def print_json(messages: Sequence[Message]) -> None:
    """Write messages to stdout as one JSON array."""
    print(json_text("[" + ",".join(one.model_dump_json() for one in messages) + "]"))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: dict[str, str]) -> None:
    """Write rows to stdout: a table for people, tabs between the cells for programs; a style is for a cell's text."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column)
    for first, *rest in rows:
        table.add_row(Text(first, "bold"), *(Text(cell, styles.get(cell, "")) for cell in rest))
    Console(highlight=False).print(table)


def wall_ms() -> int:
    """Return this machine's wall clock."""
    return time.time_ns() // 1_000_000


def when(wall: int | None) -> str:
    """Return a moment of the wall clock as a distance from now, `-` for none."""
    if not wall:
        return "-"
    left_ms = wall - wall_ms()
    return f"in {since(left_ms)}" if left_ms >= 0 else f"{since(-left_ms)} ago"
