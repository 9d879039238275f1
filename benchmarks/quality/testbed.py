"""One testbed: nodes and questions; every fusion method against the central index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from antiphon.decide import analyser
from antiphon.decide.dedupe import dedupe
from antiphon.decide.fuse import DEFAULT, methods
from antiphon.decide.fusing import NodeReply, Question
from benchmarks.quality.corpus import DEEP, TOP, Query, ndcg, recall
from benchmarks.quality.engines import Index, Node

Asked = Callable[[Sequence[Node], int], Sequence[Node]]
"""Which nodes answer the question of that number."""


@dataclass(slots=True)
class Ratios:
    """What one testbed measured.

    Attributes:
        ratio: nDCG@10 of each method divided by the central index's.
        recalled: recall@100 of the default method divided by the central index's.
        central: the central index's own nDCG@10.
        copies: documents that stand in the top 10 a second time, a question, under the default method.
    """

    ratio: dict[str, float]
    recalled: float
    central: float
    copies: float


@dataclass(slots=True)
class Central:
    """The baseline's rankings, kept because several testbeds share them."""

    index: Index
    _kept: dict[tuple[str, ...], list[int]] = field(default_factory=dict[tuple[str, ...], list[int]])

    def ranked(self, query: Query) -> list[int]:
        """Return the first 100 documents of one index over all documents."""
        if query.terms not in self._kept:
            self._kept[query.terms] = [number for number, _ in self.index.search(query.terms, DEEP)]
        return self._kept[query.terms]


def everybody(nodes: Sequence[Node], number: int) -> Sequence[Node]:
    """Ask all nodes."""
    del number
    return nodes


def measure(
    nodes: Sequence[Node],
    queries: Sequence[Query],
    central: Central,
    asked: Asked = everybody,
    without: frozenset[str] = frozenset({"snippets"}),
) -> Ratios:
    """Ask all questions and fuse by every method but those in `without`, which cannot work on this testbed."""
    names = [name for name in methods() if name not in without]
    sums, best, deep, best_deep, copies = dict.fromkeys(names, 0.0), 0.0, 0.0, 0.0, 0
    for number, query in enumerate(queries):
        replies = [node.ask(query) for node in asked(nodes, number)]
        baseline = central.ranked(query)
        best += ndcg(baseline, query.judged)
        best_deep += recall(baseline, query.judged)
        for name in names:
            ranked = fused(name, query, replies)
            sums[name] += ndcg(dict.fromkeys(ranked), query.judged)
            if name == DEFAULT:
                deep += recall(ranked, query.judged)
                copies += len(ranked[:TOP]) - len(set(ranked[:TOP]))
    ratio = {name: total / best for name, total in sums.items()}
    return Ratios(ratio, deep / best_deep, best / len(queries), copies / len(queries))


def fused(name: str, query: Query, replies: Sequence[NodeReply]) -> list[int]:
    """Return the documents of one fused and deduplicated list."""
    question = Question(query.text, query.terms, analyser.default().id)
    scored = methods()[name].fuse(question, replies).scored
    return [int(replies[reply].found.hits[hit].id) for _, reply, hit in dedupe(scored, replies).scored]
