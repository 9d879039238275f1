"""`antiphon whoami`: whom the masters take this machine for, and by which credential."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="whoami", help="See whom the masters take you for, and by which credential.")


@command.default
def whoami(
    *,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """See whom the masters take you for, and by which credential.

    Args:
        output: how to write it to stdout.
        at: where the server is.
    """
    from antiphon.cli.identity import enter  # noqa: PLC0415 - not for --help

    return enter.whoami(at, output)
