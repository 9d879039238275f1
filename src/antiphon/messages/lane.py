"""The conversation of a master with one instance of a node, on that instance's own lane.

Only masters write to a lane, and an instance drops a lane message whose reply is not below a master's inbox:
an answer that somebody aimed at a lane (reply laundering, nats-facts.md, hole 1) has none. The budget travels in the
body here, not in a header: one burst goes to all nodes, so it is encoded once, and parsing a header costs a node more
than the field (docs/decisions).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from antiphon.messages.base import Acknowledged, Count, Id, Kind, Label, Message, Name, Request, Route
from antiphon.messages.hit import HITS_MAX, TERMS_MAX, Document
from antiphon.messages.search import Behalf, Query
from antiphon.subjects import Template

GROUPS_MAX = 32
"""Of one identity. They travel in every access token, too, which has to fit into a CONNECT line of 4 KB."""


class Load(Message):
    """How busy an instance is; rides on every reply."""

    in_flight: Count = 0
    latency_us: Count = Field(default=0, description="a moving average of its own handling time")
    cancelled: Count = Field(default=0, description="questions cut off since it started; on heartbeats only")
    wasted_us: Count = Field(default=0, description="time spent on those; on heartbeats only")


class Statistics(Message):
    """The whole collection under the question's analyser, summed over documents (docs/search.md, tier 1)."""

    docs: Count
    total_length: Count = Field(description="terms in all documents")
    postings: Count = Field(default=0, description="sum of all terms' document frequencies; 0 = unknown")
    df: Annotated[tuple[Count, ...], Field(max_length=TERMS_MAX)] = Field(description="one for each asked term")


class NodeHit(Message):
    """One hit on the wire: the evidence that masters rank by, and the document that they pass on."""

    id: Id
    doc: Document
    score: float | None = None
    tf: Annotated[tuple[Count, ...], Field(max_length=TERMS_MAX)] | None = None
    length: Count | None = None
    hash: Annotated[str, Field(max_length=64)] | None = None


class NodeFound(Message):
    """What one instance found, best first."""

    size_max: ClassVar[int] = 1024 * 1024
    request: str | None = Field(default=None, description="the request's id; another one is refused")
    analyser: Label | None = Field(default=None, description="the analyser that the counts hold under")
    statistics: Statistics | None = None
    hits: Annotated[tuple[NodeHit, ...], Field(max_length=HITS_MAX)] = ()
    load: Load | None = None


class NodeSearch(Request[NodeFound]):
    """A question for one instance."""

    route = Route(Template("node.<node>.<instance>.search"), sent_by=(Kind.MASTER,), read_by=(Kind.NODE,))

    request: Annotated[str, Field(max_length=64)]
    ticket: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        description="the master's own id of this search, which only it can cancel; callers choose `request`",
    )
    budget_ms: int = Field(ge=0, le=600_000, description="milliseconds left when this was sent")
    query: Query
    terms: Annotated[tuple[Label, ...], Field(max_length=TERMS_MAX)] = ()
    analyser: Label | None = None
    limit: int = Field(default=20, ge=1, le=HITS_MAX, description="for engines that rank; others return up to depth")
    depth: int = Field(default=100, ge=1, le=HITS_MAX, description="for engines that only match")
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


class NodeCancel(Request[Acknowledged]):
    """Nobody waits for the answer to a search any more: its handler's task is cancelled."""

    route = Route(Template("node.<node>.<instance>.cancel"), sent_by=(Kind.MASTER,), read_by=(Kind.NODE,), is_told=True)

    ticket: Annotated[str, Field(max_length=64)]
