"""Raw score: the engines' own numbers compared as they are; right only where all nodes are one engine over one index.

A hit without a score comes after all that have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from antiphon.decide.fusing import Fusing, NodeReply, Question, ordered
from antiphon.messages.hit import HITS_MAX

KEEPS_NODE_ORDER = False
_LARGEST = 1e300


def fuse(question: Question, replies: Sequence[NodeReply]) -> Fusing:
    """Score a hit by its engine's score; without one, by its rank below the lowest given score."""
    del question
    given = [
        (max(-_LARGEST, min(_LARGEST, hit.score)), at, rank)
        for at, reply in enumerate(replies)
        for rank, hit in enumerate(reply.found.hits)
        if hit.score is not None and isfinite(hit.score)
    ]
    floor = min((score for score, _, _ in given), default=0.0)
    below = max(1.0, abs(floor)) / HITS_MAX  # a step that does not vanish beside a large score
    missing = [
        (floor - below * (1 + rank), at, rank)
        for at, reply in enumerate(replies)
        for rank, hit in enumerate(reply.found.hits)
        if hit.score is None or not isfinite(hit.score)
    ]
    return Fusing(ordered(given + missing, replies))
