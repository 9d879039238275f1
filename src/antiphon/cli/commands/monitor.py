"""`antiphon monitor`: how every node is, again and again."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="monitor", help="See how every node is, again and again, and what is wrong.")


@command.default
def monitor(
    *,
    once: bool = False,
    interval: float = 2.0,
    auto_recover: bool = False,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """See how every node is, again and again, and what is wrong.

    Exit codes: 0 done, 2 usage, 4 no master answers, 7 no connection, 130 ended by Ctrl-C.

    Args:
        once: show it once and end.
        interval: seconds from one look to the next, at least 0.1.
        auto_recover: reset breakers that opened by themselves and whose instance answers pings again.
        output: how to write it to stdout; json is one object a look, on one line.
        at: where the server is.
    """
    at.configure_logs("error")
    from antiphon.cli import watching  # noqa: PLC0415 - not for --help

    return watching.watch(at, once=once, interval_s=interval, is_recovering=auto_recover, output=output)
