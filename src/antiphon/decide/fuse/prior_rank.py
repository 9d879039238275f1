"""Node prior times rank (S1): for nodes that tell of their collections but nothing of their hits."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.decide.fusing import Fusing, NodeReply, Question, ordered
from antiphon.decide.totals import neutral, standing
from antiphon.messages.base import Scalar
from antiphon.messages.hit import HITS_MAX

KEEPS_NODE_ORDER = True
_SHARES = [1 / (1 + 0.15 * rank) for rank in range(HITS_MAX)]


def fuse(question: Question, replies: Sequence[NodeReply]) -> Fusing:
    """Score a hit by `lm_node / (1 + .15 rank)`; a node whose prior is unknown gets the mean of the known ones."""
    totals, flags = standing(question, replies)
    priors = neutral(totals.priors)
    scored = [
        (prior * share, at, rank)
        for at, (reply, prior) in enumerate(zip(replies, priors, strict=True))
        for rank, share in zip(range(len(reply.found.hits)), _SHARES, strict=False)
    ]

    def explain(reply: int, hit: int) -> dict[str, Scalar]:
        return {"tier": "rank", "rank": hit, "prior": priors[reply]}

    return Fusing(ordered(scored, replies), flags, explain)
