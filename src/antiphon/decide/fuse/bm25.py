"""BM25 from evidence and nothing else (F1): what one central index would say, as far as nodes tell."""

from __future__ import annotations

from collections.abc import Sequence

from antiphon.decide.evidence import judge
from antiphon.decide.fusing import Fusing, NodeReply, Question, ordered
from antiphon.messages.base import Scalar

KEEPS_NODE_ORDER = False


def fuse(question: Question, replies: Sequence[NodeReply]) -> Fusing:
    """Score a hit by its BM25; one of which only the rank is known by what is expected at its place, or last."""
    judged = judge(question, replies)
    starts = judged.starts
    scored = [
        (value, at, rank)
        for at in range(len(replies))
        for rank, value in enumerate(judged.values[starts[at] : starts[at + 1]])
    ]

    def explain(reply: int, hit: int) -> dict[str, Scalar]:
        return {"tier": judged.tier(reply, hit).name.lower(), "bm25": judged.values[starts[reply] + hit], "rank": hit}

    return Fusing(ordered(scored, replies), judged.flags, explain)
