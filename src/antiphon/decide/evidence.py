"""Evidence: what nodes tell of their hits, checked against what is possible, as one BM25 over all nodes.

Scores of different engines cannot be compared; counts can. A hit is judged by the best of four tiers that it offers:

1. *counts*: the terms' frequencies in the hit, and the whole collection's statistics with the reply;
2. *frequencies*: the counts of the hits alone; document frequencies come from the nodes that have them;
3. *text*: title and snippet, counted here, without a penalty for length;
4. *rank*: nothing but the place in its node's list, and what the node's document frequencies let expect there.

BM25: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009). Terms in a hit <= its length, or its counts
are not taken; what is checked of the collections stands in `decide/totals.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate
from operator import ge
from typing import cast

import msgspec

from antiphon.decide import analyser
from antiphon.decide.expected import expected
from antiphon.decide.fusing import NodeReply, Question
from antiphon.decide.totals import K1, SNIPPET_MAX, TITLE_MAX, Flags, Totals, collect, estimate, trouble
from antiphon.messages.wire import WireHit


class Tier(IntEnum):
    """What a hit is judged by, best first."""

    COUNTS = 1
    FREQUENCIES = 2
    TEXT = 3
    RANK = 4


@dataclass(slots=True)
class Judged:
    """Every hit's evidence.

    Attributes:
        values: the BM25 of all hits of the first reply, then of the second one's, and so on, each at least 0.
        starts: where each reply's hits start in `values`.
        weaker: (reply, hit) -> tier, for the hits that have no counts; the value of one with its rank alone is what is
            expected at its place, or 0 where its node tells no document frequencies.
        totals: what the values were computed with.
        flags: node -> what was clamped or ignored.
    """

    values: list[float]
    starts: list[int]
    weaker: dict[tuple[int, int], Tier]
    totals: Totals
    flags: dict[str, tuple[str, ...]]

    def tier(self, reply: int, hit: int) -> Tier:
        """Return what a hit was judged by."""
        counted = Tier.FREQUENCIES if self.totals.priors[reply] is None else Tier.COUNTS
        return self.weaker.get((reply, hit), counted)

    def bounds(self) -> tuple[float, float]:
        """Return the least and the largest value of all hits with evidence; of all hits where those do not differ."""
        if self.weaker:
            ranked = {self.starts[at] + rank for (at, rank), tier in self.weaker.items() if tier is Tier.RANK}
            known = [value for place, value in enumerate(self.values) if place not in ranked]
            if known and min(known) < max(known):
                return min(known), max(known)
        return (min(self.values), max(self.values)) if self.values else (0.0, 0.0)


class _Text(msgspec.Struct, gc=False):
    title: str = ""
    snippet: str | None = None


_text = msgspec.json.Decoder(_Text)


def judge(question: Question, replies: Sequence[NodeReply], *, texts_only: bool = False) -> Judged:
    """Return every hit's BM25 by the best evidence that it offers; the order of replies changes nothing.

    With `texts_only`, counts are left aside and every hit is judged by its title and snippet.
    """
    flags = Flags()
    totals = collect(question, replies, flags)
    starts = [0, *accumulate([len(reply.found.hits) for reply in replies])]
    counted = None if texts_only else _all_counted(question, replies)
    if counted is not None:
        tfs, lengths = counted
        if not totals.docs:
            estimate(totals, tfs, lengths)
        base, slope = totals.norm()
        values = _bm25(totals.weights(), tfs, [base + slope * length for length in lengths])
        return Judged(values, starts, {}, totals, flags.done())
    rows = _rows(question, replies, flags, texts_only=texts_only)
    if not totals.docs:
        flat = [one for row in rows for one in row]
        estimate(
            totals,
            [one.tf for one in flat if one.tf is not None],
            [one.length for one in flat if one.length is not None],
        )
    values, weaker = _values(totals, rows)
    if Tier.RANK in weaker.values():
        _expect(values, weaker, starts, totals)
    return Judged(values, starts, weaker, totals, flags.done())


def _all_counted(question: Question, replies: Sequence[NodeReply]) -> tuple[list[list[int]], list[int]] | None:
    """Return every hit's frequencies and length if every single one has usable counts, else None.

    This is the hot path, 300 terms a search: whole lists at a time, a third of what `_rows` and `_values` cost.
    """
    if question.analyser is None or {reply.found.analyser for reply in replies} != {question.analyser}:
        return None
    hits = [hit for reply in replies for hit in reply.found.hits]
    lengths, tfs = [hit.length for hit in hits], [hit.tf for hit in hits]
    if None in lengths or None in tfs:
        return None
    counted, known = cast("list[list[int]]", tfs), cast("list[int]", lengths)
    if set(map(len, counted)) - {len(question.terms)} or not all(map(ge, known, map(sum, counted))):
        return None
    return counted, known


def _bm25(weights: list[float], tfs: list[list[int]], norms: list[float]) -> list[float]:
    """Return `sum_t weight_t tf_t / (tf_t + norm)` for each hit.

    Questions of two and three terms are written out: they are the usual ones, and the loop costs half as much again.
    """
    if len(weights) == 2:  # noqa: PLR2004 - terms
        v, w = weights
        return [v * a / (a + norm) + w * b / (b + norm) for (a, b), norm in zip(tfs, norms, strict=True)]
    if len(weights) == 3:  # noqa: PLR2004 - terms
        u, v, w = weights
        return [
            u * a / (a + norm) + v * b / (b + norm) + w * c / (c + norm)
            for (a, b, c), norm in zip(tfs, norms, strict=True)
        ]
    values = [0.0] * len(tfs)
    if not tfs:
        return values
    for weight, column in zip(weights, zip(*tfs, strict=True), strict=True):
        values = [value + weight * tf / (tf + norm) for value, tf, norm in zip(values, column, norms, strict=True)]
    return values


@dataclass(slots=True)
class _Row:
    """One hit's evidence: `tf` is None when only its rank is known, `length` is None when `tf` comes from its text."""

    tf: list[int] | None
    length: int | None


