"""Ends tasks for certain: nats-py, and `asyncio.wait_for` before Python 3.12, may swallow a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

AGAIN_S: Final = 0.1
"""After so long a task that is still there is cancelled once more."""


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, and return when they have ended, however often they have to be told."""
    while left := {task for task in tasks if task is not None and not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)


async def bounded(work: Coroutine[Any, Any, None], bound_s: float) -> None:
    """Do something, or raise `TimeoutError` after so many seconds, whether or not it heeds that it is cancelled."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=bound_s)
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
    if not done:
        raise TimeoutError
    task.result()


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # nobody waits for it any more
