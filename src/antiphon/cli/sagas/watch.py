"""`antiphon saga watch ID`: a saga while it runs, to its end or until it needs a person."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from antiphon.cli import say
from antiphon.cli.exits import of_saga
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text
from antiphon.cli.sagas import drawn
from antiphon.client import Client
from antiphon.runtime.loop import run
from antiphon.saga_run import SagaRun

Output = Annotated[Literal["table", "json", "jsonl"], Parameter(name=["--output", "-o"])]

PER_SECOND = 5


def watch(
    saga: str,
    /,
    *,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Watch a saga until it has ended or is parked.

    Exit codes: 0 completed, 9 undone or abandoned, 10 parked, 130 ended by Ctrl-C: the saga goes on; else as of other
    commands.

    Args:
        saga: its id.
        output: how to write it to stdout; jsonl writes it each time it has moved.
        at: where the server is.
    """
    at.configure_logs("error")

    async def watching() -> int:
        async with Client(**at.place()) as client:
            return await followed(client.saga(saga), output)

    return run(watching())


async def followed(saga: SagaRun, output: str) -> int:
    """Show a saga until it has ended or is parked, write how it stands, and return the exit code."""
    try:
        with _live(saga):
            async for shown in saga.watch(history=True):
                if output == "jsonl":
                    print(json_text(shown.model_dump_json(exclude_none=True, exclude={"history"})), flush=True)
                if saga.is_parked:
                    break
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(f"the saga goes on: `antiphon saga watch {saga.id}` follows it, `antiphon saga cancel {saga.id}` undoes it")
        raise
    assert saga.last is not None, "it was shown"
    view = saga.last
    if output != "jsonl":
        drawn.written(view if output == "table" else view.model_copy(update={"history": ()}), output)
    drawn.hint(view)
    return of_saga(view)


def _live(saga: SagaRun) -> AbstractContextManager[Any]:
    """Return what draws on stderr while it runs, where that is a terminal; times move on by themselves."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console, RenderableType  # noqa: PLC0415 - for people only
    from rich.live import Live  # noqa: PLC0415 - as above

    def drawing() -> RenderableType:
        return "" if saga.last is None else drawn.drawing(saga.last, drawn.wall_ms())

    console = Console(stderr=True, highlight=False)
    return Live(console=console, get_renderable=drawing, refresh_per_second=PER_SECOND, transient=True)
