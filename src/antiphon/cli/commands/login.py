"""`antiphon login`: an API key or a join token, read from stdin, becomes a credential file of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="login", help="Log in with an API key or a join token from stdin or $ANTIPHON_TOKEN.")


@command.default
def login(
    *,
    name: str | None = None,
    kind: Literal["publisher", "node", "operator", "analyst"] = "publisher",
    instance: str | None = None,
    seed: Path | None = None,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Log in with an API key or a join token from stdin or $ANTIPHON_TOKEN; never from an option, which others can see.

    The credential lies in the data directory, for this user alone (0600). Exit codes: 0 done, 2 usage, 7 no connection,
    8 refused.

    Args:
        name: whose it is; default: $ANTIPHON_NAME, or this user's name.
        kind: with a join token, node.
        instance: which instance of the node this machine is to be; drawn if it is not given.
        seed: a file, for this user alone, with the nkey that the API key is bound to (`antiphon key create --nkey`).
        output: how to write what was made to stdout; table is the file's name.
        at: where the server is.
    """
    from antiphon.cli.identity import enter  # noqa: PLC0415 - not for --help

    return enter.login(at, name=name, kind=kind, instance=instance, seed=seed, output=output)
