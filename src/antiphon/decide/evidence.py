"""Evidence: what nodes tell of their hits, checked against what is possible, as one BM25 over all nodes.

Scores of different engines cannot be compared; counts can. A hit is judged by the best of four tiers that it offers:

1. *counts*: the terms' frequencies in the hit, and the whole collection's statistics with the reply;
2. *frequencies*: the counts of the hits alone; document frequencies come from the nodes that have them;
3. *text*: title and snippet, counted here, without a penalty for length;
4. *rank*: nothing but the place in its node's list.

BM25: Robertson and Zaragoza, The Probabilistic Relevance Framework (2009). Node prior: the language-model selection of
Si and Callan (2002). Figures: SEARCH.md.

A node may lie, so no number is taken beyond what is possible: terms in a hit <= its length, documents with a term
<= documents <= the registered size, terms in documents <= the collection's length. That bounds a liar but would still
let one node make every term look common; `_believed` therefore lets no node alone raise a document frequency above
2 % of all documents and above eight times what all others together count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from math import exp, fsum, log
from operator import ge
from typing import cast

import msgspec

from antiphon.decide import analyser
from antiphon.decide.fusing import NodeReply, Question
from antiphon.messages.wire import WireHit, WireStatistics

K1 = 1.2
B = 0.75
OWN_SHARE = 0.5
"""Weight of a node's own term shares against all nodes' in the node prior; .5 to .8 measured alike (SEARCH.md)."""
PRIOR_WIDTH = 0.35
"""How far, in mean log shares, a node's prior falls to 1/e."""
POSTINGS_SHARE = 0.6
"""Distinct terms of a document by its length, where a node does not tell: .55-.75 on texts of 50-300 words."""
ALONE_FACTOR = 8
"""How many times the other nodes' count of a term one node may raise it to, above `ALONE_SHARE`."""
ALONE_SHARE = 0.02
"""Share of all documents up to which one node alone may say that a term is common."""
LENGTH_FACTOR = 10
"""How many times longer or shorter than the median node's a node's mean document may count."""
UNREGISTERED_DOCS_MAX = 1_000
"""Documents that a node without a registered size may always count for; more only up to what all others have."""
_TITLE_MAX, _SNIPPET_MAX = 300, 600


class Tier(IntEnum):
    """What a hit is judged by, best first."""

    COUNTS = 1
    FREQUENCIES = 2
    TEXT = 3
    RANK = 4


@dataclass(slots=True)
class Totals:
    """All collections as one, under the question's analyser.

    Attributes:
        docs: documents.
        df: documents that hold each term.
        length_mean: terms a document.
        priors: for each reply, how well its collection fits the question, in (0, 1]; None where no df tells.
    """

    docs: int
    df: list[int]
    length_mean: float
    priors: list[float | None]

    def idf(self) -> list[float]:
        """Return each term's weight, `ln(1 + (N - df + .5) / (df + .5))`, always above 0."""
        return [log(1 + (self.docs - df + 0.5) / (df + 0.5)) for df in self.df]

    def weights(self) -> list[float]:
        """Return idf times k1 + 1, what a term that stands in a document very often adds to its BM25."""
        return [idf * (K1 + 1) for idf in self.idf()]

    def norm(self) -> tuple[float, float]:
        """Return (a, b) so that a + b length is what BM25 adds to a term's frequency below the line."""
        return K1 * (1 - B), K1 * B / self.length_mean if self.length_mean else 0.0


@dataclass(slots=True)
class Judged:
    """Every hit's evidence.

    Attributes:
        values: the BM25 of all hits of the first reply, then of the second one's, and so on, each at least 0.
        starts: where each reply's hits start in `values`.
        weaker: (reply, hit) -> tier, for the hits that have no counts; the value of one with its rank alone is 0.
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
        """Return the least and the largest value of all hits that have one; (0, 0) when none has."""
        values = self.values
        if self.weaker:
            unknown = {self.starts[at] + rank for (at, rank), tier in self.weaker.items() if tier is Tier.RANK}
            values = [value for place, value in enumerate(values) if place not in unknown]
        return (min(values), max(values)) if values else (0.0, 0.0)


class _Text(msgspec.Struct, gc=False):
    title: str = ""
    snippet: str | None = None


_text = msgspec.json.Decoder(_Text)


@dataclass(slots=True)
class _Flags:
    """What was wrong with whom; a flag is said once a node."""

    of: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])

    def add(self, node: str, flag: str) -> None:
        self.of.setdefault(node, {})[flag] = None

    def done(self) -> dict[str, tuple[str, ...]]:
        return {node: tuple(sorted(flags)) for node, flags in sorted(self.of.items())} if self.of else {}


def standing(question: Question, replies: Sequence[NodeReply]) -> tuple[Totals, dict[str, tuple[str, ...]]]:
    """Return the collections' statistics and priors alone, and what was clamped or ignored in them."""
    flags = _Flags()
    totals = _totals(question, replies, flags)
    return totals, flags.done()


