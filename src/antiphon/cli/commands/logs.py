"""`antiphon logs`: what the processes of the fabric on this machine have logged."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from antiphon.cli.options import Connection

command = App(name="logs", help="See what the processes of the fabric on this machine have logged.")


@command.default
def logs(
    *,
    role: str | None = None,
    request: str | None = None,
    since: str = "1d",
    level: Literal["info", "warning", "error"] = "info",
    count: Annotated[int, Parameter(name=["--count", "-n"], validator=Number(gte=1))] = 200,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """See what the processes of the fabric on this machine have logged, oldest first.

    Args:
        role: only of such processes: master, recorder, node-NAME.
        request: only lines that name this request, job or saga.
        since: how far back to look, such as 30min, 12h, 7d.
        level: the least level.
        count: the last so many lines.
        output: how to write them to stdout; json is one object a line.
        at: which data directory.
    """
    from antiphon.cli import logged  # noqa: PLC0415 - not for --help
    from antiphon.cli.duration import parse  # noqa: PLC0415 - as above

    since_ms = parse(since, "--since")
    return logged.show(at.home(), role, request, since_ms, level=level, count=count, output=output)
