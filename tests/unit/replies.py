"""Strategies for what nodes may send: honest replies, weaker ones, and hostile ones."""

from __future__ import annotations

import msgspec
from hypothesis import strategies as st

from antiphon.decide import analyser
from antiphon.decide.fusing import NodeReply, Question
from antiphon.messages.wire import WireFound, WireHit, WireStatistics

TERMS = ("alpha", "beta", "gamma")
QUESTION = Question("alpha beta gamma", TERMS, analyser.default().id)
HUGE = 2**53
counts = st.one_of(st.integers(0, 30), st.integers(0, HUGE))
docs = st.sampled_from(
    [b"{}", b'{"title":"alpha","snippet":"beta gamma alpha"}', b'{"title":"alpha beta"}', b"[1]", b'{"title":7}', b'"']
)
scores = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
hashes = st.one_of(st.none(), st.just(""), st.sampled_from([f"{n:032x}" for n in range(6)]))
tfs = st.one_of(st.none(), st.lists(counts, min_size=3, max_size=3), st.lists(counts, max_size=32))
hits = st.builds(
    WireHit,
    id=st.sampled_from([f"d{n}" for n in range(12)]),
    doc=docs.map(msgspec.Raw),
    score=scores,
    tf=tfs,
    length=st.one_of(st.none(), counts),
    hash=hashes,
)
statistics = st.builds(
    WireStatistics,
    docs=counts,
    total_length=counts,
    df=st.one_of(st.lists(counts, min_size=3, max_size=3), st.lists(counts, max_size=5)),
    postings=counts,
)
founds = st.builds(
    WireFound,
    analyser=st.sampled_from([None, QUESTION.analyser, "xx-1"]),
    statistics=st.one_of(st.none(), statistics),
    hits=st.lists(hits, max_size=8, unique_by=lambda hit: hit.id),
)


@st.composite
def replies(draw: st.DrawFn, nodes_max: int = 6) -> list[NodeReply]:
    """Draw replies of different nodes, of any kind."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), max_size=nodes_max, unique=True))
    return [NodeReply(name, draw(founds), draw(st.one_of(st.none(), counts))) for name in names]


def counted(*rows: tuple[list[int], int]) -> list[WireHit]:
    """Return hits with these frequencies and lengths."""
    return [WireHit(id=f"d{at}", doc=msgspec.Raw(b"{}"), tf=tf, length=size) for at, (tf, size) in enumerate(rows)]


def honest(node: str, df: list[int], *rows: tuple[list[int], int], size: int = 1_000) -> NodeReply:
    """Return the reply of a node of `size` documents, 100 terms each."""
    told = WireStatistics(docs=size, total_length=size * 100, df=df, postings=size * 60)
    return NodeReply(node, WireFound(analyser=QUESTION.analyser, statistics=told, hits=counted(*rows)), size)
