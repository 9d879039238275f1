"""`antiphon saga cancel`, `pause` and `resume`: what whoever submitted a saga may order, and operators."""

from __future__ import annotations

from typing import Any

from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection
from antiphon.cli.sagas import drawn


def cancel(saga: str, /, *, text: str = "", output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Turn a saga back: what runs is waited for, then what was done is undone. Past its pivot there is no way back.

    Args:
        saga: its id.
        text: why, for its history.
        output: how to write how it stands to stdout.
        at: where the server is.
    """
    return ordered(at, saga, "cancel", output, text=text)


def pause(saga: str, /, *, text: str = "", output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Begin no more of a saga's steps until it is resumed; what runs goes on.

    Args:
        saga: its id.
        text: why, for its history.
        output: how to write how it stands to stdout.
        at: where the server is.
    """
    return ordered(at, saga, "pause", output, text=text)


def resume(saga: str, /, *, text: str = "", output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Go on with a paused saga.

    Args:
        saga: its id.
        text: why, for its history.
        output: how to write how it stands to stdout.
        at: where the server is.
    """
    return ordered(at, saga, "resume", output, text=text)


def ordered(at: Connection, saga: str, order: str, output: str, **said: Any) -> int:
    """Give an order, and show how the saga stands after it."""
    view = asked(at, lambda client: client.saga(saga).order(order, **said))
    drawn.written(view, output)
    if order != "pause":
        drawn.hint(view)
    return 0
