"""`antiphon saga show ID`: one saga as it stands or ended."""

from __future__ import annotations

from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection
from antiphon.cli.sagas import drawn


def show(
    saga: str,
    /,
    *,
    history: bool = False,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Show a saga: its steps, their times and attempts, what was undone.

    Its history is kept for an hour after its end unless set otherwise, then only how it ended.

    Args:
        saga: its id.
        history: with every event.
        output: how to write it to stdout.
        at: where the server is.
    """
    # a drawing needs the events, for the times of what was undone
    view = asked(at, lambda client: client.saga(saga).view(history=history or output == "table"))
    drawn.written(view, output, has_history=history)
    drawn.hint(view)
    return 0
