"""The collections' statistics as one: what nodes tell of all their documents, within what is possible.

A node may lie, so no number is taken beyond what is possible: documents with a term <= documents <= the registered
size, terms in documents <= the collection's length. That bounds a liar but would still let one node make every term
look common; `_believed` therefore lets no node alone raise a document frequency above 2 % of all documents and above
eight times what all others together count.

Node prior: the language-model selection of Si and Callan (2002). Figures: docs/search.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, fsum, log

from antiphon.decide.fusing import NodeReply, Question
from antiphon.messages.wire import WireHit, WireStatistics

K1 = 1.2
B = 0.75
OWN_SHARE = 0.5
"""Weight of a node's own term shares against all nodes' in the node prior; .5 to .8 measured alike (docs/search.md)."""
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
GROWTH = 1.1
"""How many times its own word a node may count for: it may have grown since it joined last, some 30 s ago."""
TITLE_MAX, SNIPPET_MAX = 300, 600
"""Characters of a document's title and snippet that are read as text."""


@dataclass(slots=True)
class Totals:
    """All collections as one, under the question's analyser.

    Attributes:
        docs: documents.
        df: documents that hold each term.
        length_mean: terms a document.
        priors: for each reply, how well its collection fits the question, in (0, 1]; None where no df tells.
        told: for each reply with a prior, in their order, its collection's statistics within what is possible.
    """

    docs: int
    df: list[int]
    length_mean: float
    priors: list[float | None]
    told: list[WireStatistics]

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
class Flags:
    """What was wrong with whom; a flag is said once a node."""

    of: dict[str, dict[str, None]] = field(default_factory=dict[str, dict[str, None]])

    def add(self, node: str, flag: str) -> None:
        """Say what was wrong with a node."""
        self.of.setdefault(node, {})[flag] = None

    def done(self) -> dict[str, tuple[str, ...]]:
        """Return node -> its flags, sorted."""
        return {node: tuple(sorted(flags)) for node, flags in sorted(self.of.items())} if self.of else {}


def standing(question: Question, replies: Sequence[NodeReply]) -> tuple[Totals, dict[str, tuple[str, ...]]]:
    """Return the collections' statistics and priors alone, and what was clamped or ignored in them."""
    flags = Flags()
    found = collect(question, replies, flags)
    return found, flags.done()


def neutral(priors: Sequence[float | None]) -> list[float]:
    """Return priors with the mean of the known ones for the unknown: telling nothing neither helps nor harms."""
    known = [prior for prior in priors if prior is not None]
    if len(known) == len(priors):
        return known
    mean = fsum(known) / len(known) if known else 1.0
    return [mean if prior is None else prior for prior in priors]


def trouble(same: bool, hit: WireHit, size: int) -> str | None:
    """Return why a hit's counts cannot be used, "" if it has none, None if they can."""
    if hit.tf is None:
        return ""
    if not same:
        return "foreign_analyser"
    if len(hit.tf) != size:
        return "counts_malformed"
    # without a length the node has counted in title and snippet, and no term is shorter than a character and a blank
    most = (TITLE_MAX + SNIPPET_MAX) // 2 if hit.length is None else hit.length
    return "counts_impossible" if sum(hit.tf) > most else None


def collect(question: Question, replies: Sequence[NodeReply], flags: Flags) -> Totals:
    """Return the statistics of all collections that were counted under the question's analyser."""
    told = [
        None if reply.found.statistics is None else _possible(question, reply, reply.found.statistics, flags)
        for reply in replies
    ]
    given = [one for one in told if one is not None]
    if not given:
        return Totals(0, [0] * len(question.terms), 0.0, [None] * len(replies), [])
    if len(given) > 1 and None in [reply.docs_max for reply in replies]:
        given = _bounded(told, replies, flags)
    columns = list(zip(*[one.df for one in given], strict=True))
    fits = _priors([one.postings for one in given], columns)
    docs, seen = sum([one.docs for one in given]), columns
    if len(given) == len(replies):
        priors: list[float | None] = [*fits]
    else:
        left = iter(fits)
        priors = [None if one is None else next(left) for one in told]
        shown = [_shown(question, reply) for one, reply in zip(told, replies, strict=True) if one is None]
        docs += sum(len(tfs) for tfs in shown)
        counted = [[len(tfs) - column.count(0) for column in zip(*tfs, strict=True)] for tfs in shown if tfs]
        seen = list(zip(*[one.df for one in given], *counted, strict=True))
    length_mean = _length_mean(given, sum([one.docs for one in given]))
    return Totals(docs, _believed(docs, seen), length_mean, priors, given)


def _shown(question: Question, reply: NodeReply) -> list[list[int]]:
    """Return the counts of the hits of a reply without statistics: they are documents, too, and have been seen.

    An engine that only matches returns most documents with a term, so this is nearly its document frequency; leaving
    it out makes the words of its collection look rare (E2 of benchmarks.quality: .958 without, .972 with).
    """
    if question.analyser is None or reply.found.analyser != question.analyser:
        return []
    return [
        hit.tf for hit in reply.found.hits if hit.tf is not None and trouble(True, hit, len(question.terms)) is None
    ]


def _possible(question: Question, reply: NodeReply, told: WireStatistics, flags: Flags) -> WireStatistics | None:
    """Return a node's statistics within what is possible, or None when they cannot be compared."""
    df, docs, bound = told.df, told.docs, _docs_max(reply)
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


def _docs_max(reply: NodeReply) -> int | None:
    """Return for how many documents a node may count: no more than is registered, and hardly more than it said itself.

    Its own word only lowers the bound. Whoever lies in its answers can lie when it joins, so a size that no operator
    has registered is still held to that of all others together (`_bounded`).
    """
    if reply.docs_told is None:
        return reply.docs_max
    told = max(UNREGISTERED_DOCS_MAX, int(reply.docs_told * GROWTH))
    return told if reply.docs_max is None else min(told, reply.docs_max)


def _clamped(told: WireStatistics, docs: int, node: str, flags: Flags) -> WireStatistics:
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


def _bounded(told: list[WireStatistics | None], replies: Sequence[NodeReply], flags: Flags) -> list[WireStatistics]:
    """Return the statistics, no node of unknown size counting for more documents than all others together."""
    docs = sum([one.docs for one in told if one is not None])
    given: list[WireStatistics] = []
    for one, reply in zip(told, replies, strict=True):
        if one is None:
            continue
        bound = max(UNREGISTERED_DOCS_MAX, docs - one.docs)
        if reply.docs_max is None and one.docs > bound:
            shrunk = [df * bound // one.docs for df in one.df]
            one = WireStatistics(bound, one.total_length * bound // one.docs, shrunk, one.postings * bound // one.docs)  # noqa: PLW2901 - as it counts
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


def estimate(of: Totals, tfs: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    """Take the hits themselves for the collection when no node told of its own: rarer terms still weigh more."""
    of.docs = len(tfs)
    if tfs:
        of.df = [len(column) - column.count(0) for column in zip(*tfs, strict=True)]
    of.length_mean = sum(lengths) / len(lengths) if lengths else 0.0
