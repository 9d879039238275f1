"""The conversation of a publisher with a master: one question, one ranked answer that says what is missing."""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, field_validator

from antiphon.messages.base import Count, Fact, Kind, Label, Message, Name, Request, Route
from antiphon.messages.hit import TERMS_MAX, RankedHit
from antiphon.subjects import Template

ASKERS = (Kind.PUBLISHER, Kind.OPERATOR, Kind.MASTER)
QUERY_MAX = 4_096
LIMIT_MAX = 100

Names = Annotated[tuple[Name, ...], Field(max_length=256)]
Behalf = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=4_000)]
"""An on-behalf-of token: a JSON Web Token in its compact form."""
Query = Annotated[str, StringConstraints(min_length=1, max_length=QUERY_MAX, strip_whitespace=True)]


class Outcome(StrEnum):
    """What became of one expected node."""

    ANSWERED = "answered"
    EMPTY = "empty"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped_open"


class NodeLine(Message):
    """One expected node of a search."""

    node: Name
    instance: Name | None = None
    outcome: Outcome
    hits: Count = 0
    took_us: Count = 0
    code: str | None = Field(default=None, description="the wire code of the error, where there was one")
    text: Label | None = None
    attempts: Count = 1
    flags: tuple[Label, ...] = Field(default=(), description="what was wrong with an answer that was still used")
    reply_bytes: Count = Field(default=0, description="the size of the answer that counted")
    hedge: Literal["won", "lost"] | None = Field(
        default=None,
        description="where a second instance was asked because the first was late: whether its answer counted",
    )
    wasted_us: Count = Field(default=0, description="how long instances worked on what nobody waited for any more")
    cached: bool = Field(default=False, description="whether an answer of before counted, so that nobody was asked")


class Coverage(Message):
    """How much of the expected set answered; answered + failed + timed_out + skipped_open == expected."""

    expected: Count
    answered: Count = Field(description="nodes that answered, the empty ones among them")
    empty: Count = 0
    failed: Count = 0
    timed_out: Count = 0
    skipped_open: Count = 0
    hedged: Count = 0
    degraded: tuple[Label, ...] = ()

    @property
    def share(self) -> float:
        """The share of expected nodes that answered, 0 to 1; 1 when none was expected."""
        return self.answered / self.expected if self.expected else 1.0


class SearchAnswer(Message):
    """The answer to a search: one fused list, its coverage and a line a node."""

    size_max: ClassVar[int] = 1024 * 1024
    request: str
    query: str
    terms: tuple[str, ...] = Field(default=(), description="the analysed terms, for marking matches")
    analyser: Label | None = None
    fusion: Label | None = None
    hits: tuple[RankedHit, ...]
    total: Count = Field(description="hits in the whole fused list, after removing duplicates")
    offset: Count = 0
    next: str | None = Field(default=None, description="cursor of the next page of a paged question, good for 60 s")
    complete: bool = Field(description="every expected node answered")
    sufficient: bool = Field(description="every required node answered and the coverage reached min_coverage")
    coverage: Coverage
    nodes: tuple[NodeLine, ...] = ()
    master: Name
    took_us: Count = 0


class SearchAsk(Request[SearchAnswer]):
    """A question for all nodes that can search, or for the ones named."""

    route = Route(Template("search.ask.<caller>"), sent_by=ASKERS, read_by=(Kind.MASTER,), queue="master")

    query: Query
    limit: int = Field(default=10, ge=1, le=LIMIT_MAX)
    nodes: Names = Field(default=(), description="ask only these; empty means every node that can search")
    required: Names = Field(default=(), description="without these the answer is not sufficient")
    optional: Names = Field(default=(), description="these do not count for min_coverage")
    min_coverage: float = Field(default=0.0, ge=0, le=1)
    fusion: Name | None = Field(default=None, description="a method of the catalogue; default: the master's setting")
    balancer: Name | None = Field(default=None, description="how instances are picked; default: the node's")
    explain: bool = False
    paged: bool = Field(default=False, description="keep the list for a while, so that `next` can page over it")
    behalf: Behalf | None = Field(default=None, repr=False, description="a delegate's token: for whom he asks")

    @field_validator("query")
    @classmethod
    def _has_no_control_characters(cls, query: str) -> str:
        for at, char in enumerate(query):
            if unicodedata.category(char) == "Cc" and char not in "\t\n\r":
                raise ValueError(f"control character U+{ord(char):04X} at {at}")
        return query


class SearchAbandoned(Fact):
    """The asker of a search has left; whoever works on it may stop."""

    route = Route(Template("search.abandoned.<writer>"), sent_by=ASKERS, read_by=(Kind.MASTER,))

    request: Annotated[str, StringConstraints(min_length=1, max_length=64)]


class SearchPage(Request[SearchAnswer]):
    """The next page of an answer; it goes to the master that holds the list."""

    route = Route(Template("search.page.<master>.<caller>"), sent_by=ASKERS, read_by=(Kind.MASTER,))

    cursor: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    limit: int = Field(default=10, ge=1, le=LIMIT_MAX)
    behalf: Behalf | None = Field(default=None, repr=False, description="as in the question")


__all__ = [
    "ASKERS",
    "LIMIT_MAX",
    "QUERY_MAX",
    "TERMS_MAX",
    "Behalf",
    "Coverage",
    "NodeLine",
    "Outcome",
    "SearchAbandoned",
    "SearchAnswer",
    "SearchAsk",
    "SearchPage",
]
