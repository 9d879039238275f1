"""What a search handler gets and returns: the author's side of a node, which never travels as it stands.

The SDK turns a `Found` into the wire's `NodeFound`: it counts terms where the handler gave text, makes the snippet
and the content hash, and leaves the text at home.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from antiphon.messages.base import Count, Id, Label, Scalar
from antiphon.messages.hit import TERMS_MAX, Snippet, Url
from antiphon.messages.lane import Statistics


@dataclass(frozen=True, slots=True)
class Query:
    """A question as a search handler sees it.

    Attributes:
        text: the raw question.
        terms: its analysed terms, at most 32, under `analyser`.
        analyser: the analyser's id, e.g. `en-1`; counts under another one must not be given.
        limit: how many hits an engine that ranks should return.
        depth: how many an engine that only matches (SQL LIKE) should return.
        caller: who asks.
        groups: what the caller belongs to, as the masters know it; for nodes that show each group its own.
        delegate: who asks on the caller's behalf, e.g. an HTTP gateway; None where the caller asks himself.
        budget_ms: milliseconds left when the question arrived.
        request: the request's id, for logs.
    """

    text: str
    terms: tuple[str, ...] = ()
    analyser: str | None = None
    limit: int = 20
    depth: int = 100
    caller: str | None = None
    budget_ms: int = 0
    request: str = ""
    groups: tuple[str, ...] = ()
    delegate: str | None = None


class Counts(BaseModel):
    """How often each term of the question stands in a document, counted under the question's analyser."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    tf: Annotated[tuple[Count, ...], Field(max_length=TERMS_MAX)]
    length: Count = Field(description="terms in the whole document")


class Hit(BaseModel):
    """One hit as a search handler returns it, best first.

    Only `id` is needed. Give `text` (the whole searchable text) and the SDK counts the question's terms, makes the
    snippet and the content hash; the text itself does not travel. A handler whose engine knows the counts under
    the question's analyser gives `counts` instead. A score that is not a finite number is refused here, in the
    author's own traceback, and not somewhere on the way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    id: Id
    title: Annotated[str, StringConstraints(max_length=300)] = ""
    text: str = Field(default="", max_length=1_000_000)
    url: Url | None = None
    snippet: Snippet | None = None
    kind: Label | None = None
    time_ms: int | None = Field(default=None, ge=-(2**53), le=2**53, description="milliseconds since 1970, UTC")
    score: float | None = Field(default=None, description="the engine's own; never compared across nodes")
    counts: Counts | None = None
    hash: Annotated[str, StringConstraints(max_length=64)] | None = None
    fields: dict[Label, Scalar] = Field(default_factory=dict, max_length=32)


@dataclass(frozen=True, slots=True)
class Found:
    """Hits with the statistics of the whole collection, for connectors that index under the question's analyser."""

    hits: Sequence[Hit]
    statistics: Statistics | None = None
    analyser: str | None = None
