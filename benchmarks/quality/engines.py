"""Nodes of the testbeds: what an engine finds in its own documents, and how much it tells of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cached_property
from heapq import nsmallest
from math import log

import msgspec

from antiphon.decide import analyser
from antiphon.decide.fusing import NodeReply
from antiphon.decide.totals import K1, B
from antiphon.messages.wire import WireFound, WireHit, WireStatistics
from benchmarks.quality.corpus import Doc, Query

HITS = 20
DEPTH = 100
_NOTHING = msgspec.Raw(b"{}")
_FOREIGN = "xx-1"
_snippets: dict[tuple[int, str], msgspec.Raw] = {}


class Kind(StrEnum):
    """What a node gives."""

    COUNTS = "counts"
    NO_DF = "counts without df"
    FOREIGN = "foreign analyser"
    TEXT = "title and snippet"
    TEXT_DF = "title and snippet, and df"
    STANDING = "rank and df"
    RANK = "rank only"
    LIKE = "LIKE"
    LIAR_DF = "lies about df"
    LIAR_TF = "lies about tf, impossibly"
    LIAR_BOTH = "lies about all, possibly"


class Index:
    """BM25 over some documents with their own statistics: a node's engine, or the central index."""

    def __init__(self, docs: Sequence[Doc]) -> None:
        self.docs = {doc.number: doc for doc in docs}
        self.total_length = sum(doc.length for doc in docs)
        self.postings: dict[str, list[tuple[int, int, int]]] = {}
        for doc in docs:
            for term, tf in doc.tf.items():
                self.postings.setdefault(term, []).append((doc.number, tf, doc.length))
        self.pairs = sum(map(len, self.postings.values()))

    def search(self, terms: Sequence[str], limit: int) -> list[tuple[int, float]]:
        """Return (document, score), best first, ties by number."""
        scores: dict[int, float] = {}
        base, slope = K1 * (1 - B), K1 * B * len(self.docs) / (self.total_length or 1)
        for term in terms:
            found = self.postings.get(term, ())
            weight = (K1 + 1) * log(1 + (len(self.docs) - len(found) + 0.5) / (len(found) + 0.5))
            for number, tf, length in found:
                scores[number] = scores.get(number, 0.0) + weight * tf / (tf + base + slope * length)
        return nsmallest(limit, scores.items(), key=lambda pair: (-pair[1], pair[0]))

    def like(self, text: str, limit: int) -> list[tuple[int, float]]:
        """Return what `WHERE text LIKE '%word%' OR ...` finds, by the number of words that match, then as stored."""
        words = set(re.findall(r"\w+", text.lower())) - analyser.STOP_WORDS
        matched: dict[int, int] = {}
        for word in words:
            for number in self._holding(word):
                matched[number] = matched.get(number, 0) + 1
        return [(n, float(c)) for n, c in nsmallest(limit, matched.items(), key=lambda pair: (-pair[1], pair[0]))]

    def statistics(self, terms: Sequence[str]) -> WireStatistics:
        """Return the whole collection's statistics for these terms."""
        df = [len(self.postings.get(term, ())) for term in terms]
        return WireStatistics(len(self.docs), self.total_length, df, self.pairs)

    @cached_property
    def _vocabulary(self) -> tuple[str, dict[str, set[int]]]:
        words: dict[str, set[int]] = {}
        for doc in self.docs.values():
            for word in set(re.findall(r"\w+", f"{doc.title} {doc.text}".lower())):
                words.setdefault(word, set()).add(doc.number)
        return "\n".join(["", *words, ""]), words

    def _holding(self, word: str) -> set[int]:
        """Return the documents with a word that contains this one."""
        text, words = self._vocabulary
        found: set[int] = set()
        at = text.find(word)
        while at >= 0:
            start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
            found |= words[text[start:end]]
            at = text.find(word, end)
        return found


class Node:
    """One node: an index and what it tells of it."""

    def __init__(self, name: str, index: Index, kind: Kind = Kind.COUNTS) -> None:
        self.name, self.index, self.kind = name, index, kind

    def ask(self, query: Query) -> NodeReply:
        """Return this node's reply to a question."""
        kind, index = self.kind, self.index
        found = index.like(query.text, DEPTH) if kind is Kind.LIKE else index.search(query.terms, HITS)
        read = kind in {Kind.TEXT, Kind.TEXT_DF, Kind.FOREIGN, Kind.LIAR_TF}
        hits = [self._hit(query, index.docs[number], score, read=read) for number, score in found]
        told = index.statistics(query.terms)
        statistics = _TOLD.get(kind, lambda _: None)(told)
        id_of_analyser = _FOREIGN if kind is Kind.FOREIGN else analyser.default().id
        return NodeReply(self.name, WireFound(analyser=id_of_analyser, statistics=statistics, hits=hits), told.docs)

    def _hit(self, query: Query, doc: Doc, score: float, *, read: bool) -> WireHit:
        shown = _shown(doc, query) if read else _NOTHING
        tf: list[int] | None = [doc.tf.get(term, 0) for term in query.terms]
        length: int | None = doc.length
        if self.kind is Kind.LIAR_TF:
            tf = [1_000_000] * len(query.terms)
        elif self.kind is Kind.LIAR_BOTH:
            tf = [doc.length // (len(query.terms) or 1)] * len(query.terms)
        elif self.kind in {Kind.TEXT, Kind.TEXT_DF, Kind.RANK, Kind.STANDING}:
            tf = length = None
        return WireHit(id=str(doc.number), doc=shown, score=score, tf=tf, length=length, hash=doc.hash)


def _as_is(told: WireStatistics) -> WireStatistics:
    return told


def _inflated(told: WireStatistics) -> WireStatistics:
    """Return the statistics of a node that claims to hold every term in every document, ten times over."""
    return WireStatistics(told.docs * 10, told.total_length * 10, [told.docs * 10] * len(told.df), told.postings * 10)


_TOLD: dict[Kind, Callable[[WireStatistics], WireStatistics]] = {
    Kind.COUNTS: _as_is,
    Kind.FOREIGN: _as_is,
    Kind.STANDING: _as_is,
    Kind.TEXT_DF: _as_is,
    Kind.LIAR_TF: _as_is,
    Kind.LIAR_DF: _inflated,
    Kind.LIAR_BOTH: _inflated,
}


def _shown(doc: Doc, query: Query) -> msgspec.Raw:
    """Return what people would see of a document: its title and 240 characters round the best matches."""
    key = (doc.number, query.text)
    if key not in _snippets:
        shown = {"title": doc.title[:300], "snippet": analyser.default().snippet(doc.text, query.terms)}
        _snippets[key] = msgspec.Raw(msgspec.json.encode(shown))
    return _snippets[key]
