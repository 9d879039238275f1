"""`antiphon saga ls`: which sagas there are, how each stands, and at which step."""

from __future__ import annotations

import sys
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from antiphon.cli import say
from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.cli.sagas.drawn import STYLES, aligned, clock
from antiphon.messages.saga_desk import SagaLine

COLUMNS: Final = ("id", "name", "state", "steps", "at", "caller", "started", "why")
State = Literal["scheduled", "running", "compensating", "paused", "parked", "completed", "compensated", "abandoned"]


def ls(
    *,
    state: State | None = None,
    name: str | None = None,
    caller: Annotated[str | None, Parameter()] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))] = 500,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List sagas by id: your own, or all of them as an operator.

    Args:
        state: only those that stand so: scheduled, running, compensating, paused, parked, completed, compensated,
            abandoned.
        name: only those that are called so.
        caller: only those that he has submitted.
        limit: so many, and on stderr that there are more.
        output: how to write the list to stdout.
        at: where the server is.
    """
    found = asked(at, lambda client: client.sagas(state=state, name=name, caller=caller, limit=limit + 1))
    if len(found) > limit:
        say(f"the first {limit}, by id: --limit shows more, --state and --name fewer")
        found = found[:limit]
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
    from rich.console import Console, Group  # noqa: PLC0415 - for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    head = ("id", "name", "state", "done", "")
    rows = [(*one[:4], " ".join(part for part in (one[4], one[7]) if part != "-")) for one in map(row, found)]
    widths = [max(len(one[at]) for one in (head, *rows)) for at in range(len(head))]
    state = widths[0] + widths[1] + 4
    lines = [Text(aligned(head, widths, head), "dim", no_wrap=True, overflow="ellipsis")]
    for one, cells in zip(found, rows, strict=True):
        text = Text(aligned(cells, widths, head), no_wrap=True, overflow="ellipsis")
        text.stylize("bold", 0, widths[0])
        text.stylize(STYLES[one.state], state, state + widths[2])
        lines.append(text)
    Console(highlight=False).print(Group(*lines))
