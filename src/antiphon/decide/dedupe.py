"""Exact dedupe: the same content from several nodes, or twice from one, is one hit that lists its other sources.

A copy is a copy when its content hash is the same. Scores of copies are never added: that a document was copied often
does not make it a better answer, and a node could vote for itself. Hits without a hash are never merged across nodes.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from antiphon.decide.fusing import NodeReply, Scored
from antiphon.messages.wire import WireHit, decode_document

_HASH_BYTES = 16


@dataclass(frozen=True, slots=True)
class Unique:
    """A fused list without duplicates.

    Attributes:
        scored: (score, reply index, hit index), best first; the best-scored copy of each content.
        also: place in `scored` -> (reply index, hit index) of its copies from other nodes, best first, one a node.
    """

    scored: Scored
    also: dict[int, list[tuple[int, int]]] = field(default_factory=dict[int, list[tuple[int, int]]])


def content_hash(title: str, text: str) -> str:
    """Return the hash of a document's content, 32 hexadecimal digits: alike for texts that differ in case or spaces."""
    normal = " ".join(unicodedata.normalize("NFKC", f"{title}\n{text}").casefold().split())
    return hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()


def dedupe(scored: Scored, replies: Sequence[NodeReply]) -> Unique:
    """Return a fused list, best first, with each content once and each node's id once.

    The best-scored copy stays. A copy under another id of its own node is dropped and not listed: a node is one source.
    """
    if not _has_copies(replies):
        return Unique(scored)
    unique = Unique([])
    ids: set[tuple[str, str]] = set()
    holders: dict[tuple[str, str], tuple[int, set[str]]] = {}
    for one in scored:
        _, at, rank = one
        node, hit = replies[at].node, replies[at].found.hits[rank]
        if (node, hit.id) in ids:
            continue
        ids.add((node, hit.id))
        content = content_of(hit)
        if content is not None and content in holders:
            place, nodes = holders[content]
            if node not in nodes:
                nodes.add(node)
                unique.also.setdefault(place, []).append((at, rank))
            continue
        if content is not None:
            holders[content] = (len(unique.scored), {node})
        unique.scored.append(one)
    return unique


def content_of(hit: WireHit) -> tuple[str, str] | None:
    """Return what makes two hits one: hash and title, for copying a hash alone must not take a hit's place."""
    if not hit.hash:
        return None
    document = decode_document(hit.doc)
    return hit.hash, " ".join(document.title.casefold().split()) if document is not None else ""


def _has_copies(replies: Sequence[NodeReply]) -> bool:
    """Return whether any content hash, node or id stands twice: mostly none does, and the list is done."""
    if len({reply.node for reply in replies}) < len(replies):
        return True
    hits = [hit for reply in replies for hit in reply.found.hits]
    hashes = [hit.hash for hit in hits if hit.hash]
    if len(set(hashes)) < len(hashes):
        return True
    if len({hit.id for hit in hits}) == len(hits):
        return False
    return any(len({hit.id for hit in reply.found.hits}) < len(reply.found.hits) for reply in replies)
