"""`antiphon breaker`: see which breakers are not closed, and move them by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="breaker", help="See which breakers are not closed, and move them by hand.")
Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])]


@command.command
def ls(
    node: str | None = None,
    /,
    *,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the breakers that are not closed by themselves.

    Args:
        node: only this node's.
        output: how to write the list to stdout.
        at: where the server is.
    """
    from antiphon.cli import breaking  # noqa: PLC0415 - not for --help

    return breaking.ls(at, node, output)


ORDERS = {
    "reset": "Forget what is known of a node's breakers: calls pass again, and failures open them again.",
    "open": "Hold a node's breakers open until `antiphon breaker reset` or `close`: it is not asked.",
    "close": "Hold a node's breakers closed until `antiphon breaker reset` or `open`: failures open nothing.",
}


def _move(order: str) -> Callable[..., int]:
    """Return the command that gives an order."""

    def move(
        node: str,
        instance: str | None = None,
        /,
        *,
        verb: str = "search",
        output: Output = "table",
        at: Connection = Connection(),  # noqa: B008 - frozen
    ) -> int:
        """Give the order.

        Args:
            node: the node.
            instance: only this instance.
            verb: what is asked of it.
            output: how to write what was done to stdout; table writes nothing.
            at: where the server is.
        """
        from antiphon.cli import breaking  # noqa: PLC0415 - not for --help

        return breaking.move(at, order, node, instance, verb=verb, output=output)

    return move


for _order, _help in ORDERS.items():
    command.command(_move(_order), name=_order, help=_help)
