"""Virtual time: an event loop that jumps to its next timer instead of waiting for it.

Whatever runs on such a loop - sleeps, timeouts, deadlines, heartbeats - takes no real time and repeats exactly. Time
stands still while anything can run, while a thread works, and while a socket has something to say. When nothing can
ever run again, the loop raises `Deadlock` instead of hanging. It is made for the memory bus: a peer behind a real
socket lives in real time, so the loop would jump past its deadline before the answer is there.
"""

from __future__ import annotations

import asyncio
import selectors
from asyncio import futures
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

THREAD_MS_MAX = 60_000
"""Real milliseconds that a thread may work while nothing else can happen."""


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set and no thread works: what is awaited can never happen."""


class _Selector(selectors.BaseSelector):
    """A selector that asks the loop what to do where a real one would wait."""

    def __init__(self, wait: Callable[[float | None], bool]) -> None:
        self._real = selectors.DefaultSelector()
        self._wait = wait

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        return self._real.select(THREAD_MS_MAX / 1_000) if self._wait(timeout) else []

    def close(self) -> None:
        self._real.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is its own."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._threads = 0
        super().__init__(_Selector(self._passes))

    def time(self) -> float:
        """Return the virtual time in seconds; it starts at 0."""
        return self._now_ns / 1_000_000_000

    def run_in_executor(  # type: ignore[override]  # typeshed has the variadic generics of 3.12 here
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a function in a thread; time stands still until it returns."""
        future = super().run_in_executor(executor, func, *args)
        self._threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - asyncio's
        """End the default executor; its threads are waited for in real time."""
        self._threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._threads -= 1

    def _thread_done(self, _done: futures.Future[Any]) -> None:
        self._threads -= 1

    def _passes(self, timeout: float | None) -> bool:
        """Let time pass; return whether it must be waited for something real instead."""
        if self._threads:
            return True
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set: what is awaited can never happen")
        self._now_ns += max(1, round(timeout * 1_000_000_000))
        return False


def virtual_run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time.

    >>> import asyncio
    >>> async def a_day() -> float:
    ...     await asyncio.sleep(86_400)
    ...     return asyncio.get_running_loop().time()
    >>> virtual_run(a_day())
    86400.0

    Raises `Deadlock` where a real loop would hang for ever.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
