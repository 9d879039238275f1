"""Following a job on a terminal or in a pipe, to its end."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from antiphon.cli import say
from antiphon.cli.acting import outcome
from antiphon.cli.acting.progress import Watched
from antiphon.cli.safe import json_text
from antiphon.jobs import Job


class Form(StrEnum):
    """How a job is written to stdout."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


async def follow(job: Job, form: Form) -> int:
    """Show a job until it has ended, write what became of it, and return the exit code."""
    try:
        with Watched() as watched:
            if job.view is not None:
                watched.moved(job.view)
            async for one in job:
                if form is Form.JSONL:
                    print(json_text(one.model_dump_json(exclude_none=True)), flush=True)
                if job.view is not None:
                    watched.moved(job.view, one)
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(f"the job goes on: `antiphon action attach {job.id}` follows it, `antiphon action cancel {job.id}` ends it")
        raise
    result = await job.result()
    if form is Form.JSONL:
        print(json_text(outcome.ending(result)), flush=True)
    return outcome.written(result, str(form))
