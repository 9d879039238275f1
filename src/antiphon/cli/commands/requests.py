"""`antiphon requests`: the last searches, and one of them with its nodes."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from antiphon.cli.options import Connection

command = App(name="requests", help="See the last searches, and one of them with its nodes as a waterfall.")
Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])]


@command.command
def tail(
    *,
    count: Annotated[int, Parameter(name=["--count", "-n"], validator=Number(gte=1, lte=1_000))] = 20,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False,
    history: bool = False,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the last searches, oldest first: time, id, caller, ms, hits, answered of expected, question.

    Args:
        count: how many, up to 1,000.
        follow: go on with those that come, until Ctrl-C.
        history: ask this machine's snapshot: all that is kept, instead of the last day.
        output: how to write them to stdout; json is one object a line.
        at: where the server is.
    """
    from antiphon.cli.record import requests  # noqa: PLC0415 - not for --help

    return requests.tail(at, count, output, follow=follow, history=history)


@command.command
def show(
    request: str,
    /,
    *,
    history: bool = False,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Show one search with its nodes as a waterfall.

    Args:
        request: its id, or how that begins, as `antiphon requests tail` lists it.
        history: ask this machine's snapshot: all that is kept, instead of the last day.
        output: how to write it to stdout.
        at: where the server is.
    """
    from antiphon.cli.record import requests  # noqa: PLC0415 - not for --help

    return requests.show(at, request, output, history=history)
