"""The steps of sagas that one instance works on: each a task of its own, tried again with back-off, and told once.

A command that comes again while it is worked on begins nothing new, and one that has ended is answered with its end. A
handler that fails in a way that may pass is called again here, with the same key, until its attempts or its time are
used up; nobody else is asked meanwhile. The end is told to the coordinator that asked, where it comes soon, else to any
of them, again and again until one has stored it. What an instance knew of a step dies with it: then the command is
offered to another one, or again to this one, with the same key.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from antiphon.acting.context import ActionContext
from antiphon.acting.declared import Action
from antiphon.bus.bus import Bus
from antiphon.bus.ending import gone
from antiphon.clock import Clock
from antiphon.decide.saga_retry import Again, after_failure, dice_of
from antiphon.errors import AntiphonError, Malformed, Overloaded, UnknownAction, WrongState
from antiphon.messages.steps import NodeStep, StepEnd, StepEnded
from antiphon.runtime.handlers import Handlers

log = structlog.get_logger("antiphon.node")

ENDED_MAX: Final = 4_096
"""Ends remembered, for coordinators that ask again."""
LATE_MS: Final = 30_000
"""An end that could not be told is tried for so long after its time; then it is unknown anyway."""
TELL_BUDGET_MS: Final = 2_000
TELL_AGAIN_MS: Final = 250
TELL_AGAIN_MS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class StepBounds:
    """The limits of working on steps, in pieces and milliseconds."""

    running_max: int = 256
    inline_ms: int = 1_000
    """So long a coordinator is kept waiting for the end; what takes longer is told."""


@dataclass(slots=True, eq=False)
class _Step:
    """One command that is worked on."""

    ask: NodeStep
    done: asyncio.Future[StepEnd | None]
    waiting: int = 0
    """Coordinators that wait for the end; while there is one it is not told."""


class Steps:
    """The steps of one instance.

    Args:
        bus: the node's.
        instance: whose they are.
        actions: by name.
        handlers: runs what authors write.
        bounds: the limits.
    """

    def __init__(
        self, bus: Bus, instance: str, actions: Mapping[str, Action], handlers: Handlers, *, bounds: StepBounds
    ) -> None:
        self.bus = bus
        self.instance = instance
        self.bounds = bounds
        self._actions = actions
        self._handlers = handlers
        self._running: dict[tuple[str, str], _Step] = {}
        self._ended: OrderedDict[tuple[str, str], StepEnd] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0

    def __len__(self) -> int:
        """Return how many are worked on that no request waits for: those are counted as requests."""
        return max(0, len(self._running) - self._waiting)

    async def take(self, ask: NodeStep) -> StepEnd | None:
        """Work on a command; return its end where it comes soon, None where it will be told.

        Raises:
            UnknownAction: this node has none of that name.
            Overloaded: too many run.
        """
        name = (ask.saga, ask.ticket)
        ended = self._ended.get(name)
        if ended is not None:
            return ended
        step = self._running.get(name) or self._begin(name, ask)
        step.waiting += 1
        self._waiting += 1
        try:
            await asyncio.wait({step.done}, timeout=min(self.bounds.inline_ms, ask.budget_ms * 3 // 4) / 1_000)
        finally:
            step.waiting -= 1
            self._waiting -= 1
        return step.done.result() if step.done.done() else None

    async def stop(self, grace_ms: int) -> None:
        """Let what runs end and be told; what is left after the grace is cut off, and untold: it is offered again."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_ms / 1_000)
        for task in tuple(self._tasks):
            task.cancel()
        await gone(self._tasks)

    def _begin(self, name: tuple[str, str], ask: NodeStep) -> _Step:
        action = self._actions.get(ask.action)
        if action is None:
            raise UnknownAction(f"the node {self.bus.name} has no action {ask.action!r}")
        if len(self._running) >= self.bounds.running_max:
            text = f"{self.bounds.running_max} steps of sagas run on {self.bus.name}"
            raise Overloaded(text, retry_after_ms=TELL_AGAIN_MS)
        loop = asyncio.get_running_loop()
        step = self._running[name] = _Step(ask, loop.create_future())
        until_ms = self.bus.clock.now_ms() + ask.left_ms
        task = loop.create_task(self._work(name, step, action, until_ms), name=f"step:{ask.action}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return step

    async def _work(self, name: tuple[str, str], step: _Step, action: Action, until_ms: int) -> None:
        end: StepEnd | None = None
        try:
            async with asyncio.timeout(max(0, until_ms - self.bus.clock.now_ms()) / 1_000):
                end = await self._end(step.ask, action, until_ms)
        except TimeoutError:
            # it may have had its effect: that is for the coordinator to find out, or to undo
            log.warning("step.cut_off", node=self.bus.name, saga=name[0], step=step.ask.step, left_ms=step.ask.left_ms)
        finally:
            del self._running[name]
            step.done.set_result(end)
        if end is None:
            return
        self._ended[name] = end
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
        if step.waiting == 0:
            await self._tell(step.ask, end, until_ms + LATE_MS)

    async def _end(self, ask: NodeStep, action: Action, until_ms: int) -> StepEnd:
        """Call the handler until it has done it or there is no use in going on."""
        clock, retry = self.bus.clock, ask.retry
        began_ms, attempts = clock.now_ms(), 0
        while True:
            attempts += 1
            try:
                returned = await self._attempt(ask, action, until_ms, attempts)
            except AntiphonError as error:
                dice = dice_of(f"{ask.key}/{ask.ticket}/{attempts}")
                left_ms = until_ms - clock.now_ms()
                verdict = after_failure(error, retry, attempts=attempts, left_ms=left_ms, dice=dice)
                if isinstance(verdict, Again):
                    await clock.sleep_ms(verdict.delay_ms)
                    continue
                return StepEnd(
                    outcome="failed",
                    code=verdict.code,
                    text=verdict.text,
                    retryable=verdict.is_retryable,
                    attempts=attempts,
                    took_ms=clock.now_ms() - began_ms,
                )
            took_ms = clock.now_ms() - began_ms
            try:
                result = action.told(returned)
            except AntiphonError as error:
                # it has had its effect, and no later step can use what it says of that: it is undone, not done again
                log.warning("step.result_wrong", node=self.bus.name, saga=ask.saga, step=ask.step, error=error.text)
                text = error.text[:200]
                return StepEnd(
                    outcome="unknown", code=error.code, text=text, retryable=False, attempts=attempts, took_ms=took_ms
                )
            return StepEnd(outcome="succeeded", result=result, attempts=attempts, took_ms=took_ms)

    async def _attempt(self, ask: NodeStep, action: Action, until_ms: int, attempt: int) -> Any:
        context = _context(ask, self.bus.clock, until_ms, attempt)
        # what undoes a step is called with the step's own params, unless it was given others
        params = ask.undo.params if ask.undo is not None and not ask.params else ask.params
        try:
            with self._handlers.blamed(f"the action {ask.action}", ask.request):
                return await self._handlers.run(action.handler, *action.arguments(params, context))
        except asyncio.CancelledError:
            context.is_cancelled = True
            raise

    async def _tell(self, ask: NodeStep, end: StepEnd, until_ms: int) -> None:
        """Tell an end until it is stored, or somebody has decided otherwise."""
        clock, pause_ms = self.bus.clock, TELL_AGAIN_MS
        told = StepEnded(saga=ask.saga, ticket=ask.ticket, instance=self.instance, end=end)
        while clock.now_ms() < until_ms:
            try:
                await self.bus.ask(told, budget_ms=TELL_BUDGET_MS)
            except (WrongState, Malformed) as error:
                log.warning("step.too_late", node=self.bus.name, saga=ask.saga, step=ask.step, error=error.text)
                return
            except AntiphonError as error:
                log.info("step.not_told", node=self.bus.name, saga=ask.saga, step=ask.step, code=error.code)
                await clock.sleep_ms(pause_ms)
                pause_ms = min(2 * pause_ms, TELL_AGAIN_MS_MAX)
            else:
                return


def _context(ask: NodeStep, clock: Clock, until_ms: int, attempt: int) -> ActionContext:
    return ActionContext(
        action=ask.action,
        job=ask.saga,
        key=ask.key,
        clock=clock,
        deadline_ms=until_ms,
        told=_nobody,
        caller=ask.caller,
        groups=ask.groups,
        delegate=ask.delegate,
        request=ask.request,
        step=ask.step,
        undo=ask.undo,
        attempt=attempt,
    )


def _nobody(_done: int, _total: int | None, _text: str) -> None:
    """Take progress that nobody looks at."""
