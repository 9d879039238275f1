"""The conversation about sagas: submit, validate, get, list, and the orders of those who look after them.

Requests have three tokens (`saga.submit.<caller>`) and the streams hold only subjects of four and more, so nobody can
name himself, or a saga, such that a request lands in a history.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from antiphon.messages.base import Count, Label, Message, Name, Request, Route
from antiphon.messages.saga import STEPS_MAX, Json, Params, SagaDefinition
from antiphon.messages.saga_history import (
    DELAY_MS_MAX,
    MASTERS,
    QUEUE,
    Ordered,
    Results,
    SagaCause,
    SagaStepLine,
    Steps,
    TicketText,
)
from antiphon.messages.search import ASKERS, Behalf
from antiphon.subjects import Template

PAGE_MAX: Final = 500
"""Sagas in one listing."""
HISTORY_MAX: Final = 2_000
PROBLEMS_MAX: Final = 100
START_AT_MS_MAX: Final = 4_102_444_800_000
"""The year 2100: what is later is a time in another unit, and one that no clock or calendar can count from."""


class SagaState(StrEnum):
    """How a saga stands."""

    SCHEDULED = "scheduled"
    """Its time has not come."""
    RUNNING = "running"
    COMPENSATING = "compensating"
    """It is being undone, or will be as soon as what runs has ended."""
    PAUSED = "paused"
    PARKED = "parked"
    """A step could not be done or undone; it needs an operator."""
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    """It was turned back (`cause` says why), and what was done is undone, save what an operator left (`left`)."""
    ABANDONED = "abandoned"
    """An operator ended it as it stood."""


class SagaEventLine(Message):
    """One line of a history."""

    at_ms: Count = Field(description="the broker's time, UTC")
    event: Label = Field(description="started, commanded, succeeded, failed, unknown, ordered, parked, resumed, ended")
    ticket: TicketText | None = None
    step: Name | None = None
    who: Name | None = Field(default=None, description="the node or operator")
    text: Label = ""


class SagaLine(Message):
    """One saga in a listing, and in the index of open ones."""

    id: Name
    name: Name
    state: SagaState
    caller: Name
    started_ms: Count = Field(description="the broker's time, UTC")
    moved_ms: Count = Field(default=0, description="when something was written of it last")
    done: Count = Field(default=0, description="steps that are done")
    total: Count = 0
    step: Name | None = Field(default=None, description="the step that runs or at which it is parked")
    text: Label | None = Field(default=None, description="why it is parked, or was undone")


class SagaView(Message):
    """One saga as it stands."""

    size_max: ClassVar[int] = 768 * 1024
    id: Name
    name: Name
    state: SagaState
    caller: Name
    cause: SagaCause | None = Field(default=None, description="why it is or was undone")
    steps: Annotated[tuple[SagaStepLine, ...], Field(max_length=STEPS_MAX)] = ()
    started_ms: Count = Field(description="when it was taken in; the broker's time, UTC")
    begins_ms: Count = Field(default=0, description="its first step is not commanded earlier")
    deadline_ms: Count = Field(default=0, description="if not past its pivot by then, it is undone")
    ended_ms: Count | None = None
    results: Results = Field(default_factory=dict, description="by step, of a completed saga")
    cut: Steps = ()
    left: Steps = Field(default=(), description="steps that were or may have been done and are not undone")
    history: Annotated[tuple[SagaEventLine, ...], Field(max_length=HISTORY_MAX)] = ()


class SagaSubmit(Request[SagaView]):
    """Begin a saga; the same id again is the same saga, and another saga under that id is refused."""

    route = Route(Template("saga.submit.<caller>"), sent_by=ASKERS, read_by=MASTERS, queue=QUEUE)
    size_max: ClassVar[int] = 320 * 1024

    id: Name | None = Field(default=None, description="the idempotency key; drawn where not given, then a retry is new")
    definition: SagaDefinition
    input: Params = Field(default_factory=dict)
    delay_ms: int = Field(default=0, ge=0, le=DELAY_MS_MAX, description="begin so much later")
    start_at_ms: int = Field(default=0, ge=0, le=START_AT_MS_MAX, description="begin no earlier than this, UTC")
    wait: bool = Field(
        default=False, description="answer when it has ended or is parked, or when the time is over, or too many wait"
    )
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")


class SagaGet(Request[SagaView]):
    """Get one saga."""

    route = Route(Template("saga.get.<caller>"), sent_by=ASKERS, read_by=MASTERS, queue=QUEUE)

    id: Name
    history: bool = Field(default=False, description="with every event")
    wait: bool = Field(
        default=False, description="answer when it has ended or is parked, or when the time is over, or too many wait"
    )
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")


class SagaListing(Message):
    """Sagas by id."""

    size_max: ClassVar[int] = 512 * 1024
    sagas: Annotated[tuple[SagaLine, ...], Field(max_length=PAGE_MAX)]
    next: Name | None = Field(default=None, description="there are more: ask again with this as `after`")


class SagaList(Request[SagaListing]):
    """List sagas; operators see all, others their own."""

    route = Route(Template("saga.list.<caller>"), sent_by=ASKERS, read_by=MASTERS, queue=QUEUE)

    state: SagaState | None = None
    name: Name | None = None
    caller: Name | None = None
    after: Name | None = Field(default=None, description="only those behind this id")
    limit: int = Field(default=100, ge=1, le=PAGE_MAX)
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")


class SagaOrder(Request[SagaView]):
    """Cancel, pause or resume a saga, as its caller may too; an operator may mend a parked one, or abandon one.

    `cancel` undoes what was done; past the pivot there is no way back. `retry` commands a parked step again, `skip`
    goes on without it, `resolve` says what became of it, `abandon` ends the saga as it stands.
    """

    route = Route(Template("saga.order.<caller>"), sent_by=ASKERS, read_by=MASTERS, queue=QUEUE, idempotent=False)

    id: Name
    order: Ordered
    step: Name | None = Field(default=None, description="which one, where several are parked")
    outcome: Literal["succeeded", "failed"] = Field(default="succeeded", description="of `resolve`")
    result: Json = Field(default=None, description="of `resolve`: what the step should have returned")
    text: Label = Field(default="", description="why, for the history")
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")


class SagaProblem(Message):
    """One thing that is wrong with a definition."""

    code: Label = Field(description="cycle, unknown_step, unknown_reference, pivot, node, where, too_large, ...")
    step: Name | None = None
    text: Label


class SagaVerdict(Message):
    """Whether a saga could be submitted, and in which order its steps would go."""

    problems: Annotated[tuple[SagaProblem, ...], Field(max_length=PROBLEMS_MAX)] = ()
    waves: Annotated[tuple[Steps, ...], Field(max_length=STEPS_MAX)] = Field(
        default=(), description="steps that may run at once, wave by wave; empty where something is wrong"
    )


class SagaValidate(Request[SagaVerdict]):
    """Say what is wrong with a saga, without beginning it."""

    route = Route(Template("saga.validate.<caller>"), sent_by=ASKERS, read_by=MASTERS, queue=QUEUE)
    size_max: ClassVar[int] = 320 * 1024

    definition: SagaDefinition
    input: Params | None = Field(default=None, description="where given, references to it are checked as well")