def neutral(priors: Sequence[float | None]) -> list[float]:
    """Return priors with the mean of the known ones for the unknown: telling nothing neither helps nor harms."""
    known = [prior for prior in priors if prior is not None]
    if len(known) == len(priors):
        return known
    mean = fsum(known) / len(known) if known else 1.0
    return [mean if prior is None else prior for prior in priors]


def judge(question: Question, replies: Sequence[NodeReply], *, texts_only: bool = False) -> Judged:
    """Return every hit's BM25 by the best evidence that it offers; the order of replies changes nothing.

    With `texts_only`, counts are left aside and every hit is judged by its title and snippet.
    """
    flags = _Flags()
    totals = _totals(question, replies, flags)
    starts = [0, *accumulate([len(reply.found.hits) for reply in replies])]
    counted = None if texts_only else _all_counted(question, replies)
    if counted is not None:
        tfs, lengths = counted
        if not totals.docs:
            _estimate(totals, tfs, lengths)
        base, slope = totals.norm()
        values = _bm25(totals.weights(), tfs, [base + slope * length for length in lengths])
        return Judged(values, starts, {}, totals, flags.done())
    rows = _rows(question, replies, flags, texts_only=texts_only)
    if not totals.docs:
        flat = [one for row in rows for one in row]
        _estimate(
            totals,
            [one.tf for one in flat if one.tf is not None],
            [one.length for one in flat if one.length is not None],
        )
    values, weaker = _values(totals, rows)
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
    if len(weights) == 2:  # noqa: PLR2004
        v, w = weights
        return [v * a / (a + norm) + w * b / (b + norm) for (a, b), norm in zip(tfs, norms, strict=True)]
    if len(weights) == 3:  # noqa: PLR2004
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


def _rows(question: Question, replies: Sequence[NodeReply], flags: _Flags, *, texts_only: bool) -> list[list[_Row]]:
    """Return the best evidence of each hit of each reply: its counts, or else its text's."""
    rows: list[list[_Row]] = []
    for reply in replies:
        same = question.analyser is not None and reply.found.analyser == question.analyser
        row: list[_Row] = []
        for hit in reply.found.hits:
            trouble = _trouble(same, hit, len(question.terms))
            if trouble is None and not texts_only:
                row.append(_Row(hit.tf, hit.length))
                continue
            if trouble:
                flags.add(reply.node, trouble)
            row.append(_Row(_count_text(question.terms, hit), None))
        rows.append(row)
    return rows


def _trouble(same: bool, hit: WireHit, size: int) -> str | None:
    """Return why a hit's counts cannot be used, "" if it has none, None if they can."""
    if hit.tf is None:
        return ""
    if not same:
        return "foreign_analyser"
    if len(hit.tf) != size:
        return "counts_malformed"
    # without a length the node has counted in title and snippet, and no term is shorter than a character and a blank
    most = (_TITLE_MAX + _SNIPPET_MAX) // 2 if hit.length is None else hit.length
    return "counts_impossible" if sum(hit.tf) > most else None


def _count_text(terms: Sequence[str], hit: WireHit) -> list[int] | None:
    """Return each term's frequency in title and snippet; None when there is no text to count in."""
    try:
        document = _text.decode(hit.doc)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    text = f"{document.title[:_TITLE_MAX]} {(document.snippet or '')[:_SNIPPET_MAX]}"
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


def _totals(question: Question, replies: Sequence[NodeReply], flags: _Flags) -> Totals:
    """Return the statistics of all collections that were counted under the question's analyser."""
    told = [
        None if reply.found.statistics is None else _possible(question, reply, reply.found.statistics, flags)
        for reply in replies
    ]
    given = [one for one in told if one is not None]
    if not given:
        return Totals(0, [0] * len(question.terms), 0.0, [None] * len(replies))
    if len(given) > 1 and None in [reply.docs_max for reply in replies]:
        given = _bounded(told, replies, flags)
    docs = sum([one.docs for one in given])
    columns = list(zip(*[one.df for one in given], strict=True))
    fits = _priors([one.postings for one in given], columns)
    if len(given) == len(replies):
        priors: list[float | None] = [*fits]
    else:
        left = iter(fits)
        priors = [None if one is None else next(left) for one in told]
    return Totals(docs, _believed(docs, columns), _length_mean(given, docs), priors)


