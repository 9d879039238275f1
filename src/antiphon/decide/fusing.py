"""What a fusion method takes and returns, and the one order of ties that all methods share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from antiphon.messages.base import Scalar
from antiphon.messages.wire import WireFound

Scored = list[tuple[float, int, int]]
"""(score, index of the reply, index of the hit in it), best first."""

_score = itemgetter(0)


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it is ranked by.

    Attributes:
        text: the raw question.
        terms: its analysed terms, at most `TERMS_MAX`.
        analyser: the id that the terms, and so all counts, hold under; None when there are no counts to compare.
    """

    text: str
    terms: tuple[str, ...]
    analyser: str | None


@dataclass(slots=True)
class NodeReply:
    """What one node found.

    Attributes:
        node: its name.
        found: its hits, best first.
        docs_max: for how many documents it may count, as operators have registered it; None where nobody has.
        docs_told: how many documents it has by its own word, when it joined last; None where it has not said.
    """

    node: str
    found: WireFound
    docs_max: int | None = None
    docs_told: int | None = None


def _unexplained(reply: int, hit: int) -> dict[str, Scalar]:
    return {"reply": reply, "rank": hit}


@dataclass(slots=True)
class Fusing:
    """One fused list.

    Attributes:
        scored: every hit of every reply once, best first; scores are finite and compare within this list only.
        flags: for each node whose reply was not taken as it stood, what was clamped or ignored.
        explain: how the score of (reply index, hit index) came about; nothing is computed before it is called.
    """

    scored: Scored
    flags: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    explain: Callable[[int, int], dict[str, Scalar]] = _unexplained


@dataclass(frozen=True, slots=True)
class Fusion:
    """One method of the catalogue `decide/fuse`.

    Attributes:
        name: the module's name, which is what a question names.
        summary: the module's first sentence.
        fuse: the method itself.
        keeps_node_order: whether hits of one node never change places with each other.
    """

    name: str
    summary: str
    fuse: Callable[[Question, Sequence[NodeReply]], Fusing]
    keeps_node_order: bool


def ordered(scored: Scored, replies: Sequence[NodeReply]) -> Scored:
    """Sort in place, best first, and return the list; ties by rank in the node, then node's name, then hit's id.

    Ties are few, so each run of them is put in order after a sort by score alone, which is three times as cheap.
    """
    scored.sort(key=_score, reverse=True)
    size = len(scored)
    if len(set(map(_score, scored))) == size:
        return scored
    start = 0
    while start < size:
        end, score = start + 1, scored[start][0]
        while end < size and scored[end][0] == score:
            end += 1
        if end - start > 1:
            scored[start:end] = sorted(
                scored[start:end], key=lambda one: (one[2], replies[one[1]].node, replies[one[1]].found.hits[one[2]].id)
            )
        start = end
    return scored


def rank_by_rank(replies: Sequence[NodeReply]) -> list[tuple[int, int]]:
    """Return (reply index, hit index) of all first hits, then all second ones; nodes by name within a rank."""
    lists = sorted(range(len(replies)), key=lambda at: _place(replies[at]))
    left = [(at, len(replies[at].found.hits)) for at in lists]
    depth = max([size for _, size in left], default=0)
    even = min([size for _, size in left], default=0)
    places = [(at, rank) for rank in range(even) for at in lists]
    return places + [(at, rank) for rank in range(even, depth) for at, size in left if rank < size]


def _place(reply: NodeReply) -> tuple[str, list[str]]:
    """Return what orders replies; the ids tell two instances of one node apart."""
    return reply.node, [hit.id for hit in reply.found.hits[:1]]
