"""The conversation of operators with a master about breakers: list, open, close, reset; and how breakers moved."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from antiphon.messages.base import Acknowledged, Count, Fact, Kind, Label, Message, Name, Request, Route
from antiphon.messages.facts import READERS
from antiphon.subjects import Template


class BreakerLine(Message):
    """One breaker that is not closed by itself."""

    node: Name
    instance: Name
    verb: Name
    state: Literal["closed", "open", "half_open"]
    reason: Label
    by: Name = Field(description="the master or operator that moved it last")
    opened_at_ms: Count = Field(description="wall clock of whoever opened it, UTC")
    holds_ms: Count | None = Field(default=None, description="until a probe may be tried, as written; None: by hand")
    probe: Name | None = Field(default=None, description="the master that probes now")
    successes: Count = 0


class BreakerListing(Message):
    """All breakers that are not closed by themselves, by node, instance and verb."""

    size_max: ClassVar[int] = 1024 * 1024
    breakers: tuple[BreakerLine, ...]
    suspects_itself: bool = Field(description="this master sees most nodes fail at once, so it opens nothing")
    master: Name


class BreakerList(Request[BreakerListing]):
    """List the breakers."""

    route = Route(Template("breaker.list.<caller>"), sent_by=(Kind.OPERATOR,), read_by=(Kind.MASTER,), queue="breaker")

    node: Name | None = None


class BreakerOrder(Request[Acknowledged]):
    """Open, close or reset breakers by hand; without an instance, those of all instances of the node."""

    route = Route(Template("breaker.order.<caller>"), sent_by=(Kind.OPERATOR,), read_by=(Kind.MASTER,), queue="breaker")

    node: Name
    instance: Name | None = None
    verb: Name = "search"
    order: Literal["open", "close", "reset"]


class BreakerMoved(Fact):
    """A breaker opened, began to probe, or closed; told once, by the master whose write was taken."""

    route = Route(Template("fact.breaker.moved.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)

    at_ms: Count
    node: Name
    instance: Name
    verb: Name
    state: Literal["closed", "open", "half_open"]
    reason: Label
