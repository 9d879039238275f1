"""Running what node authors write: `async` handlers in the loop, plain ones in a bounded number of threads."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any

import structlog

from antiphon.errors import AntiphonError, HandlerFailed, Overloaded
from antiphon.runtime.threads import Threads

log = structlog.get_logger("antiphon.node")

RETRY_AFTER_MS = 100
_NOT_BLAMED = (AntiphonError, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
"""Everything else is a bug: also a `sys.exit()` somewhere below a handler, which must not end the node."""


class Blamed:
    """Whatever is raised within is `HandlerFailed`, unless it is one of our errors.

    Its text may hold secrets, so only its class travels. A class: it stands in every search, and is cheap.
    """

    __slots__ = ("_node", "_request", "_what")

    def __init__(self, what: str, node: str, request: str | None) -> None:
        self._what = what
        self._node = node
        self._request = request

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Blame the author, where it was his."""
        if error is not None and not isinstance(error, _NOT_BLAMED):
            log.error("node.handler_failed", node=self._node, request=self._request, exc_info=error)
            raise HandlerFailed(f"{self._what} of {self._node} raised {type(error).__name__}") from error


class Handlers:
    """The author's handlers of one instance, as they run.

    Args:
        threads_max: plain handlers at once.
        node: whose they are, for logs.
        instance: as above.
    """

    def __init__(self, threads_max: int, node: str, instance: str) -> None:
        self.threads_max = threads_max
        self._node, self._instance = node, instance
        self._threads = Threads(threads_max, f"node:{node}")
        self._kept = 0
        """Threads that run a handler for which nobody waits any more; it cannot be cut off."""

    def runner(self, handler: Callable[..., Any], read: Callable[[Any], Any]) -> Callable[..., Awaitable[Any]]:
        """Return what runs a handler; found out once, for what runs often.

        `read` is called with what a plain one returns, in its thread.
        """
        if inspect.iscoroutinefunction(handler):
            return handler
        return partial(self.run, lambda *args: read(handler(*args)))

    async def run(self, handler: Callable[..., Any], *args: Any) -> Any:
        """Return what a handler returns, or raise what it raises."""
        if inspect.iscoroutinefunction(handler):
            return await handler(*args)
        result = await self._in_thread(handler, args)
        return await result if inspect.isawaitable(result) else result

    def blamed(self, what: str, request: str | None) -> Blamed:
        """Return a context that tells the author's bugs from ours."""
        return Blamed(what, self._node, request)

    def stop(self) -> None:
        """Let idle threads end, and say how many are not."""
        self._threads.stop()
        if self._threads.busy:
            log.warning("node.handlers_left", node=self._node, instance=self._instance, running=self._threads.busy)

    async def _in_thread(self, handler: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run a plain handler in a thread, which it keeps until it returns, also when its asker has left."""
        if self._kept >= self.threads_max:
            # waiting for a thread would cost the asker its deadline, and say nothing of why
            text = f"all {self._kept} threads of {self._node} run handlers that nobody waits for any more"
            raise Overloaded(text, retry_after_ms=RETRY_AFTER_MS)
        loop = asyncio.get_running_loop()
        is_running = is_kept = False

        def ended() -> None:
            nonlocal is_running
            is_running = False
            self._kept -= is_kept

        def call() -> Any:
            nonlocal is_running
            is_running = True
            try:
                return handler(*args)
            finally:
                with suppress(RuntimeError):  # the loop has ended: nobody counts any more
                    loop.call_soon_threadsafe(ended)

        try:
            return await self._threads.run(call)
        except asyncio.CancelledError:
            if is_running:
                is_kept = True
                self._kept += 1
                if self._kept == self.threads_max:
                    log.warning("node.threads_kept", node=self._node, instance=self._instance, threads=self._kept)
            raise
