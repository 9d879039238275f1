"""Running actions from Python: begin a job, watch it, wait for its end, cancel it.

```python
from antiphon import Client

async with Client() as client:
    for entry in await client.actions():
        print(entry.contract.name, entry.contract.effect, *entry.nodes)
```

`client.run` begins a job on any number of nodes and returns at once; `client.call` runs an action on one node and
returns its result. A job belongs to no connection: `client.job(id)` takes it up again anywhere, for a day.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack, overload

from pydantic import BaseModel, JsonValue, ValidationError

from antiphon.bus.bus import Bus
from antiphon.bus.codec import as_object, first_reason
from antiphon.decide.job import job_id
from antiphon.errors import (
    AntiphonError,
    Cancelled,
    InvalidReply,
    Malformed,
    NoResponders,
    OutOfBudget,
    from_wire,
)
from antiphon.messages.actions import (
    WAIT_MS_MAX,
    ActionEntry,
    ActionList,
    ActionRun,
    JobCancel,
    JobEnd,
    JobGet,
    JobLine,
    JobTotal,
    JobView,
    RunPlan,
    RunState,
)
from antiphon.patience import patiently

R = TypeVar("R", bound=BaseModel)

POLL_MS = 10_000
"""How long one question for news waits at a master."""
BUDGET_MS = 5_000
"""For the way there and back."""

Params = Mapping[str, Any] | BaseModel | None
Amount = int | str
"""So many nodes, or a share of them such as `10%`."""


class RunWords(TypedDict, total=False):
    """Where an action is to run, and how (docs/actions.md)."""

    nodes: Sequence[str]
    everywhere: bool
    capability: str
    topic: str
    name: str
    where: str
    parallel: int
    batch: int
    canary: bool
    stop_after: Amount
    limit: Amount
    seed: int
    timeout_ms: int
    deadline_ms: int
    dry_run: bool
    confirmed: bool
    behalf: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """What became of a job.

    Attributes:
        view: the job at its end, without its lines.
        lines: a line for each node, in the order in which they were to be asked.
    """

    view: JobView
    lines: tuple[JobLine, ...]

    @property
    def results(self) -> dict[str, JsonValue]:
        """The results of the nodes that succeeded, by node."""
        return {line.node: line.result for line in self.lines if line.state is RunState.SUCCEEDED}

    @property
    def failed(self) -> tuple[JobLine, ...]:
        """The nodes that did not succeed, whatever the reason; those that were only skipped are among them."""
        return tuple(line for line in self.lines if line.state is not RunState.SUCCEEDED)

    @property
    def no_answer(self) -> tuple[str, ...]:
        """Who was asked and has fallen silent: it may have done it."""
        return self.view.no_answer

    @property
    def totals(self) -> tuple[JobTotal, ...]:
        """What was made of fields of all results."""
        return self.view.totals

    @property
    def end(self) -> JobEnd | None:
        """Why it is over."""
        return self.view.end

    @property
    def is_complete(self) -> bool:
        """Whether every node has done it."""
        return not self.failed


class Job:
    """A job that somebody follows; iterating yields each line as it changes, until the job has ended."""

    def __init__(self, bus: Bus, job: str, *, behalf: str | None = None) -> None:
        self.id = job
        self.view: JobView | None = None
        """The last that was heard of it, without its lines; None before the first answer."""
        self.lines: dict[str, JobLine] = {}
        self._bus = bus
        self._behalf = behalf
        self._after = self._recorded = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended, as far as is known here."""
        return self.view is not None and self.view.end is not None and not self.view.is_more

    async def __aiter__(self) -> AsyncIterator[JobLine]:
        """Yield each line as it changes, until the job has ended."""
        while True:
            for line in await self.news(0 if self.view is None else POLL_MS):
                yield line
            if self.is_over:
                return

    async def news(self, wait_ms: int = 0) -> list[JobLine]:
        """Return the lines that have changed since the last time, waiting for so long where none has.

        Raises:
            UnknownJob: there is no such job, or it is somebody else's.
            AntiphonError: no master answers.
        """
        ask = _made(
            JobGet,
            job=self.id,
            after=self._after,
            recorded=self._recorded,
            wait_ms=min(wait_ms, WAIT_MS_MAX),
            behalf=self._behalf,
        )
        return self._take(await patiently(self._bus, ask, ask.wait_ms + BUDGET_MS))

    async def result(self) -> JobResult:
        """Wait for the end of the job and return what became of it."""
        # results travel with their lines: of a job that was begun here, none has come yet
        self._after = self._recorded = 0
        while True:
            await self.news(0 if self._recorded == 0 else POLL_MS)
            if self.is_over:
                break
        assert self.view is not None, "it was just asked for"
        return JobResult(self.view, tuple(self.lines.values()))

    async def cancel(self) -> JobView:
        """Ask nobody more, cut off the handlers that run, and return the job at its end."""
        ask = _made(JobCancel, job=self.id, behalf=self._behalf)
        view = await patiently(self._bus, ask, POLL_MS)
        self._take(view)
        return view

    def _take(self, view: JobView) -> list[JobLine]:
        changed = [line for line in view.lines if self.lines.get(line.node) != line]
        self.lines |= {line.node: line for line in changed}
        self.view = view.model_copy(update={"lines": ()})
        self._after, self._recorded = max(self._after, view.after), max(self._recorded, view.recorded)
        return changed

    def started(self, view: JobView) -> None:
        """Take the answer that it was begun with."""
        self.lines = {line.node: line for line in view.lines}
        self.view = view.model_copy(update={"lines": ()})


