"""`antiphon saga ls`: which sagas there are, how each stands, and at which step."""

from __future__ import annotations

import sys
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from antiphon.cli import say
from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.cli.sagas.drawn import STYLES, clock
from antiphon.messages.saga_desk import SagaLine

COLUMNS: Final = ("id", "name", "state", "steps", "at", "caller", "started", "why")
State = Literal["scheduled", "running", "compensating", "paused", "parked", "completed", "compensated", "abandoned"]


def ls(
    *,
    state: State | None = None,
    name: str | None = None,
    caller: Annotated[str | None, Parameter()] = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List sagas by id: your own, or all of them as an operator.

    Args:
        state: only those that stand so: scheduled, running, compensating, paused, parked, completed, compensated,
            abandoned.
        name: only those that are called so.
        caller: only those that he has submitted.
        output: how to write the list to stdout.
        at: where the server is.
    """
    found = asked(at, lambda client: client.sagas(state=state, name=name, caller=caller))
    if output == "json":
        print(json_text("[" + ",".join(one.model_dump_json(exclude_none=True) for one in found) + "]"))
    elif not found:
        say("no such saga" if state or name or caller else "no saga: `antiphon saga submit FILE` begins one")
    elif sys.stdout.isatty():
        _table(found)
    else:
        for one in found:
            print("\t".join(row(one)))
    return 0


def row(one: SagaLine) -> tuple[str, ...]:
    """Return what is shown of a saga, in the order of `COLUMNS`."""
    return (
        one.id,
        one.name,
        str(one.state),
        f"{one.done}/{one.total}",
        one.step or "-",
        one.caller,
        clock(one.started_ms),
        line(one.text or "") or "-",
    )


def _table(found: tuple[SagaLine, ...]) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - rich, for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    cells = [row(one) for one in found]
    for at, column in enumerate(COLUMNS[:4]):
        width = max(len(one[at]) for one in cells)  # or rich would rather cut ids than reasons
        table.add_column(column, no_wrap=True, min_width=width, justify="right" if column == "steps" else "left")
    table.add_column("at", no_wrap=True, overflow="ellipsis")
    for one, (name, kind, state, steps, step, *_, why) in zip(found, cells, strict=True):
        place = " ".join(part for part in (step, why) if part != "-")
        table.add_row(Text(name, "bold"), kind, Text(state, STYLES[one.state]), steps, Text(place))
    Console(highlight=False).print(table)