def _possible(question: Question, reply: NodeReply, told: WireStatistics, flags: _Flags) -> WireStatistics | None:
    """Return a node's statistics within what is possible, or None when they cannot be compared."""
    df, docs, bound = told.df, told.docs, reply.docs_max
    if question.analyser is None or reply.found.analyser != question.analyser:
        flags.add(reply.node, "foreign_analyser")
        return None
    if len(df) != len(question.terms):
        flags.add(reply.node, "statistics_malformed")
        return None
    if not docs or bound == 0:
        return None
    # a document that holds a term is one posting of it and at least one term long
    if (
        (bound is None or docs <= bound)
        and max(df, default=0) <= docs
        and sum(df) <= told.postings <= told.total_length
    ):
        return told
    return _clamped(told, docs if bound is None else min(docs, bound), reply.node, flags)


def _clamped(told: WireStatistics, docs: int, node: str, flags: _Flags) -> WireStatistics:
    """Return statistics of `docs` documents with the same mean length, and no count beyond what that allows."""
    if docs < told.docs:
        flags.add(node, "docs_clamped")
    length = told.total_length * docs // told.docs
    df = [min(one, docs) for one in told.df]
    total = sum(df)
    if total > length:
        df = [one * length // total for one in df]
    if df != told.df:
        flags.add(node, "df_clamped")
    postings = told.postings * docs // told.docs or int(length * POSTINGS_SHARE)
    return WireStatistics(docs=docs, total_length=length, df=df, postings=max(sum(df), min(postings, length)))


def _bounded(told: list[WireStatistics | None], replies: Sequence[NodeReply], flags: _Flags) -> list[WireStatistics]:
    """Return the statistics, no node of unknown size counting for more documents than all others together."""
    docs = sum([one.docs for one in told if one is not None])
    given: list[WireStatistics] = []
    for one, reply in zip(told, replies, strict=True):
        if one is None:
            continue
        bound = max(UNREGISTERED_DOCS_MAX, docs - one.docs)
        if reply.docs_max is None and one.docs > bound:
            shrunk = [df * bound // one.docs for df in one.df]
            one = WireStatistics(bound, one.total_length * bound // one.docs, shrunk, one.postings * bound // one.docs)  # noqa: PLW2901
            flags.add(reply.node, "docs_clamped")
        given.append(one)
    return given


def _believed(docs: int, columns: Sequence[Sequence[int]]) -> list[int]:
    """Return each term's document frequency, of which one node alone makes at most so much."""
    df = [sum(column) for column in columns]
    common = ALONE_SHARE * docs
    if max(df, default=0) <= common or len(columns[0]) == 1:
        return df
    return [
        total if total <= common else min(total, int(max(common, ALONE_FACTOR * (total - max(column) + 1))))
        for total, column in zip(df, columns, strict=True)
    ]


def _length_mean(given: Sequence[WireStatistics], docs: int) -> float:
    """Return the mean length over all documents, no node's mean beyond ten times the median node's."""
    means = [one.total_length / one.docs for one in given]
    ascending = sorted(means)
    median = ascending[len(means) // 2]
    low, high = median / LENGTH_FACTOR, median * LENGTH_FACTOR
    if ascending[0] >= low and ascending[-1] <= high:
        return sum([one.total_length for one in given]) / docs
    return fsum([min(max(mean, low), high) * one.docs for mean, one in zip(means, given, strict=True)]) / docs


def _priors(postings: Sequence[int], columns: Sequence[Sequence[int]]) -> list[float]:
    """Return exp((LM_j - max LM) / 0.35), LM_j the mean log share of the question's terms in node j's postings.

    `columns` holds a row of document frequencies for each term. A term that nobody has says nothing about anybody.
    """
    everything = sum(postings)
    shares = [OWN_SHARE / (size or 1) for size in postings]
    logs, known = [0.0] * len(postings), 0
    for column in columns:
        total = sum(column)
        if total:
            known += 1
            rest = (1 - OWN_SHARE) * total / everything
            logs = [so_far + log(share * df + rest) for so_far, share, df in zip(logs, shares, column, strict=True)]
    best, width = max(logs), PRIOR_WIDTH * (known or 1)
    return [exp((one - best) / width) for one in logs]


def _estimate(totals: Totals, tfs: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """Take the hits themselves for the collection when no node told of its own: rarer terms still weigh more."""
    totals.docs = len(tfs)
    if tfs:
        totals.df = [len(column) - column.count(0) for column in zip(*tfs, strict=True)]
    totals.length_mean = sum(lengths) / len(lengths) if lengths else 0.0
