"""The conversation between a coordinator and a node about one step of a saga: do this, and this is what became of it.

Nodes never reach the streams. A coordinator has stored the command before it asks, and stores what the node says before
it answers; whoever of them dies in between, the same is said again. The node's own name is the last token of what it
tells, so the server vouches for it, and an outcome counts only for a command to that node.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from antiphon.messages.actions import TIMEOUT_MS_MAX
from antiphon.messages.base import Acknowledged, Kind, Message, Name, Request, Route
from antiphon.messages.lane import Load
from antiphon.messages.saga import TIMEOUT_MS_MAX as STEP_MS_MAX
from antiphon.messages.saga import Params, SagaRetry
from antiphon.messages.saga_history import MASTERS, QUEUE, Groups, StepDone, TicketText, Told
from antiphon.subjects import Template

KEY_MAX = 70


class StepEnd(Told, Message):
    """What became of a command."""

    outcome: Literal["succeeded", "failed", "unknown"] = Field(
        description="unknown: it was done, and what it says of that is not what its contract promises"
    )


class StepTaken(Message):
    """The instance works on it, or this is what became of it."""

    end: StepEnd | None = Field(default=None, description="None: it is told when it has ended")
    load: Load | None = None


class NodeStep(Request[StepTaken]):
    """Do or undo a step of a saga; the same one again is taken once by one instance."""

    route = Route(Template("node.<node>.<instance>.step"), sent_by=MASTERS, read_by=(Kind.NODE,), idempotent=False)
    size_max: ClassVar[int] = 192 * 1024

    request: Annotated[str, Field(max_length=64)]
    saga: Name
    ticket: TicketText
    key: Annotated[str, StringConstraints(max_length=KEY_MAX)] = Field(
        description="the idempotency key: <saga>/<step's number>f or b"
    )
    step: Name
    action: Name
    params: Params = Field(default_factory=dict)
    undo: StepDone | None = Field(default=None, description="what is to be undone; None: the step is to be done")
    retry: SagaRetry = SagaRetry()
    budget_ms: int = Field(ge=0, le=TIMEOUT_MS_MAX, description="for the answer: that it is taken, or its end")
    left_ms: int = Field(ge=0, le=STEP_MS_MAX, description="from when this arrives; later its effect must not begin")
    caller: Name | None = Field(default=None, description="who submitted it; the principal, where a delegate did")
    groups: Groups = Field(default=(), description="what the caller belonged to then, as the masters knew it")
    delegate: Name | None = Field(default=None, description="who submitted it on the caller's behalf")

    def carried_budget_ms(self) -> int:
        """Return the milliseconds left when this was sent."""
        return self.budget_ms

    def carried_request(self) -> str:
        """Return the request's id."""
        return self.request


class StepEnded(Request[Acknowledged]):
    """What became of a command that was taken before; told until it is acknowledged, which says that it is stored.

    Refused with `wrong_state` where something else was decided meanwhile: then what was done will be undone.
    """

    route = Route(Template("saga.outcome.<caller>"), sent_by=(Kind.NODE,), read_by=MASTERS, queue=QUEUE)

    saga: Name
    ticket: TicketText
    instance: Name | None = None
    end: StepEnd