class RunsActions:
    """What a client can do with actions."""

    @property
    def bus(self) -> Bus:
        """The connection."""
        raise NotImplementedError

    async def run(
        self, action: str, params: Params = None, *, request_id: str | None = None, **how: Unpack[RunWords]
    ) -> Job:
        """Begin an action on some nodes, and return the job once it is accepted and written down.

        Args:
            action: its name.
            params: what it takes, a model or a mapping; checked before anybody is asked.
            request_id: the id under which logs and facts know it; the same id again is the same job.
            how: which nodes (`nodes`, `everywhere`, `capability`, `topic`, `name`, `where`) and how (docs/actions.md).

        Raises:
            Malformed: the params are not what the action takes; the text names the field. Or no nodes are meant.
            UnknownNode: a named node is not registered.
            UnknownAction: nobody that is meant has such an action.
            NotAllowed: the policy does not let the caller run it there.
            Unconfirmed: it is destructive, and `confirmed` is not set.
        """
        ask, request = _asked(action, params, how), request_id or self.bus.draw()
        job = Job(self.bus, job_id(self.bus.name, request), behalf=how.get("behalf"))
        try:
            view = await self.bus.ask(ask, request_id=request)
        except OutOfBudget as error:
            # it may run all the same: its id is known, and if it was accepted it is in the record
            try:
                await job.news()
            except AntiphonError:
                raise error from None
            return job
        job.id = view.job
        job.started(view)
        return job

    @overload
    async def call(self, action: str, params: Params = None, *, node: str, returns: None = None, **how: Any) -> Any: ...

    @overload
    async def call(self, action: str, params: Params = None, *, node: str, returns: type[R], **how: Any) -> R: ...

    async def call(
        self,
        action: str,
        params: Params = None,
        *,
        node: str,
        returns: type[R] | None = None,
        timeout_ms: int = 30_000,
        request_id: str | None = None,
        **how: Any,
    ) -> Any:
        """Run an action on one node, and return its result.

        Args:
            action: its name.
            params: what it takes, a model or a mapping.
            node: where.
            returns: the model to read the result with; default: as it came.
            timeout_ms: how long the node may take.
            request_id: the id under which logs and facts know it.
            how: `dry_run`, `confirmed`, `behalf`.

        Raises:
            OutOfBudget: the node has fallen silent: it may have done it, or not.
            NoResponders: it could not be asked; nothing has happened there.
            AntiphonError: what its handler has raised, or what `run` raises.
        """
        words = {**how, "nodes": (node,), "timeout_ms": timeout_ms}
        wait_ms = min(timeout_ms + BUDGET_MS, WAIT_MS_MAX)
        ask, request = _asked(action, params, words, wait_ms=wait_ms), request_id or self.bus.draw()
        view = await self.bus.ask(ask, request_id=request, budget_ms=wait_ms + BUDGET_MS)
        lines = view.lines
        if view.end is None:
            lines = (await self.job(view.job, behalf=how.get("behalf")).result()).lines
        result = _result(lines[0])
        if returns is None:
            return result
        try:
            return returns.model_validate(result)
        except ValidationError as error:
            raise InvalidReply(f"the result of {action}: {first_reason(error)}") from None

    def job(self, job: str, *, behalf: str | None = None) -> Job:
        """Return a job by its id, to follow it; whether there is one shows when it is asked."""
        return Job(self.bus, job, behalf=behalf)

    async def actions(
        self, *, action: str | None = None, node: str | None = None, behalf: str | None = None
    ) -> tuple[ActionEntry, ...]:
        """Return the actions that the caller may run, by name; one that nodes have differently has several entries."""
        found: list[ActionEntry] = []
        after: str | None = None
        while True:
            listing = await self.bus.ask(_made(ActionList, action=action, node=node, after=after, behalf=behalf))
            found += listing.actions
            after = listing.next
            if after is None:
                return tuple(found)


def _asked(action: str, params: Params, how: Mapping[str, Any], *, wait_ms: int = 0) -> ActionRun:
    words = dict(how)
    plan: dict[str, Any] = {name: words.pop(name) for name in tuple(words) if name in RunPlan.model_fields}
    for name in ("stop_after", "limit"):
        if plan.get(name) is not None:
            plan[name] = str(plan[name])
    given = {} if params is None else as_object(params, "params")
    return _made(ActionRun, action=action, params=given, plan=plan, wait_ms=wait_ms, **words)


def _result(line: JobLine) -> JsonValue:
    """Return a node's result, or raise what became of it instead."""
    if line.state is RunState.SUCCEEDED:
        return line.result
    text = line.text or f"{line.node}: {line.state}"
    if line.state is RunState.SKIPPED:
        raise NoResponders(f"{line.node} was not asked: {text}")
    if line.state is RunState.NO_ANSWER:
        raise OutOfBudget(f"{line.node} may have done it, or not: {text}")
    raise from_wire(line.code or Cancelled.code, text)


M = TypeVar("M", bound=BaseModel)


def _made(kind: type[M], **fields: Any) -> M:
    """Return a message, or raise `Malformed` with what is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise Malformed(first_reason(error)) from None
