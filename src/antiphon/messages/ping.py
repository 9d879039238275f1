"""The conversation of operators with a master about who answers, and of that master with each instance on its lane."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from antiphon.messages.base import Count, Kind, Label, Message, Name, Request, Route
from antiphon.messages.lane import Load
from antiphon.messages.registry import Status
from antiphon.subjects import Template


class NodePong(Message):
    """An instance is there, and how it is."""

    load: Load = Load()
    version: Label = Field(default="0", description="of the program behind the node")
    uptime_ms: Count = 0


class NodePing(Request[NodePong]):
    """Is this instance there?"""

    route = Route(Template("node.<node>.<instance>.ping"), sent_by=(Kind.MASTER,), read_by=(Kind.NODE,))

    budget_ms: int = Field(ge=0, le=600_000, description="milliseconds left when this was sent")

    def carried_budget_ms(self) -> int:
        """Return the milliseconds left when this was sent."""
        return self.budget_ms


class PingLine(Message):
    """What became of the ping to one instance; without an instance, of the node that has none."""

    node: Name
    instance: Name | None = None
    status: Status = Field(description="as the registry sees the instance")
    rtt_us: Count | None = Field(default=None, description="there and back; None = no answer")
    code: str | None = Field(default=None, description="the wire code of the error, where there was no answer")
    load: Load | None = None
    version: Label | None = None
    uptime_ms: Count | None = None


class PingAnswer(Message):
    """A line an instance, by name."""

    size_max: ClassVar[int] = 1024 * 1024
    lines: tuple[PingLine, ...]
    master: Name
    took_us: Count = 0


class PingAsk(Request[PingAnswer]):
    """Ping every instance of the nodes that are named, or of all; masters do it, since only they may write to lanes."""

    route = Route(
        Template("registry.ping.<caller>"), sent_by=(Kind.OPERATOR,), read_by=(Kind.MASTER,), queue="registry"
    )

    nodes: Annotated[tuple[Name, ...], Field(max_length=256)] = Field(default=(), description="empty means all")
    wait_ms: int = Field(default=1_000, ge=1, le=60_000, description="how long to wait for the last instance")
