"""`antiphon sql`: ask the record."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from antiphon.cli.options import Connection

command = App(name="sql", help="Ask the record in SQL, one statement or one after the other.")


@command.default
def sql(
    query: str | None = None,
    /,
    *,
    rows_max: Annotated[int, Parameter(validator=Number(gte=1))] = 1_000,
    history: bool = False,
    output: Annotated[Literal["table", "json", "ndjson", "csv"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Ask the record in SQL; docs/sql.md has the tables, the views and an example for each.

    Args:
        query: a statement that reads; default: statements from stdin, each ended by a semicolon.
        rows_max: rows of each answer at most, up to 10,000 over the bus.
        history: ask this machine's snapshot: all that is kept, instead of the last day.
        output: how to write the rows to stdout.
        at: where the server is.
    """
    from antiphon.cli.record import sql as asking  # noqa: PLC0415 - not for --help

    return asking.ask(at, query, output, rows_max=rows_max, history=history)
