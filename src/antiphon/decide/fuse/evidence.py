"""Evidence, own rank and node prior (F3): the default.

BM25 from evidence makes hits of different nodes comparable; a tenth of the score stays with the node's own order, which
may know more than words; a fifth more goes to nodes whose collection is about the question. .98-1.05 of one central
index over all documents, mixed engines and different collections alike (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import fsum

from antiphon.decide.evidence import Judged, Tier, judge
from antiphon.decide.fusing import Fusing, NodeReply, Question, Scored, ordered
from antiphon.decide.totals import neutral
from antiphon.messages.base import Scalar
from antiphon.messages.hit import HITS_MAX

KEEPS_NODE_ORDER = False
COUNTED = 0.9
"""Share of BM25 in the score of a hit with counts; the rest is its own rank's."""
READ = 0.8
"""The same for a hit that is judged by its title and snippet."""
PRIOR = 0.2
"""How much more the best fitting node's hits are worth."""
_PLACES = [1 / (1 + 0.15 * rank) for rank in range(HITS_MAX)]
_RANKS = list(range(HITS_MAX))
_OWN = [(1 - COUNTED) * place for place in _PLACES]


def fuse(question: Question, replies: Sequence[NodeReply]) -> Fusing:
    """Score a hit by `(0.9 minmax(bm25) + 0.1 / (1 + .15 rank)) (1 + 0.2 lm_node)`; see `mix` for weaker evidence."""
    return mix(judge(question, replies), replies)


def mix(judged: Judged, replies: Sequence[NodeReply]) -> Fusing:
    """Return the list fused by evidence, own rank and node prior.

    Min-max over the union makes the tiers comparable. A hit that is judged by its text counts .8 / .2, and so does one
    of which only the rank is known, by the BM25 that is expected at its place, which is worth no more than the best one
    with evidence; where its node tells nothing of its collection, by the mean of the others at that rank.
    """
    low, high = judged.bounds()
    scale = COUNTED / (high - low) if high > low else 0.0
    priors = neutral(judged.totals.priors)
    scored: Scored = []
    values, starts = judged.values, judged.starts
    for at, prior in enumerate(priors):
        factor = 1 + PRIOR * prior
        by, offset = scale * factor, low * scale * factor
        scored += [
            (value * by + own * factor - offset, at, rank)
            for value, own, rank in zip(values[starts[at] : starts[at + 1]], _OWN, _RANKS, strict=False)
        ]
    if judged.weaker:
        scored = _with_weaker(scored, judged, priors, low, scale / COUNTED)

    def explain(reply: int, hit: int) -> dict[str, Scalar]:
        return {
            "tier": judged.tier(reply, hit).name.lower(),
            "bm25": values[starts[reply] + hit],
            "bm25_scaled": _scaled(judged, reply, hit, low, scale / COUNTED),
            "rank": hit,
            "prior": priors[reply],
        }

    return Fusing(ordered(scored, replies), judged.flags, explain)


def _with_weaker(scored: Scored, judged: Judged, priors: Sequence[float], low: float, scale: float) -> Scored:
    """Return the scores with those of hits judged by text or rank in their places."""
    usual = _usual(judged, low, scale)
    mixed: Scored = []
    for score, at, rank in scored:
        if (at, rank) not in judged.weaker:
            mixed.append((score, at, rank))
            continue
        value = _scaled(judged, at, rank, low, scale) if _tells(judged, at, rank) else usual[rank]
        mixed.append(((READ * value + (1 - READ) * _PLACES[rank]) * (1 + PRIOR * priors[at]), at, rank))
    return mixed


def _scaled(judged: Judged, at: int, rank: int, low: float, scale: float) -> float:
    """Return a hit's value between 0 and 1; what is only expected may lie outside of what there is evidence of."""
    return min(1.0, max(0.0, (judged.values[judged.starts[at] + rank] - low) * scale))


def _tells(judged: Judged, at: int, rank: int) -> bool:
    """Return whether a hit has a value: by evidence, or as its node's document frequencies let expect."""
    return judged.weaker.get((at, rank)) is not Tier.RANK or judged.totals.priors[at] is not None


def _usual(judged: Judged, low: float, scale: float) -> list[float]:
    """Return, for each rank, the mean scaled value of the nodes whose hits have one; it never rises with the rank."""
    rows: list[list[float]] = []
    sizes = [end - start for start, end in pairwise(judged.starts)]
    for at, size in enumerate(sizes):
        known = [_scaled(judged, at, rank, low, scale) for rank in range(size) if _tells(judged, at, rank)]
        rows.append(sorted(known, reverse=True))
    telling = sum(1 for row in rows if row) or 1
    return [fsum([row[rank] for row in rows if rank < len(row)]) / telling for rank in range(max(sizes, default=0))]
