"""`antiphon doctor`: what is well, and what to do about the rest."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="doctor", help="Check the connection, permissions, versions, clocks, disk and file modes.")


@command.default
def doctor(
    *,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Check the connection, permissions, versions, clocks, disk and file modes; each line is ok, or says what to do.

    Exit codes: 0 nothing is wrong, 1 something is.

    Args:
        output: how to write the findings to stdout; json is an array of check, status, says and advice.
        at: where the server is.
    """
    at.configure_logs("error")
    from antiphon.cli.identity.examine import examine  # noqa: PLC0415 - not for --help

    return examine(at, output)