def _rows(question: Question, replies: Sequence[NodeReply], flags: Flags, *, texts_only: bool) -> list[list[_Row]]:
    """Return the best evidence of each hit of each reply: its counts, or else its text's."""
    rows: list[list[_Row]] = []
    for reply in replies:
        same = question.analyser is not None and reply.found.analyser == question.analyser
        row: list[_Row] = []
        for hit in reply.found.hits:
            wrong = trouble(same, hit, len(question.terms))
            if wrong is None and not texts_only:
                row.append(_Row(hit.tf, hit.length))
                continue
            if wrong:
                flags.add(reply.node, wrong)
            row.append(_Row(_count_text(question.terms, hit), None))
        rows.append(row)
    return rows


def _count_text(terms: Sequence[str], hit: WireHit) -> list[int] | None:
    """Return each term's frequency in title and snippet; None when there is no text to count in."""
    try:
        document = _text.decode(hit.doc)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    text = f"{document.title[:TITLE_MAX]} {(document.snippet or '')[:SNIPPET_MAX]}"
    return analyser.default().frequencies(text, terms)[0] if text.strip() else None


def _values(totals: Totals, rows: Sequence[Sequence[_Row]]) -> tuple[list[float], dict[tuple[int, int], Tier]]:
    """Return each hit's BM25, and the tiers of those without counts; a text's length says nothing of its document's."""
    weights, (base, slope) = totals.weights(), totals.norm()
    weaker: dict[tuple[int, int], Tier] = {}
    values: list[float] = []
    for at, row in enumerate(rows):
        for rank, one in enumerate(row):
            norm = K1 if one.length is None else base + slope * one.length
            if one.tf is None:
                weaker[at, rank] = Tier.RANK
            elif one.length is None:
                weaker[at, rank] = Tier.TEXT
            values.append(sum([w * tf / (tf + norm) for w, tf in zip(weights, one.tf or (), strict=False)]))
    return values, weaker


def _expect(values: list[float], weaker: dict[tuple[int, int], Tier], starts: Sequence[int], totals: Totals) -> None:
    """Put what is expected at its place for the value of each hit of which only the rank is known."""
    told, weights, norm = iter(totals.told), totals.weights(), totals.norm()
    for at, prior in enumerate(totals.priors):
        if prior is None:
            continue
        one, start, size = next(told), starts[at], starts[at + 1] - starts[at]
        ranks = [rank for rank in range(size) if weaker.get((at, rank)) is Tier.RANK]
        if ranks:
            places = expected(one, size, weights, norm)
            for rank in ranks:
                values[start + rank] = places[rank]
