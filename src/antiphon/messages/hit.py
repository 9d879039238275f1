"""What a search finds: a document as people see it, and its place in a fused list."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from antiphon.messages.base import Id, Label, Message, Name, Scalar

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
