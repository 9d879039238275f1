"""`antiphon action attach JOB` and `cancel JOB`: a job that was begun elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from antiphon.cli.acting import outcome
from antiphon.cli.acting.follow import Form, follow
from antiphon.cli.options import Connection
from antiphon.client import Client
from antiphon.jobs import JobResult
from antiphon.runtime.loop import run

Output = Annotated[Literal["table", "json", "jsonl"], Parameter(name=["--output", "-o"])]


def attach(
    job: str,
    /,
    *,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Watch a job again, or see what became of it; it is kept for a day.

    Exit codes: as of `antiphon action run`.

    Args:
        job: its id.
        output: how to write what became of it to stdout; jsonl writes each change as it comes.
        at: where the server is.
    """
    at.configure_logs("error")

    async def attaching() -> int:
        async with Client(**at.place()) as client:
            return await follow(client.job(job), Form(output))

    return run(attaching())


def cancel(
    job: str,
    /,
    *,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Cancel a job: ask nobody more, and cut off the handlers that run.

    Exit codes: 0 it has ended, whoever ended it; else as of other commands.

    Args:
        job: its id.
        output: how to write what became of it to stdout.
        at: where the server is.
    """
    at.configure_logs("error")

    async def cancelling() -> JobResult:
        async with Client(**at.place()) as client:
            found = client.job(job)
            await found.cancel()
            return await found.result()

    outcome.written(run(cancelling()), output)
    return 0
