"""Conversations: the bounded child tasks in which an actor's long work runs.

A bug in one answers its own caller `Internal` and ends alone. One that outlives its deadline is cancelled and its
caller told `OutOfBudget`; one that the stop of its actor cuts off is answered `Stopping`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from antiphon.bus.bus import Call
from antiphon.errors import AntiphonError, Internal, OutOfBudget, Overloaded, Stopping
from antiphon.messages.base import Message

log = structlog.get_logger("antiphon.runtime")

Handler = Callable[[Call[Any]], Awaitable[Message | bytes | None]]


class Conversations:
    """The running child tasks of one actor."""

    def __init__(self, *, running_max: int, retry_after_ms: int = 100) -> None:
        self.running_max = running_max
        self.retry_after_ms = retry_after_ms
        self.bugs = 0
        self.cancelled = 0
        """How many were cut off because their asker had left or their deadline had passed."""
        self.wasted_us = 0
        """How long those had been worked on."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._by_key: dict[str, asyncio.Task[None]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    async def begin(self, call: Call[Any], handler: Handler, key: str) -> None:
        """Start a conversation, or refuse it with `Overloaded` when too many are running.

        `key` is what `cancel` knows it by; of two with one key, only the first can be cancelled.
        """
        if len(self._tasks) >= self.running_max:
            error = Overloaded(f"{self.running_max} conversations are running", retry_after_ms=self.retry_after_ms)
            await call.refuse(error)
            return
        task = asyncio.get_running_loop().create_task(self._converse(call, handler, key))
        self._tasks.add(task)
        self._by_key.setdefault(key, task)
        task.add_done_callback(self._tasks.discard)

    def cancel(self, key: str) -> None:
        """Cut off a conversation whose asker has left; nothing is answered. One that has ended is no error."""
        task = self._by_key.get(key)
        if task is not None and not task.done():
            self._abandoned.add(task)
            task.cancel()

    async def stop(self, *, grace_ms: int) -> None:
        """Let the running ones end; cut off what is left after `grace_ms`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_ms / 1_000)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _converse(self, call: Call[Any], handler: Handler, key: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        began_us = call.bus.clock.now_us()
        late = False

        def out_of_budget() -> None:
            nonlocal late
            late = True
            task.cancel()

        timer = call.bus.clock.call_after(call.deadline_ms - call.bus.clock.now_ms(), out_of_budget)
        try:
            await answer(call, handler)
        except asyncio.CancelledError:
            if late or task in self._abandoned:
                self.cancelled += 1
                self.wasted_us += call.bus.clock.now_us() - began_us
            if late:
                await call.refuse(OutOfBudget("the deadline passed while it was worked on"))
            elif task not in self._abandoned:
                await call.refuse(Stopping())
                raise
        except Exception:
            self.bugs += 1
            log.exception("conversation.bug", request=call.request, asked=type(call.message).__name__)
            await call.refuse(Internal(f"a bug while answering {type(call.message).__name__}; see the log"))
        finally:
            timer.cancel()
            self._abandoned.discard(task)
            if self._by_key.get(key) is task:
                del self._by_key[key]


async def answer(call: Call[Any], handler: Handler) -> None:
    """Run a handler and send what it returns, or the typed error that it raises; a bug goes on to the caller."""
    try:
        reply = await handler(call)
        if reply is not None:
            await call.answer(reply)
    except AntiphonError as error:
        await call.refuse(error)
