"""Reciprocal rank fusion: every node votes 1 / (60 + rank) for each content (Cormack, Clarke, Buettcher 2009).

Made for several rankings of the *same* documents, where votes add up: here, hits with the same content hash. Over
different documents it is round-robin, and rank 1 of the wrong node ties with rank 1 of the right one (docs/search.md:
.43 by topic, .17 on different collections), so it is no default.
"""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.decide.fusing import Fusing, NodeReply, Question, ordered, rank_by_rank
from antiphon.messages.hit import HITS_MAX

KEEPS_NODE_ORDER = False
"""A lower hit that other nodes also found overtakes its own node's first."""
_VOTES = [1 / (60 + rank) for rank in range(1, HITS_MAX + 1)]


def fuse(question: Question, replies: Sequence[NodeReply]) -> Fusing:
    """Score a hit by the sum of the votes for its content, one vote a node."""
    del question
    scored = [(_VOTES[hit], reply, hit) for reply, hit in rank_by_rank(replies)]
    shared = _shared(replies)
    if not shared:
        return Fusing(scored)
    hashes = [[hit.hash for hit in reply.found.hits] for reply in replies]
    voted = [(shared.get(hashes[reply][hit] or "", vote), reply, hit) for vote, reply, hit in scored]
    return Fusing(ordered(voted, replies))


def _shared(replies: Sequence[NodeReply]) -> dict[str, float]:
    """Return hash -> sum of votes, for the contents that more than one node found."""
    contents = [{hit.hash for hit in reply.found.hits if hit.hash} for reply in replies]
    if sum(map(len, contents)) == len(set[str]().union(*contents)):
        return {}
    best: dict[str, dict[str, int]] = {}
    for reply in replies:
        for rank, hit in enumerate(reply.found.hits):
            if hit.hash:
                votes = best.setdefault(hit.hash, {})
                votes[reply.node] = min(rank, votes.get(reply.node, rank))
    # sorted, because a float sum depends on the order of replies
    return {content: sum(sorted(_VOTES[rank] for rank in ranks.values())) for content, ranks in best.items()}
