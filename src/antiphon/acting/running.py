"""The runs of one instance: each a task of its own, with a deadline, that reports how far it is and how it ended.

A run outlives the request that began it. One of the same job that comes again while it runs, or after it succeeded,
begins nothing new. What could not be sent because the connection was lost is sent when it is back, as long as anybody
waits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from antiphon.acting.context import ActionContext
from antiphon.acting.declared import Action
from antiphon.bus.bus import Bus
from antiphon.clock import Timer
from antiphon.errors import (
    AntiphonError,
    Cancelled,
    NotConnected,
    OutOfBudget,
    Overloaded,
    Stopping,
    UnknownAction,
)
from antiphon.messages.jobs import JobReported, NodeRun, RunEnd
from antiphon.messages.lane import Load
from antiphon.runtime.handlers import Handlers

log = structlog.get_logger("antiphon.node")

TEXT_MAX = 200
GOES_ON = "; its handler is a plain function, which cannot be cut off and may go on"
SEND_AGAIN_MS = 250
LATE_MS = 60_000
"""An end that could not be sent is tried for so long after its deadline: a reader of the record may still come."""
ENDED_MAX = 256
"""Ends remembered, so that the same job that comes again begins nothing new."""


@dataclass(frozen=True, slots=True)
class RunBounds:
    """The limits of running actions, in pieces and milliseconds."""

    running_max: int = 64
    progress_ms: int = 100
    inline_ms: int = 20


@dataclass(slots=True, eq=False)
class Run:
    """One run."""

    job: str
    is_inline: bool
    """Whether somebody waits for the end here; then it is not reported."""
    done: asyncio.Future[RunEnd]
    task: asyncio.Task[None] | None = None
    number: int = 0
    latest: tuple[int, int | None, str] | None = None
    """Progress that has not been told."""
    told_ms: int = -(2**62)
    timer: Timer | None = None
    cut: AntiphonError | None = field(default=None)
    """Why it is being cut off."""


class Runs:
    """The actions of one instance, as they run.

    Args:
        bus: the node's.
        instance: whose they are.
        actions: by name.
        handlers: runs what authors write.
        load: how busy the instance is.
        bounds: the limits.
    """

    def __init__(
        self,
        bus: Bus,
        instance: str,
        actions: Mapping[str, Action],
        handlers: Handlers,
        *,
        load: Callable[[], Load],
        bounds: RunBounds,
    ) -> None:
        self.bus = bus
        self.instance = instance
        self.bounds = bounds
        self._actions = actions
        self._handlers = handlers
        self._load = load
        self._running: dict[str, Run] = {}
        self._ended: OrderedDict[str, RunEnd] = OrderedDict()
        self._reporting: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    async def accept(self, ask: NodeRun) -> RunEnd | None:
        """Begin a run; return its end where that is asked for and comes soon, else None.

        Raises:
            UnknownAction: this node has none of that name.
            Malformed: its model does not take the params.
            Overloaded: too many run.
        """
        ended = self._ended.get(ask.job)
        if ended is not None:
            if not ask.inline:
                self._report_again(ask.job, ended)
            return ended if ask.inline else None
        run = self._running.get(ask.job) or self._begin(ask)
        if not ask.inline:
            return None
        try:
            await self._soon(run.done)
        finally:
            if not run.done.done():
                run.is_inline = False  # from now on it reports by itself
        return run.done.result() if run.done.done() else None

    async def _soon(self, done: asyncio.Future[RunEnd]) -> None:
        """Return when a run has ended, or has been waited for long enough; cheaper than `asyncio.wait`."""
        over = asyncio.get_running_loop().create_future()

        def wake(_done: object = None) -> None:
            if not over.done():
                over.set_result(None)

        done.add_done_callback(wake)
        timer = self.bus.clock.call_after(self.bounds.inline_ms, wake)
        try:
            await over
        finally:
            timer.cancel()
            done.remove_done_callback(wake)

    def cancel(self, job: str) -> None:
        """Cut off a run that nobody wants any more; one that is not there is no error."""
        self._cut(self._running.get(job), Cancelled("the job was cancelled"))

    async def stop(self, grace_ms: int) -> None:
        """Let the runs end; cut off what is left after the grace, and report that."""
        await self._settle(grace_ms)
        for run in tuple(self._running.values()):
            self._cut(run, Stopping("the node was stopped before it had ended"))
        await self._settle(SEND_AGAIN_MS)
        for task in tuple(self._reporting):
            task.cancel()

    async def _settle(self, bound_ms: int) -> None:
        tasks = {run.task for run in self._running.values() if run.task is not None} | self._reporting
        if tasks:
            await asyncio.wait(tasks, timeout=bound_ms / 1_000)

    # -- one run

    def _begin(self, ask: NodeRun) -> Run:
        action = self._actions.get(ask.action)
        if action is None:
            raise UnknownAction(f"the node {self.bus.name} has no action {ask.action!r}")
        if len(self._running) >= self.bounds.running_max:
            text = f"{self.bounds.running_max} actions run on {self.bus.name}"
            raise Overloaded(text, retry_after_ms=SEND_AGAIN_MS)
        loop = asyncio.get_running_loop()
        run = Run(ask.job, ask.inline, loop.create_future())
        context = ActionContext(
            action=ask.action,
            job=ask.job,
            key=f"{ask.job}/{self.bus.name}",
            clock=self.bus.clock,
            deadline_ms=self.bus.clock.now_ms() + ask.timeout_ms,
            told=lambda done, total, text: self._progressed(run, done, total, text),
            caller=ask.caller,
            groups=ask.groups,
            delegate=ask.delegate,
            request=ask.request,
            dry_run=ask.dry_run,
            loop=loop,
        )
        arguments = action.arguments(ask.params, context)
        self._running[ask.job] = run
        run.task = loop.create_task(self._run(run, action, context, arguments), name=f"run:{ask.action}")
        run.task.add_done_callback(lambda _: self._over(run, context.deadline_ms))
        return run

    async def _run(self, run: Run, action: Action, context: ActionContext, arguments: tuple[object, ...]) -> None:
        clock = self.bus.clock
        began_us = clock.now_us()
        late = OutOfBudget("the deadline passed while it was worked on")
        timer = clock.call_after(context.deadline_ms - clock.now_ms(), lambda: self._cut(run, late))
        try:
            with self._handlers.blamed(f"the action {action.contract.name}", context.request):
                result = action.told(await self._handlers.run(action.handler, *arguments))
            end = RunEnd(state="succeeded", result=result, took_us=clock.now_us() - began_us)
        except asyncio.CancelledError:
            context.is_cancelled = True
            if run.cut is None:  # the loop ends, or the process is taken for dead
                raise
            end = _failed(run.cut, clock.now_us() - began_us, more="" if action.can_be_cut_off else GOES_ON)
        except AntiphonError as error:
            end = _failed(error, clock.now_us() - began_us)
        finally:
            timer.cancel()
        self._end(run, end, context.deadline_ms)

    def _cut(self, run: Run | None, why: AntiphonError) -> None:
        if run is not None and run.task is not None and run.cut is None and not run.done.done():
            run.cut = why
            run.task.cancel()

    def _over(self, run: Run, deadline_ms: int) -> None:
        """End a run that was cut off before it had begun: its task has done nothing, not even that."""
        if not run.done.done():
            if run.cut is None:
                self._running.pop(run.job, None)
                run.done.cancel()
            else:
                self._end(run, _failed(run.cut), deadline_ms)

    def _end(self, run: Run, end: RunEnd, deadline_ms: int) -> None:
        if run.timer is not None:
            run.timer.cancel()
        del self._running[run.job]
        run.done.set_result(end)
        if end.state == "succeeded":  # what failed may be asked for again
            self._ended[run.job] = end
            if len(self._ended) > ENDED_MAX:
                self._ended.popitem(last=False)
        if not run.is_inline:
            self._report_end(run, end, deadline_ms + LATE_MS)

    def _report_end(self, run: Run, end: RunEnd, until_ms: int) -> None:
        done, total, text = run.latest or (0, None, "")
        run.number += 1
        report = JobReported(number=run.number, done=done, total=total, text=text or None, end=end, load=self._load())
        task = asyncio.get_running_loop().create_task(self._send(run.job, report, until_ms))
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    def _report_again(self, job: str, end: RunEnd) -> None:
        run = Run(job, is_inline=False, done=asyncio.get_running_loop().create_future(), number=2**31)
        self._report_end(run, end, self.bus.clock.now_ms() + LATE_MS)

    async def _send(self, job: str, report: JobReported, until_ms: int) -> None:
        """Send a report, again and again while there is no connection."""
        while True:
            try:
                await self.bus.publish(report, job=job, instance=self.instance)
            except NotConnected as error:
                if self.bus.clock.now_ms() >= until_ms:
                    log.warning("node.result_lost", node=self.bus.name, job=job, error=error.text)
                    return
                await self.bus.clock.sleep_ms(SEND_AGAIN_MS)
            except AntiphonError as error:
                log.warning("node.result_lost", node=self.bus.name, job=job, error=error.text)
                return
            else:
                return

    # -- progress

    def _progressed(self, run: Run, done: int, total: int | None, text: str) -> None:
        """Take progress: told at once where the last was told long enough ago, else a little later, or never."""
        run.latest = (max(0, done), None if total is None else max(0, total), text[:TEXT_MAX])
        if run.done.done() or run.timer is not None:
            return
        wait_ms = run.told_ms + self.bounds.progress_ms - self.bus.clock.now_ms()
        if wait_ms > 0:
            run.timer = self.bus.clock.call_after(wait_ms, lambda: self._tell_progress(run))
        else:
            self._tell_progress(run)

    def _tell_progress(self, run: Run) -> None:
        run.timer = None
        if run.done.done() or run.latest is None or run.is_inline:
            return
        run.told_ms = self.bus.clock.now_ms()
        done, total, text = run.latest
        run.number += 1
        report = JobReported(number=run.number, done=done, total=total, text=text or None)
        task = asyncio.get_running_loop().create_task(self._publish(run.job, report))
        self._reporting.add(task)
        task.add_done_callback(self._reporting.discard)

    async def _publish(self, job: str, report: JobReported) -> None:
        try:
            await self.bus.publish(report, job=job, instance=self.instance)
        except AntiphonError as error:  # the next one says more
            log.debug("node.progress_lost", node=self.bus.name, job=job, code=error.code)


def _failed(error: AntiphonError, took_us: int = 0, *, more: str = "") -> RunEnd:
    state = "cancelled" if isinstance(error, Cancelled) else "failed"
    text = f"{error.text}{more}"[:TEXT_MAX]
    return RunEnd(state=state, code=error.code, text=text, retryable=error.retryable, took_us=took_us)
