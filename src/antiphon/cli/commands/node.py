"""`antiphon node`: see who is there, and make content a node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

if TYPE_CHECKING:
    from antiphon.messages.registry import NodeEntry

command = App(name="node", help="See the nodes, and make content a node with no code.")
command.command(
    "antiphon.cli.serve:command",
    name="serve",
    help="Make content a node: a folder, a SQLite table, installed packages.",
)


@command.command
def ls(
    *,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the nodes and how they are.

    Args:
        output: how to write the list to stdout.
        at: where the server is.
    """
    at.configure_logs("error")
    from antiphon.cli import listing  # noqa: PLC0415 - not for --help
    from antiphon.client import Client  # noqa: PLC0415
    from antiphon.runtime.loop import run  # noqa: PLC0415

    async def ask() -> tuple[NodeEntry, ...]:
        async with Client(**at.place()) as client:
            return await client.nodes()

    listing.show(run(ask()), output)
    return 0
