"""What is written of a job: by its master on the nodes' lanes, by the nodes and by that master into its record.

The record is two streams that keep the last message of each subject: `job.<job>.<master>` is the job as its master
knows it, in a stream that nobody but masters reaches; `job.<job>.<instance>.<node>` is the last that an instance
reported, in a stream that acknowledges nothing, for the server's acknowledgement would go wherever a node aims it.
Masters hear of both as hints (`JobReported` itself, `JobWritten`): what counts for a reader is what is stored. The last
token is the writer, so the server vouches for it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from antiphon.messages.actions import (
    TARGETS_MAX,
    TIMEOUT_MS_MAX,
    Aggregates,
    Effect,
    JobCounts,
    JobEnd,
    JobLine,
    Nodes,
    RunPlan,
    Totals,
)
from antiphon.messages.base import Count, Fact, Kind, Label, Message, Name, Request, Route
from antiphon.messages.facts import READERS
from antiphon.messages.lane import GROUPS_MAX, Load
from antiphon.messages.saga import Json, Params
from antiphon.messages.search import Behalf
from antiphon.subjects import Template

MASTERS = (Kind.MASTER,)
JOBS: Final = "jobs"
"""The stream of masters' records, its name after `<prefix>-`."""
REPORTS: Final = "reports"
"""The stream of nodes' reports."""


class RunEnd(Message):
    """How a handler's run ended."""

    state: Literal["succeeded", "failed", "cancelled"]
    result: Json = None
    code: Label | None = Field(default=None, description="the wire code of the error")
    text: Label | None = None
    retryable: bool = Field(default=False, description="whether another try could succeed")
    took_us: Count = 0


class NodeAccepted(Message):
    """The instance works on it; progress and end go to the job's record, where this does not say the end already."""

    job: Name
    end: RunEnd | None = Field(default=None, description="it was asked to say it here, and it came soon")
    load: Load | None = None


class NodeRun(Request[NodeAccepted]):
    """Run an action once; the idempotency key of a job's run is `<job>/<node>`."""

    route = Route(Template("node.<node>.<instance>.run"), sent_by=MASTERS, read_by=(Kind.NODE,), idempotent=False)

    request: Annotated[str, Field(max_length=64)]
    job: Name
    action: Name
    params: Params = Field(default_factory=dict)
    budget_ms: int = Field(ge=0, le=600_000, description="for the answer: that it is accepted, or what came of it")
    timeout_ms: int = Field(ge=1, le=TIMEOUT_MS_MAX, description="for the handler, from when this arrives")
    inline: bool = Field(default=False, description="answer with the end where it comes soon, and report nothing then")
    dry_run: bool = False
    caller: Name | None = Field(default=None, description="who asks; the principal, where a delegate asks for him")
    groups: Annotated[tuple[Name, ...], Field(max_length=GROUPS_MAX)] = Field(
        default=(), description="what the caller belongs to, as the masters know it"
    )
    delegate: Name | None = Field(default=None, description="who asks on the caller's behalf")
    behalf: Behalf | None = Field(default=None, repr=False, description="the token that says so")

    def carried_budget_ms(self) -> int:
        """Return the milliseconds left when this was sent."""
        return self.budget_ms

    def carried_request(self) -> str:
        """Return the request's id."""
        return self.request


class JobReported(Fact):
    """An instance reports how far it is with a job, and in the end what came of it; the last report is kept a day."""

    route = Route(Template("job.<job>.<instance>.<writer>"), sent_by=(Kind.NODE,), read_by=MASTERS)

    number: Count = Field(description="of its reports about this job, counted from 1")
    done: Count = 0
    total: Count | None = None
    text: Label | None = None
    end: RunEnd | None = Field(default=None, description="None: it goes on")
    load: Load | None = None


class JobRecord(Fact):
    """A job as the master that runs it knows it; the last one is kept a day."""

    route = Route(Template("job.<job>.<writer>"), sent_by=MASTERS, read_by=MASTERS, stream=JOBS)
    size_max: ClassVar[int] = 1024 * 1024

    request: Annotated[str, Field(max_length=64)]
    action: Name
    caller: Name = Field(description="who counts: the principal, where a delegate has asked for him")
    delegate: Name | None = None
    effect: Effect = Effect.WRITE
    dry_run: bool = False
    plan: RunPlan = RunPlan()
    timeout_ms: Count
    deadline_ms: Count = Field(description="it ends so long after its start at the latest")
    started_ms: Count = Field(description="wall clock of its master, UTC")
    took_us: Count = 0
    end: JobEnd | None = None
    by: Name | None = Field(default=None, description="who has cancelled it")
    not_allowed: Nodes = ()
    aggregates: Aggregates = Field(default_factory=dict)
    totals: Totals = Field(default=(), description="once it has ended")
    lines: Annotated[tuple[JobLine, ...], Field(max_length=TARGETS_MAX)] = ()


class JobWritten(Fact):
    """A master has written a job down: other masters wake whoever waits for news of it."""

    route = Route(Template("action.written.<writer>"), sent_by=MASTERS, read_by=MASTERS)

    job: Name


class JobProbed(Message):
    """Whether a master runs a job."""

    is_running: bool


class JobProbe(Request[JobProbed]):
    """Does this very master run a job? Only it hears this, so the server's "nobody listens" says that it is gone."""

    route = Route(Template("action.probe.<master>.<caller>"), sent_by=MASTERS, read_by=MASTERS)

    job: Name


class JobCancelled(Fact):
    """Somebody who may has cancelled a job; the master that runs it sees to it."""

    route = Route(Template("action.cancelled.<writer>"), sent_by=MASTERS, read_by=MASTERS)

    job: Name
    by: Name


class ActionFinished(Fact):
    """An action has been run, or was refused; one fact carries what became of it on all its nodes, without results."""

    route = Route(Template("fact.action.finished.<writer>"), sent_by=MASTERS, read_by=READERS)
    size_max: ClassVar[int] = 1024 * 1024

    request: str
    job: Name | None = None
    action: Name
    caller: Name = Field(description="who counts: the principal, where a delegate has asked for him")
    delegate: Name | None = None
    effect: Effect | None = None
    dry_run: bool = False
    at_ms: Count = Field(description="wall clock at the end, UTC")
    took_us: Count
    end: JobEnd | None = None
    code: str | None = Field(default=None, description="the wire code when it was refused")
    by: Name | None = Field(default=None, description="who has cancelled it")
    counts: JobCounts = JobCounts()
    nodes: Annotated[tuple[JobLine, ...], Field(max_length=TARGETS_MAX)] = ()
