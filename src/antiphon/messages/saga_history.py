"""A saga's history: what the streams keep of it, one message a subject, and nothing else is true of a saga.

`sagas` holds the *chain* `saga.<saga>.k.>`: the start, every command, every time it was parked and went on, its end.
Each link is written by compare-and-set on the last sequence over the whole chain, so two coordinators that decide at
once cannot both be right. Orders of operators (`x`) and offers of what may be offered once (`d`) stand beside it.
`outcomes` holds what became of commands, what a node has told or, when its time had passed, that it is unknown: of each
the server takes the first and refuses the second. An outcome that a link follows from stands in the link instead, which
is one write where it were two; it counts more than one that stands by itself, for whoever wrote the link had seen none,
and whoever acts on the other one has to write a link first. `timers` holds the one timer of each saga. A *ticket* is a
step's number, counted from 1, `f` for doing or `b` for undoing it, and from the second command for the same on its
round: `2f`, `2b`, `2b2`.

Time in a history is the broker's: the stamp of each stored message. Nothing in a body is a time of day.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from antiphon.messages.base import Count, Fact, Kind, Label, Message, Name, Route
from antiphon.messages.lane import GROUPS_MAX
from antiphon.messages.saga import STEPS_MAX, Attempts, Json, Params, SagaDefinition, SagaRetry, Timeout
from antiphon.subjects import INBOX, Template

SAGAS: Final = "sagas"
OUTCOMES: Final = "outcomes"
TIMERS: Final = "timers"
SUBJECTS: Final = {
    SAGAS: ("saga.*.k.>", "saga.*.x.*", "saga.*.d.*"),
    OUTCOMES: ("outcome.*.*.*",),
    TIMERS: ("saga.*.t.*",),
}
"""What each stream keeps. Requests about sagas have three tokens, so none of them can be one of these."""
MASTERS = (Kind.MASTER,)
QUEUE: Final = "saga"
DELAY_MS_MAX: Final = 30 * 24 * 3_600_000

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
TicketText = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]?[fb]([2-9]|[1-9][0-9]{1,2})?$", max_length=6)]
REPLY: Final = re.compile(rf"{INBOX}\.[A-Za-z0-9_.-]{{1,240}}")
"""Where an end can be told later; other replies are answered by the master that was asked, or not at all."""
Reply = Annotated[str, StringConstraints(pattern=f"^{REPLY.pattern}$")]
Code = Annotated[str, StringConstraints(max_length=63)]
Steps = Annotated[tuple[Name, ...], Field(max_length=STEPS_MAX)]
Results = Annotated[dict[Name, JsonValue], Field(max_length=STEPS_MAX)]
Groups = Annotated[tuple[Name, ...], Field(max_length=GROUPS_MAX)]
Ended = Literal["completed", "compensated", "abandoned"]
Mending = Literal["retry", "skip", "resolve"]
"""What an operator can do about a step at which a saga is parked."""
Ordered = Literal["cancel", "pause", "resume", "retry", "skip", "resolve", "abandon"]
FOLLOWED: Final = "the outcome that this follows from, where that is stored here; else it stands by itself"
ENDED_AT: Final = "the sequence of the saga's end, whose history is to be forgotten then; 0: it is to be looked at"
Fated = Literal["waiting", "running", "succeeded", "failed", "unknown", "skipped"]


def _chain(rest: str, stream: str = SAGAS) -> Route:
    return Route(Template(f"saga.<saga>.{rest}"), sent_by=MASTERS, read_by=MASTERS, stream=stream)


class Told(BaseModel):
    """What is said of an outcome besides what it is."""

    model_config = ConfigDict(defer_build=True)

    result: Json = None
    code: Code | None = Field(default=None, description="the wire code of the error")
    text: Label | None = None
    retryable: bool = Field(default=True, description="whether the same command could succeed later")
    attempts: Attempts = Field(default=1, description="runs of the handler")
    took_ms: Count = 0


class StepOutcome(Told, Fact):
    """What became of a command, as its node has told; the stream takes one for each command."""

    route = Route(Template("outcome.<saga>.<ticket>.<node>"), sent_by=MASTERS, read_by=MASTERS, stream=OUTCOMES)

    outcome: Literal["succeeded", "failed", "unknown"]
    instance: Name | None = None


class StepTold(Message):
    """What became of a command, where what follows from it is stored with it in one message, and so at once."""

    ticket: TicketText
    node: Name
    said: StepOutcome


class StepDone(Message):
    """What a compensation has to undo."""

    params: Params = Field(default_factory=dict, description="what the step was given")
    result: Json = Field(default=None, description="what it returned, where that is known")
    is_known: bool = Field(
        default=True, description="else nobody knows whether it was done, and there may be nothing to undo"
    )


class StepCommanded(Fact):
    """A node is to do or to undo a step; the command is the log entry."""

    route = _chain("k.c.<node>.<ticket>")
    size_max: ClassVar[int] = 192 * 1024

    step: Name
    action: Name
    key: Annotated[str, StringConstraints(max_length=70)] = Field(
        description="the idempotency key, the same in each attempt and round: <saga>/<number>f or <saga>/<number>b"
    )
    params: Params = Field(default_factory=dict, description="with every reference filled in")
    timeout_ms: Timeout = Field(description="from when the stream stored this; later its effect must not begin")
    retry: SagaRetry = SagaRetry()
    saga: Name = Field(description="the definition's name")
    caller: Name
    groups: Groups | None = None
    delegate: Name | None = None
    undo: StepDone | None = Field(default=None, description="what is to be undone; None: the step is to be done")
    told: StepTold | None = Field(default=None, description=FOLLOWED)


class SagaStarted(Fact):
    """A saga was taken in, whole; it is driven from this alone."""

    route = _chain("k.start")
    size_max: ClassVar[int] = 384 * 1024

    definition: SagaDefinition = Field(description="with a node for each step, also where one was picked")
    input: Params = Field(default_factory=dict)
    caller: Name = Field(description="who counts: the principal, where a delegate has submitted for him")
    groups: Groups | None = Field(default=None, description="what the caller belonged to when it was submitted")
    delegate: Name | None = None
    digest: Digest = Field(description="of what was submitted; the same id with another one is refused")
    delay_ms: int = Field(default=0, ge=0, le=DELAY_MS_MAX, description="it begins so long after this was stored")
    start_at_ms: Count = Field(default=0, description="it begins no earlier than this, UTC")
    reply: Reply | None = Field(default=None, description="where its end is awaited")
    first: StepCommanded | None = Field(
        default=None, description="the command for the first step, as if it were stored right after this"
    )


class SagaParked(Fact):
    """A step that must be done or undone could not be; a person has to decide."""

    route = _chain("k.park.<ticket>")

    step: Name
    code: Code
    text: Label = ""


class SagaResumed(Fact):
    """A parked saga goes on, as an operator ordered."""

    route = _chain("k.resume.<ticket>")

    step: Name
    order: Mending
    by: Name
    nonce: Name = Field(description="of the order that was followed; the others for this ticket came too late")
    outcome: Literal["succeeded", "failed"] = Field(default="succeeded", description="as `resolve` says")
    result: Json = Field(default=None, description="as `resolve` says")


class SagaCause(Message):
    """Why a saga was undone."""

    reason: Literal["step_failed", "step_unknown", "cancelled", "deadline"]
    step: Name | None = None
    by: Name | None = Field(default=None, description="the operator or caller who cancelled")
    code: Code | None = None
    text: Label | None = None


class SagaStepLine(Message):
    """One step of a saga: how it stands, and its undoing."""

    step: Name
    node: Name
    action: Name
    ticket: TicketText | None = Field(default=None, description="the last that was commanded or parked")
    state: Fated
    undo: Fated | None = Field(default=None, description="None: nothing undoes it, or nothing has to")
    is_parked: bool = False
    attempts: Count = Field(default=0, description="runs of the handler that are known of, doing and undoing")
    began_ms: Count | None = Field(default=None, description="the broker's time, UTC")
    ended_ms: Count | None = None
    code: Code | None = None
    text: Label | None = None


class SagaEnded(Fact):
    """A saga is over; this is all that is kept of it when the rest is purged."""

    route = _chain("k.end")
    size_max: ClassVar[int] = 512 * 1024

    state: Ended
    name: Name
    caller: Name
    digest: Digest
    cause: SagaCause | None = None
    started_ms: Count = Field(description="the broker's time, UTC")
    steps: Annotated[tuple[SagaStepLine, ...], Field(max_length=STEPS_MAX)] = ()
    results: Results = Field(default_factory=dict, description="by step, of a completed saga")
    cut: Steps = Field(default=(), description="steps whose results did not fit into the bound")
    left: Steps = Field(default=(), description="steps that were or may have been done and are not undone")
    told: StepTold | None = Field(default=None, description=FOLLOWED)


class SagaOrdered(Fact):
    """An operator's order, after policy; the coordinators see to it."""

    route = _chain("x.<nonce>")

    order: Ordered
    by: Name
    ticket: TicketText | None = Field(default=None, description="the parked ticket that retry, skip or resolve is for")
    outcome: Literal["succeeded", "failed"] = "succeeded"
    result: Json = None
    text: Label = ""


class StepOffered(Fact):
    """A command was offered to a node that is to get it once at most; whoever stores this may offer it."""

    route = _chain("d.<ticket>")

    by: Name = Field(description="the master that offers it")


class SagaTimerSet(Fact):
    """The saga's one timer: a scheduled message that the server will store as `SagaTimerFired`."""

    route = _chain("t.set", TIMERS)

    at_ms: Count = Field(description="the broker's time, UTC")
    end: Count = Field(default=0, description=ENDED_AT)


class SagaTimerFired(Fact):
    """It is time to look at the saga again; may come twice and late, so it says nothing but that."""

    route = _chain("t.fired", TIMERS)

    at_ms: Count = Field(default=0, description="what it had been set to")
    end: Count = Field(default=0, description=ENDED_AT)


class StepVoided(Told, Fact):
    """A command's time had passed without an outcome: it is unknown from now on, and a later result is void."""

    route = Route(Template("outcome.<saga>.<ticket>.<node>"), sent_by=MASTERS, read_by=MASTERS, stream=OUTCOMES)

    outcome: Literal["unknown"] = "unknown"
    code: Code | None = "timed_out"
    attempts: Attempts = 0
