"""`antiphon node`: see who is there, say what you want of them, and make content a node."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from antiphon.cli.options import Connection

command = App(name="node", help="See the nodes, say what you want of them, and make content a node with no code.")
ELSEWHERE = {
    "serve": ("antiphon.cli.serve:command", "Make content a node: a folder, a SQLite table, installed packages."),
    "show": ("antiphon.cli.nodes.show:show", "Show all that is known of a node, and who has said it."),
    "register": (
        "antiphon.cli.nodes.card:register",
        "Register a node: expect it, and set what wins over its own word.",
    ),
    "update": ("antiphon.cli.nodes.card:update", "Set some fields of a node's card and leave the others."),
    "rm": ("antiphon.cli.nodes.steer:rm", "Forget nodes: their cards and the instances that are down."),
    "ping": ("antiphon.cli.nodes.ping:ping", "Ask every instance whether it is there."),
    "suspend": ("antiphon.cli.nodes.steer:suspend", "Have nodes no longer asked; answers say that they were skipped."),
    "resume": ("antiphon.cli.nodes.steer:resume", "Have suspended or draining nodes asked again."),
    "drain": ("antiphon.cli.nodes.steer:drain", "Have nodes asked nothing new; what they have begun ends."),
    "invite": ("antiphon.cli.identity.keys:invite", "Make a join token for new instances of a node."),
    "apply": ("antiphon.cli.nodes.apply:apply", "Bring the registered nodes to what a fleet file says."),
}
"""Loaded when they are called: `antiphon node --help` needs neither the client nor the connectors."""
for _name, (_place, _help) in ELSEWHERE.items():
    command.command(_place, name=_name, help=_help)

WHICH = Group("Which nodes", sort_key=20)


@command.command
def ls(
    *,
    status: Annotated[Literal["active", "draining", "suspended", "down"] | None, Parameter(group=WHICH)] = None,
    capability: Annotated[str | None, Parameter(group=WHICH)] = None,
    topic: Annotated[str | None, Parameter(group=WHICH)] = None,
    name: Annotated[str | None, Parameter(group=WHICH)] = None,
    where: Annotated[str | None, Parameter(group=WHICH)] = None,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the nodes and how they are.

    Args:
        status: only nodes that are so.
        capability: only nodes that can do this.
        topic: only nodes about this.
        name: only nodes whose name matches this glob, such as shop-*.
        where: only nodes whose metadata holds, such as region=eu, tier!=test.
        output: how to write the list to stdout.
        at: where the server is.
    """
    from antiphon.cli import listing  # noqa: PLC0415 - not for --help
    from antiphon.cli.nodes.asking import asked  # noqa: PLC0415 - as above

    asks = {"capability": capability, "topic": topic, "name": name, "where": where}
    nodes = asked(at, lambda client: client.nodes(status=status, **asks))
    listing.show(nodes, output, is_filtered=status is not None or any(asks.values()))
    return 0
