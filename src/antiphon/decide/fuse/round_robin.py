"""Round-robin: all first hits, then all second ones; the baseline that knows nothing."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.decide.fusing import Fusing, NodeReply, Question, rank_by_rank
from antiphon.messages.hit import HITS_MAX

KEEPS_NODE_ORDER = True
_SHARES = [1 / (1 + rank) for rank in range(HITS_MAX)]


def fuse(question: Question, replies: Sequence[NodeReply]) -> Fusing:
    """Score a hit by 1 / (1 + its rank in its node)."""
    del question
    return Fusing([(_SHARES[hit], reply, hit) for reply, hit in rank_by_rank(replies)])
