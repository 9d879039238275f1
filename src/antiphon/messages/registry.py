"""The conversation of nodes with the registry: join, heartbeat, leave; and of operators: list."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from antiphon.messages.base import ANYONE, Acknowledged, Count, Fact, Kind, Label, Message, Name, Request, Route, Text
from antiphon.messages.lane import Load
from antiphon.subjects import Template

Labels = Annotated[tuple[Label, ...], Field(max_length=64)]
Names = Annotated[tuple[Name, ...], Field(max_length=64)]


class Status(StrEnum):
    """Whether an instance is asked."""

    ACTIVE = "active"
    DRAINING = "draining"
    DOWN = "down"


class NodeRecord(Message):
    """One instance of a node as the registry keeps it, one key-value entry each, written by masters only."""

    node: Name
    instance: Name
    description: Text = ""
    topics: Labels = ()
    capabilities: Names = ()
    version: Label = "0"
    protocol: Label = "1.0"
    weight: int = Field(default=100, ge=0, le=10_000)
    metadata: dict[Label, Label] = Field(default_factory=dict, max_length=64)
    joined_at_ms: Count = Field(default=0, description="wall clock of the master that wrote it, UTC")


class NodeJoined(Message):
    """The registry's answer to a join: how often it wants to hear from the instance."""

    heartbeat_ms: int = Field(ge=1)
    instances: Count = Field(default=1, description="instances of this node that are registered now")


class NodeJoin(Request[NodeJoined]):
    """An instance of the calling node asks to be in the expected set; joining again updates its record."""

    route = Route(Template("registry.join.<caller>"), sent_by=(Kind.NODE,), read_by=(Kind.MASTER,), queue="registry")

    instance: Name
    description: Text = ""
    topics: Labels = ()
    capabilities: Names = ()
    version: Label = "0"
    protocol: Label = "1.0"
    weight: int = Field(default=100, ge=0, le=10_000)
    metadata: dict[Label, Label] = Field(default_factory=dict, max_length=64)


class NodeLeave(Request[Acknowledged]):
    """An instance of the calling node leaves the expected set; leaving twice is the same as once."""

    route = Route(Template("registry.leave.<caller>"), sent_by=(Kind.NODE,), read_by=(Kind.MASTER,), queue="registry")

    instance: Name


class HeartBeaten(Fact):
    """An instance is alive; every master hears it, nothing stores it."""

    route = Route(Template("beat.node.<instance>.<writer>"), sent_by=(Kind.NODE,), read_by=(Kind.MASTER,))

    load: Load = Load()


class InstanceLine(Message):
    """One instance in a listing."""

    instance: Name
    status: Status
    version: Label
    heard_ms_ago: Count | None = Field(default=None, description="since the last sign of life, None = not yet")
    in_flight: Count = 0
    latency_us: Count = 0


class NodeEntry(Message):
    """One node in a listing."""

    node: Name
    description: Text = ""
    topics: Labels = ()
    capabilities: Names = ()
    status: Status
    instances: tuple[InstanceLine, ...]


class NodeListing(Message):
    """All nodes, by name."""

    size_max: ClassVar[int] = 1024 * 1024
    nodes: tuple[NodeEntry, ...]
    master: Name


class NodeList(Request[NodeListing]):
    """List the registered nodes."""

    route = Route(Template("registry.list.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue="registry")

    capability: Name | None = None
    topic: Label | None = None
