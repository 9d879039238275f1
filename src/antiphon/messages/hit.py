"""What a search finds: a document as people see it, and a hit as a node's author returns it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from antiphon.messages.base import Count, Id, Label, Message, Name, Scalar

HITS_MAX = 1_000
"""Hits that one node may return and that one fused list may hold."""
TERMS_MAX = 32
"""Analysed terms of one query; the rest of a very long question is not ranked by."""

Url = Annotated[str, StringConstraints(max_length=2_000)]
Snippet = Annotated[str, StringConstraints(max_length=600)]


class Document(Message):
    """The part of a hit that people see; masters pass it on as it came."""

    title: Annotated[str, StringConstraints(max_length=300)] = ""
    url: Url | None = None
    snippet: Snippet | None = None
    kind: Label | None = None
    time_ms: int | None = Field(default=None, ge=-(2**53), le=2**53, description="milliseconds since 1970, UTC")
    fields: dict[Label, Scalar] = Field(default_factory=dict, max_length=32)


class Counts(Message):
    """How often each term of the question stands in a document, counted under the question's analyser."""

    tf: Annotated[tuple[Count, ...], Field(max_length=TERMS_MAX)]
    length: Count = Field(description="terms in the whole document")


class Hit(Message):
    """One hit as a search handler returns it, best first.

    Only `id` is needed. Give `text` (the whole searchable text) and the SDK counts the question's terms, makes the
    snippet and the content hash; the text itself does not travel. A handler whose engine knows the counts under
    the question's analyser gives `counts` instead.
    """

    id: Id
    title: Annotated[str, StringConstraints(max_length=300)] = ""
    text: str = Field(default="", max_length=1_000_000)
    url: Url | None = None
    snippet: Snippet | None = None
    kind: Label | None = None
    time_ms: int | None = Field(default=None, ge=-(2**53), le=2**53)
    score: float | None = Field(default=None, description="the engine's own; never compared across nodes")
    counts: Counts | None = None
    hash: Annotated[str, StringConstraints(max_length=64)] | None = None
    fields: dict[Label, Scalar] = Field(default_factory=dict, max_length=32)


class Source(Message):
    """Another node that holds the same document."""

    node: Name
    id: Id
    url: Url | None = None


class RankedHit(Message):
    """One hit of the fused list."""

    rank: int = Field(ge=1)
    score: float = Field(description="comparable within this answer only")
    node: Name
    id: Id
    hash: str | None = None
    doc: Document
    also: tuple[Source, ...] = Field(default=(), description="other sources of the same content")
    explain: dict[str, Scalar] | None = None

    @property
    def title(self) -> str:
        """The title, or the id where the node gave none."""
        return self.doc.title or self.id
