"""What happened, for the record: every search with its per-node replies, and every change of the registry."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from antiphon.messages.base import Count, Fact, Kind, Label, Name, Route
from antiphon.messages.search import Coverage, NodeLine
from antiphon.subjects import Template

READERS = (Kind.MASTER, Kind.OPERATOR)


class SearchFinished(Fact):
    """A search was answered or refused; one fact carries the replies of all its nodes."""

    route = Route(Template("fact.search.finished.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)
    size_max: ClassVar[int] = 1024 * 1024

    request: str
    caller: Name = Field(description="who counts: the principal, where a delegate has asked on his behalf")
    delegate: Name | None = None
    query: str
    at_ms: Count = Field(description="wall clock at the end, UTC")
    took_us: Count
    hits: Count = 0
    total: Count = 0
    duplicates: Count = 0
    fusion: Label | None = None
    code: str | None = Field(default=None, description="the wire code when it was refused")
    complete: bool = False
    sufficient: bool = False
    coverage: Coverage | None = None
    nodes: tuple[NodeLine, ...] = ()
    contributed: dict[Name, Count] = Field(default_factory=dict, description="hits of the first page, by node")


class InstanceChanged(Fact):
    """An instance joined, left, went down or came back."""

    route = Route(Template("fact.registry.changed.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)

    at_ms: Count
    node: Name
    instance: Name
    change: Literal["joined", "updated", "left", "down", "recovered", "forgotten"]


class NodeChanged(Fact):
    """An operator registered, updated or removed a node, or wished that it be asked or not."""

    route = Route(Template("fact.node.changed.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)

    at_ms: Count
    node: Name
    change: Literal["registered", "updated", "draining", "suspended", "resumed", "removed"]
    by: Name = Field(description="the operator")
    fields: tuple[Label, ...] = Field(default=(), max_length=64, description="what was set or given back")
