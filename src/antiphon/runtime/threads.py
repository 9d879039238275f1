"""Threads for handlers that block, which never keep a process from ending.

`concurrent.futures` joins its threads when the interpreter ends, so one handler that hangs would hold a node that was
told to stop for ever. These are daemons: a stop waits for them as long as its grace, and no longer.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

Work = tuple[Callable[..., Any], tuple[Any, ...], asyncio.AbstractEventLoop, asyncio.Future[Any]]


class Threads:
    """A bounded number of threads, started as they are needed."""

    def __init__(self, threads_max: int, name: str) -> None:
        self.threads_max = threads_max
        self.busy = 0
        """Calls that are running or waiting for a thread."""
        self._name = name
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._started: list[threading.Thread] = []

    async def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Run a call in a thread and return what it returns; cancelling leaves the thread to end by itself."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self.busy += 1
        if self.busy > len(self._started) and len(self._started) < self.threads_max:
            thread = threading.Thread(target=self._serve, name=f"{self._name}-{len(self._started) + 1}", daemon=True)
            self._started.append(thread)
            thread.start()
        self._work.put((call, args, loop, done))
        return await done

    def stop(self, *, wait_s: float = 0) -> None:
        """Let idle threads end, and wait so long for each; some libraries bear no thread that lives at the very end."""
        for _ in self._started:
            self._work.put(None)
        if wait_s:
            for thread in self._started:
                thread.join(wait_s)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            call, args, loop, done = work
            result = None
            error: BaseException | None = None
            if not done.cancelled():
                try:
                    result = call(*args)
                except StopIteration as raised:
                    error = RuntimeError("the call raised StopIteration")  # no future takes one
                    error.__cause__ = raised
                except BaseException as raised:  # noqa: BLE001 - it is raised again where the call is awaited
                    error = raised
            try:
                loop.call_soon_threadsafe(self._end, done, result, error)
            except RuntimeError:
                return  # the loop has ended: nobody waits any more

    def _end(self, done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self.busy -= 1
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)
