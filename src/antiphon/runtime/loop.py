"""The event loop of a process: uvloop where it exists, asyncio's own elsewhere; and when garbage is looked for.

With uvloop a request costs the asking process about two thirds of the CPU (nats-facts.md). Python's collector looks at
every container each 700 allocations by default, which is some ten times a search and was a fifth of its cost; what was
imported is frozen, and the collector runs a hundredth as often. Reference counts free everything else at once.

`asyncio.run` waits for ever for a task that takes its cancellation for one more error; here it is left behind, so that
a process that was told to end does.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from antiphon.bus.ending import gone

T = TypeVar("T")

GARBAGE_THRESHOLD = 50_000
"""Containers allocated, net, before the collector looks at the young ones."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes this platform's best loop."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a fresh loop."""
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            try:
                return runner.run(main)
            finally:
                runner.run(_others_end())
    finally:
        gc.unfreeze()  # extension modules look for what they have leaked when the process ends


async def _others_end() -> None:
    """Cancel all other tasks, as the runner would, and hide from it those that do not end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await gone(others)
    for task in others:
        if not task.done():
            asyncio._unregister_task(task)  # noqa: SLF001 - documented, for who ends tasks in ways of his own
