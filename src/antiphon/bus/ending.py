"""Ends tasks for certain: nats-py, and `asyncio.wait_for` before Python 3.12, may swallow a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

import structlog

log = structlog.get_logger("antiphon.bus")

AGAIN_S: Final = 0.1
"""After so long a task that is still there is cancelled once more."""
WAIT_S: Final = 1.0
"""How long others' code may take to end after it was cancelled; then nobody waits for it any more."""


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, and return when they have ended, however often they have to be told."""
    while left := {task for task in tasks if task is not None and not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)


async def gone(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Wait until cancelled tasks have ended, or leave them behind.

    They run others' code, which may take each cancellation for one more error: who is told to end has to, all the same.
    """
    waiting = tuple(tasks)
    if not waiting:
        return
    _, left = await asyncio.wait(waiting, timeout=WAIT_S)
    for task in left:
        log.warning("task.not_ended", waits_in=_waits_in(task))


def _waits_in(task: asyncio.Task[Any]) -> str:
    """Where a task stands, e.g. `shop.find:17`, leaving out what asyncio itself does there."""
    found = ""
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("asyncio."):
            found = f"{module}.{frame.f_code.co_name}:{frame.f_lineno}"
        awaited = getattr(awaited, "cr_await", None)
    return found


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
