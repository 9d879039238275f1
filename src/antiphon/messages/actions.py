"""What an action is, and the conversation about running one: run, follow the job, cancel it; list the actions.

A node tells the contract of each of its actions when it joins. Running one is answered at once with the *job*: whom it
is for and how it stands. What becomes of it is read with `JobGet`, from any master, for a day.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field, JsonValue, StringConstraints
from pydantic_core import to_json

from antiphon.messages.base import ANYONE, Count, Kind, Label, Message, Name, Request, Route, Text
from antiphon.messages.saga import Json, Params
from antiphon.messages.search import ASKERS, Behalf
from antiphon.subjects import Template

QUEUE: Final = "action"
ACTIONS_MAX: Final = 32
"""Actions of one node."""
SCHEMA_BYTES_MAX: Final = 8 * 1024
CONTRACTS_BYTES_MAX: Final = 32 * 1024
"""Of all contracts of one instance: its record has to fit into an entry of the registry's bucket."""
AGGREGATES_MAX: Final = 16
BUCKETS_MAX: Final = 64
"""Values that a histogram tells apart."""
TARGETS_MAX: Final = 1_000
"""Nodes of one job."""
EXPRESSION_MAX: Final = 1_000
TIMEOUT_MS_MAX: Final = 3_600_000
DEADLINE_MS_MAX: Final = 12 * 3_600_000
"""A job ends within half of what its record is kept."""
WAIT_MS_MAX: Final = 60_000


class Effect(StrEnum):
    """What an action does to its system."""

    READ = "read"
    WRITE = "write"
    DESTRUCTIVE = "destructive"
    """What it takes away does not come back."""


class Aggregation(StrEnum):
    """What is made of one field of all results."""

    SUM = "sum"
    MEAN = "mean"
    HISTOGRAM = "histogram"
    """How often there is each value."""


