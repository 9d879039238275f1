"""The conversation of nodes with the registry: join, heartbeat, leave; and of operators: list."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from antiphon.messages.actions import ACTIONS_MAX, ActionLine, Contracts
from antiphon.messages.base import ANYONE, Acknowledged, Count, Fact, Kind, Label, Message, Name, Request, Route, Text
from antiphon.messages.card import Labels, Metadata, Names, NodeCard, Weight
from antiphon.messages.lane import Load
from antiphon.subjects import Template

EXPRESSION_MAX = 1_000
NODES = (Kind.NODE,)
MASTERS = (Kind.MASTER,)


class Status(StrEnum):
    """Whether a node or an instance is asked: what operators wish of a node, or that it is not heard."""

    ACTIVE = "active"
    DRAINING = "draining"
    SUSPENDED = "suspended"
    DOWN = "down"


class _Introduction(BaseModel):
    """What an instance says of itself when it joins, and what the registry keeps of it."""

    model_config = ConfigDict(defer_build=True)

    instance: Name
    description: Text = ""
    topics: Labels = ()
    capabilities: Names = ()
    collections: Labels = ()
    version: Label = "0"
    protocol: Label = "1.0"
    weight: Weight = 100
    metadata: Metadata = Field(default_factory=dict)
    documents: Count | None = Field(
        default=None, description="how many can be found now; its statistics count for hardly more (docs/search.md)"
    )
    actions: Contracts = ()


class NodeRecord(_Introduction, Message):
    """One instance of a node as the registry keeps it, one key-value entry each, written by masters only."""

    node: Name
    joined_at_ms: Count = Field(default=0, description="wall clock of the master that wrote it, UTC")


class NodeJoined(Message):
    """The registry's answer to a join: how often it wants to hear from the instance."""

    heartbeat_ms: int = Field(ge=1)
    instances: Count = Field(default=1, description="instances of this node that are registered now")


class NodeJoin(_Introduction, Request[NodeJoined]):
    """An instance of the calling node asks to be in the expected set; joining again updates its record."""

    route = Route(Template("registry.join.<instance>.<caller>"), sent_by=NODES, read_by=MASTERS, queue="registry")


class NodeLeave(Request[Acknowledged]):
    """An instance of the calling node leaves the expected set; leaving twice is the same as once."""

    route = Route(Template("registry.leave.<instance>.<caller>"), sent_by=NODES, read_by=MASTERS, queue="registry")

    instance: Name


class HeartBeaten(Fact):
    """An instance is alive; every master hears it, nothing stores it."""

    route = Route(Template("beat.node.<instance>.<writer>"), sent_by=(Kind.NODE,), read_by=(Kind.MASTER,))

    load: Load = Field(description="required: the server's own acknowledgements must not pass for a sign of life")


class InstanceLine(Message):
    """One instance in a listing."""

    instance: Name
    status: Status = Field(description="active or down: whether it is heard")
    version: Label
    weight: Weight = 100
    joined_at_ms: Count = Field(default=0, description="wall clock, UTC")
    heard_ms_ago: Count | None = Field(
        default=None, description="since the last sign of life; None = none yet, since this master has started"
    )
    in_flight: Count = 0
    latency_us: Count = 0


class NodeEntry(Message):
    """One node in a listing: what operators have set, else what its newest instance says."""

    node: Name
    description: Text = ""
    topics: Labels = ()
    capabilities: Names = ()
    collections: Labels = ()
    status: Status
    version: Label = "0"
    weight: Weight = 100
    metadata: dict[Label, Label] = Field(default_factory=dict, max_length=128)
    balancer: Name | None = None
    max_parallel_requests: Count | None = None
    rate_per_minute: Count | None = None
    documents: Count | None = Field(default=None, description="as set, else the most that one of its instances tells")
    actions: tuple[ActionLine, ...] = Field(default=(), max_length=ACTIONS_MAX)
    instances: tuple[InstanceLine, ...]
    card: NodeCard | None = Field(default=None, description="what operators have set; without one it is not registered")


class NodeListing(Message):
    """The nodes, by name."""

    size_max: ClassVar[int] = 1024 * 1024
    nodes: tuple[NodeEntry, ...]
    master: Name
    next: Name | None = Field(default=None, description="there are more: ask again with this as `after`")


class NodeList(Request[NodeListing]):
    """List the nodes that have all that is asked for."""

    route = Route(Template("registry.list.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue="registry")

    status: Status | None = None
    capability: Name | None = None
    topic: Label | None = None
    name: Label | None = Field(default=None, description="a glob such as shop-*")
    where: str | None = Field(default=None, max_length=EXPRESSION_MAX, description="an expression over the metadata")
    after: Name | None = Field(default=None, description="only nodes behind this one, by name")
