"""`antiphon saga retry`, `skip`, `resolve` and `abandon`: what an operator can do about a saga that needs a person."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from antiphon.cli import say
from antiphon.cli.nodes.asking import Output, is_confirmed
from antiphon.cli.options import Connection
from antiphon.cli.sagas import given
from antiphon.cli.sagas.steer import ordered


def retry(
    saga: str,
    /,
    *,
    step: str | None = None,
    text: str = "",
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Try the step again at which a saga is parked, with the same idempotency key.

    Args:
        saga: its id.
        step: which, where it is parked at several.
        text: why, for its history.
        output: how to write how it stands to stdout.
        at: where the server is.
    """
    return ordered(at, saga, "retry", output, step=step, text=text)


def skip(
    saga: str,
    /,
    *,
    step: str | None = None,
    text: str = "",
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Go on without the step at which a saga is parked; what was to be undone stays, and is named as left.

    Args:
        saga: its id.
        step: which, where it is parked at several.
        text: why, for its history.
        output: how to write how it stands to stdout.
        at: where the server is.
    """
    return ordered(at, saga, "skip", output, step=step, text=text)


def resolve(
    saga: str,
    /,
    *,
    step: str | None = None,
    outcome: Literal["succeeded", "failed"] = "succeeded",
    result: str | None = None,
    text: str = "",
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Say what became of the step at which a saga is parked: somebody has found out, or has done it by hand.

    Args:
        saga: its id.
        step: which, where it is parked at several.
        outcome: succeeded or failed; that it failed is known already, save of a pivot.
        result: what the step should have returned, as JSON; later steps may refer to it.
        text: why, for its history.
        output: how to write how it stands to stdout.
        at: where the server is.
    """
    told = None if result is None else given.json_value(result, "--result")
    return ordered(at, saga, "resolve", output, step=step, outcome=outcome, result=told, text=text)


def abandon(
    saga: str,
    /,
    *,
    text: str = "",
    yes: Annotated[bool, Parameter(name=["--yes", "-y"])] = False,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """End a saga as it stands; nothing more is done or undone, and what is left is named.

    Args:
        saga: its id.
        text: why, for its history.
        yes: ask nothing.
        output: how to write how it ended to stdout.
        at: where the server is.
    """
    if not is_confirmed(f"abandon {saga}? Nothing more of it will be done or undone.", yes=yes):
        say("nothing was done")
        return 1
    return ordered(at, saga, "abandon", output, text=text)
