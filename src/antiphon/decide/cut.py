"""One page of a fused list: what has won a place is checked, and the page ends at a number of hits or of bytes.

Documents are left as bytes until here, where few are left: each is held against `Document` and written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from antiphon.decide.dedupe import Unique
from antiphon.decide.fusing import NodeReply
from antiphon.messages.base import Scalar
from antiphon.messages.wire import WireLine, WireRankedHit, WireSource, decode_document

HIT_BYTES = 800
"""Of a hit in an answer besides its document and id: names, numbers, hash and explanation."""

Explain = Callable[[int, int], dict[str, Scalar]]


@dataclass(slots=True)
class Page:
    """A part of a list.

    Attributes:
        hits: its hits, best first.
        end: the place in the list after the last one.
        refused: the nodes of which a document was no legal one and was not passed on.
    """

    hits: list[WireRankedHit]
    end: int
    refused: set[str]


def cut(
    unique: Unique, replies: Sequence[NodeReply], explain: Explain | None, *, offset: int, limit: int, bytes_max: int
) -> Page:
    """Return the page from a place on: at most `limit` hits, and more than one only within `bytes_max`."""
    page = Page([], offset, set())
    room = bytes_max
    while page.end < len(unique.scored) and len(page.hits) < limit:
        hit = _ranked(unique, page.end, replies, explain)
        if hit is None:
            page.refused.add(replies[unique.scored[page.end][1]].node)
        else:
            _, at, rank = unique.scored[page.end]
            room -= _bytes_max(hit, len(replies[at].found.hits[rank].doc))
            if room < 0 and page.hits:
                break
            page.hits.append(hit)
        page.end += 1
    return page


def flagged(lines: list[WireLine], refused: set[str]) -> list[WireLine]:
    """Return the lines; those of nodes of which a document was not passed on say so."""
    if not refused:
        return lines
    return [
        msgspec.structs.replace(line, flags=(*line.flags, "document_refused")) if line.node in refused else line
        for line in lines
    ]


def _ranked(unique: Unique, at: int, replies: Sequence[NodeReply], explain: Explain | None) -> WireRankedHit | None:
    """Return the hit at a place of a list, or None where its document is not a legal one."""
    score, source, rank = unique.scored[at]
    reply = replies[source]
    hit = reply.found.hits[rank]
    document = decode_document(hit.doc)
    if document is None:
        return None
    return WireRankedHit(
        rank=at + 1,
        score=score,
        node=reply.node,
        id=hit.id,
        hash=hit.hash,
        doc=document,
        also=tuple(_source(replies[r], h) for r, h in unique.also[at]) if at in unique.also else (),
        explain=explain(source, rank) if explain is not None else None,
    )


def _bytes_max(hit: WireRankedHit, document: int) -> int:
    """Return what a hit takes in an answer at most; one character of text is at most six bytes of JSON."""
    size = document + 6 * len(hit.id) + HIT_BYTES
    for source in hit.also:
        size += 6 * (len(source.id) + len(source.url or "")) + HIT_BYTES
    return size


def _source(reply: NodeReply, hit: int) -> WireSource:
    found = reply.found.hits[hit]
    document = decode_document(found.doc)
    return WireSource(reply.node, found.id, document.url if document is not None else None)
