"""Conversations: the bounded child tasks in which an actor's long work runs.

A bug in one answers its own caller `Internal` and ends alone. One that outlives its deadline is cancelled and its
caller told `OutOfBudget`; one that the stop of its actor cuts off is answered `Stopping`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from antiphon.bus.bus import Call
from antiphon.bus.ending import gone
from antiphon.clock import Clock, Timer
from antiphon.errors import AntiphonError, Internal, OutOfBudget, Overloaded, Stopping
from antiphon.messages.base import Message
from antiphon.runtime.endpoint import Endpoint

log = structlog.get_logger("antiphon.runtime")

Handler = Callable[[Call[Any]], Awaitable[Message | bytes | None]]

NEVER: Final = 1 << 62


class Conversations:
    """The running child tasks of one actor.

    One timer serves all of them, set for a time that is no later than the nearest deadline: nearly all end long before
    theirs, and a timer for each would cost more than it is asked for.
    """

    def __init__(self, *, running_max: int, retry_after_ms: int = 100) -> None:
        self.running_max = running_max
        self.retry_after_ms = retry_after_ms
        self.bugs = 0
        self.cancelled = 0
        """How many were cut off because their asker had left or their deadline had passed."""
        self.wasted_us = 0
        """How long those had been worked on."""
        self._running: dict[asyncio.Task[None], int] = {}
        """Task -> its deadline."""
        self._by_key: dict[str, asyncio.Task[None]] = {}
        self._abandoned: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._timer: Timer | None = None
        self._wakes_ms = NEVER

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, call: Call[Any], handler: Handler, key: str, endpoint: Endpoint) -> None:
        """Start a conversation, or refuse it with `Overloaded` when too many are running.

        `key` is what `cancel` knows it by; of two with one key, only the first can be cancelled.
        """
        running = self._running
        if len(running) >= self.running_max:
            text = f"{self.running_max} conversations are running"
            call.refuse_soon(Overloaded(text, retry_after_ms=self.retry_after_ms))
            return
        task = asyncio.get_running_loop().create_task(self._converse(call, handler, key, endpoint))
        if task.done():
            return  # the loop's tasks begin at once, and this one has ended, too
        running[task] = deadline_ms = call.deadline_ms
        self._by_key.setdefault(key, task)
        if deadline_ms < self._wakes_ms:
            self._wake_at(deadline_ms, call.bus.clock)

    def cancel(self, key: str) -> None:
        """Cut off a conversation whose asker has left; nothing is answered. One that has ended is no error."""
        task = self._by_key.get(key)
        if task is not None and not task.done():
            self._abandoned.add(task)
            _cancel(task)

    async def stop(self, *, grace_ms: int) -> None:
        """Let the running ones end; cut off what is left after `grace_ms`."""
        self._is_stopping = True
        if self._running:
            await asyncio.wait(self._running, timeout=grace_ms / 1_000)
        left = tuple(self._running)
        for task in left:
            _cancel(task)
        await gone(left)
        if self._timer is not None:
            self._timer.cancel()

    def _wake_at(self, at_ms: int, clock: Clock) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_ms = at_ms
        self._timer = clock.call_after(at_ms - clock.now_ms(), lambda: self._cut_off(clock))

    def _cut_off(self, clock: Clock) -> None:
        """Cancel whatever has outlived its deadline."""
        now_ms, nearest_ms = clock.now_ms(), NEVER
        self._wakes_ms, self._timer = NEVER, None
        for task, deadline_ms in self._running.items():
            if deadline_ms > now_ms:
                nearest_ms = min(nearest_ms, deadline_ms)
            elif task not in self._late:
                self._late.add(task)
                _cancel(task)
        if nearest_ms < NEVER:
            self._wake_at(nearest_ms, clock)

    async def _converse(self, call: Call[Any], handler: Handler, key: str, endpoint: Endpoint) -> None:
        task = asyncio.current_task()
        assert task is not None
        clock = call.bus.clock
        began_us = clock.now_us()
        endpoint.requests += 1
        is_answered = False
        try:
            try:
                reply = await handler(call)
                is_answered = True
                if reply is not None:
                    await call.answer(reply)
            except AntiphonError as error:
                await call.refuse(error)
        except asyncio.CancelledError:
            if task in self._late or task in self._abandoned:
                self.cancelled += 1
                self.wasted_us += clock.now_us() - began_us
            if task in self._late:
                await call.refuse(OutOfBudget("the deadline passed while it was worked on"))
            elif task not in self._abandoned:
                if self._is_stopping:
                    await call.refuse(Stopping())
                else:
                    self.bugs += 1
                    await call.refuse(Internal("its handler was cancelled from within"))
                raise
        except Exception:
            self.bugs += 1
            log.exception("conversation.bug", request=call.request, asked=type(call.message).__name__)
            await call.refuse(Internal(f"a bug while answering {type(call.message).__name__}; see the log"))
        finally:
            endpoint.busy_us += clock.now_us() - began_us
            if not is_answered:
                endpoint.errors += 1
            self._over(task, key)

    def _over(self, task: asyncio.Task[None], key: str) -> None:
        self._running.pop(task, None)
        if self._by_key.get(key) is task:
            del self._by_key[key]
        if self._abandoned or self._late:
            self._abandoned.discard(task)
            self._late.discard(task)


def _cancel(task: asyncio.Task[None]) -> None:
    """Cancel in the loop's next turn: one that has not begun yet begins first, so that its end is noted and told."""
    asyncio.get_running_loop().call_soon(task.cancel)


async def answer(call: Call[Any], handler: Handler, endpoint: Endpoint) -> None:
    """Run a handler and send what it returns, or the typed error that it raises; a bug goes on to the caller."""
    began_us = call.bus.clock.now_us()
    endpoint.requests += 1
    try:
        reply = await handler(call)
    except BaseException as error:
        endpoint.errors += 1
        if not isinstance(error, AntiphonError):
            raise
        await call.refuse(error)
    else:
        if reply is not None:
            await call.answer(reply)
    finally:
        endpoint.busy_us += call.bus.clock.now_us() - began_us