class RunState(StrEnum):
    """How it stands with one node of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NO_ANSWER = "no_answer"
    """It was asked and has fallen silent: it may have done it, or not."""
    SKIPPED = "skipped"
    """It was not asked; nothing has happened there."""
    CANCELLED = "cancelled"
    """Its handler was cut off."""


class JobEnd(StrEnum):
    """Why a job is over."""

    DONE = "done"
    """Every node has ended, well or not."""
    STOPPED = "stopped"
    """Too many have failed: the rest was not asked."""
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    LOST = "lost"
    """The master that ran it is gone: nobody asks the rest, and what runs reports to nobody but the record."""


def _fits(schema: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if (size := len(to_json(schema))) > SCHEMA_BYTES_MAX:
        raise ValueError(f"a schema of {size} bytes; the bound is {SCHEMA_BYTES_MAX}")
    return schema


Schema = Annotated[dict[Label, JsonValue], AfterValidator(_fits)]
"""A JSON Schema (2020-12); what a master takes of it is in `decide/contract.py`."""
Amount = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}%?$", max_length=7)]
"""So many nodes, or so many in a hundred."""
Aggregates = Annotated[dict[Label, Aggregation], Field(max_length=AGGREGATES_MAX)]
Nodes = Annotated[tuple[Name, ...], Field(max_length=TARGETS_MAX)]


class ActionContract(Message):
    """What a node says of one of its actions."""

    name: Name
    description: Text = ""
    params: Schema | None = Field(default=None, description="None: it takes none")
    result: Schema | None = Field(default=None, description="None: any JSON")
    effect: Effect = Effect.WRITE
    idempotent: bool = Field(
        default=False, description="doing it twice is the same as once; else it never is asked twice"
    )
    at_most_once: bool = Field(
        default=False, description="as a saga's step it is never begun twice; without an outcome it is unknown"
    )
    compensates: Name | None = Field(default=None, description="the action of this node that it undoes")
    has_dry_run: bool = Field(default=False, description="it can say what it would do, and do nothing")
    aggregates: Aggregates = Field(default_factory=dict, description="what is made of fields of all results")


def _fit(contracts: tuple[ActionContract, ...]) -> tuple[ActionContract, ...]:
    if (size := sum(len(one.model_dump_json(exclude_none=True)) for one in contracts)) > CONTRACTS_BYTES_MAX:
        raise ValueError(f"contracts of {size} bytes in all; the bound is {CONTRACTS_BYTES_MAX}")
    if len({one.name for one in contracts}) != len(contracts):
        raise ValueError("two actions have one name")
    return contracts


Contracts = Annotated[tuple[ActionContract, ...], Field(max_length=ACTIONS_MAX), AfterValidator(_fit)]


class ActionLine(Message):
    """One action of a node in a listing of nodes."""

    name: Name
    effect: Effect = Effect.WRITE
    description: Label = ""


class ActionEntry(Message):
    """One action, as it is on some nodes."""

    contract: ActionContract
    nodes: Nodes = Field(description="those whose contract is exactly this, and that the asker may run it on")


class ActionListing(Message):
    """Actions by name; one that is not the same on all its nodes has several entries."""

    size_max: ClassVar[int] = 1024 * 1024
    actions: tuple[ActionEntry, ...]
    master: Name
    next: Name | None = Field(default=None, description="there are more: ask again with this as `after`")


class ActionList(Request[ActionListing]):
    """List the actions that the caller may run."""

    route = Route(Template("action.list.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue=QUEUE)

    action: Name | None = Field(default=None, description="only this one")
    node: Name | None = Field(default=None, description="only those of this node")
    after: Name | None = Field(default=None, description="only actions behind this one, by name")
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")


class RunPlan(Message):
    """In which order a job goes through its nodes, and when it stops."""

    parallel: int = Field(default=32, ge=1, le=TARGETS_MAX, description="nodes at once; 1 is one after the other")
    batch: int | None = Field(
        default=None, ge=1, le=TARGETS_MAX, description="so many have to end before the next begin"
    )
    canary: bool = Field(default=False, description="first one node, then 10 %, then the rest; stops at a failure")
    stop_after: Amount | None = Field(default=None, description="so many failures, 5 or 10%, and nobody more is asked")
    limit: Amount | None = Field(default=None, description="only so many of the nodes, 5 or 10%, drawn by `seed`")
    seed: int | None = Field(default=None, ge=0, lt=2**53, description="the same seed draws the same nodes")


class JobLine(Message):
    """One node of a job."""

    node: Name
    instance: Name | None = Field(default=None, description="which one was asked last")
    state: RunState
    wave: Count = 0
    attempts: Count = 0
    done: Count = Field(default=0, description="progress, as the handler tells it")
    total: Count | None = None
    text: Label | None = Field(default=None, description="progress in words, or the error's text")
    code: Label | None = Field(default=None, description="the wire code of the error, or why it was skipped")
    result: Json = None
    took_us: Count = 0


class JobCounts(Message):
    """How many nodes of a job are how; they add up to its targets."""

    waiting: Count = 0
    running: Count = 0
    succeeded: Count = 0
    failed: Count = 0
    no_answer: Count = 0
    skipped: Count = 0
    cancelled: Count = 0


class JobBucket(Message):
    """How often there was one value."""

    value: str | int | float | bool | None
    count: Count


class JobTotal(Message):
    """What was made of one field of all results."""

    field: Label
    kind: Aggregation
    count: Count = Field(description="results that have such a value")
    value: float | int | None = Field(default=None, description="of sum and mean; None: there is none")
    buckets: Annotated[tuple[JobBucket, ...], Field(max_length=BUCKETS_MAX)] = Field(
        default=(), description="of a histogram, the most frequent first"
    )
    others: Count = Field(default=0, description="of a histogram: results with values that are in no bucket")


Totals = Annotated[tuple[JobTotal, ...], Field(max_length=AGGREGATES_MAX)]


class JobView(Message):
    """A job as it stands, with the lines that are new since `after`."""

    size_max: ClassVar[int] = 1024 * 1024
    job: Name
    action: Name
    caller: Name
    master: Name = Field(description="who runs or ran it")
    effect: Effect = Effect.WRITE
    dry_run: bool = False
    started_ms: Count = Field(default=0, description="wall clock of that master, UTC")
    took_us: Count = Field(default=0, description="until its end; of one that runs, until now")
    deadline_ms: Count = Field(default=0, description="it ends so long after its start at the latest")
    end: JobEnd | None = Field(default=None, description="None: it runs")
    by: Name | None = Field(default=None, description="who has cancelled it")
    counts: JobCounts
    no_answer: Nodes = Field(default=(), description="who was asked and has fallen silent")
    not_allowed: Nodes = Field(default=(), description="who has the action, and the caller may not run it there")
    totals: Totals = ()
    lines: tuple[JobLine, ...] = ()
    after: Count = Field(default=0, description="ask with this and `recorded` for what is new: the last report in here")
    recorded: Count = Field(default=0, description="the master's record in here; the two count each for itself")
    is_more: bool = Field(default=False, description="more lines are there already: ask again at once")


class ActionRun(Request[JobView]):
    """Run an action on some nodes, once on each; the same request id again is the same job."""

    route = Route(
        Template("action.run.<caller>"), sent_by=ASKERS, read_by=(Kind.MASTER,), queue=QUEUE, idempotent=False
    )

    action: Name
    params: Params = Field(default_factory=dict)
    nodes: Nodes = Field(default=(), description="these; each has to have the action")
    everywhere: bool = Field(default=False, description="every node that has it; else say which, in one way or several")
    capability: Name | None = None
    topic: Label | None = None
    name: Label | None = Field(default=None, description="a glob of names such as shop-*")
    where: Annotated[str, Field(max_length=EXPRESSION_MAX)] | None = Field(
        default=None, description="an expression over nodes' metadata"
    )
    plan: RunPlan = RunPlan()
    timeout_ms: int = Field(default=30_000, ge=1, le=TIMEOUT_MS_MAX, description="for each node, from when it is asked")
    deadline_ms: int | None = Field(
        default=None, ge=1, le=DEADLINE_MS_MAX, description="for the whole job; default: what the plan may take at most"
    )
    wait_ms: int = Field(default=0, ge=0, le=WAIT_MS_MAX, description="answer when it has ended, at the latest then")
    dry_run: bool = Field(default=False, description="say what would be done, and do nothing")
    confirmed: bool = Field(default=False, description="a destructive action is refused without")
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")


class JobGet(Request[JobView]):
    """How does a job stand? Its caller and operators may ask, any master, and wait for news."""

    route = Route(Template("action.job.<caller>"), sent_by=ASKERS, read_by=(Kind.MASTER,), queue=QUEUE)

    job: Name
    after: Count = Field(default=0, description="only lines that are newer; `after` of the last answer")
    recorded: Count = Field(default=0, description="`recorded` of the last answer")
    wait_ms: int = Field(default=0, ge=0, le=WAIT_MS_MAX, description="wait so long for something new")
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")


class JobCancel(Request[JobView]):
    """Ask nobody more, and cut off the handlers that run; its caller and operators may."""

    route = Route(Template("action.cancel.<caller>"), sent_by=ASKERS, read_by=(Kind.MASTER,), queue=QUEUE)

    job: Name
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")
