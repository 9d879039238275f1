"""The testbeds: collections laid out over nodes of several kinds, and the bound that each must reach."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from antiphon.decide import analyser
from benchmarks.quality.corpus import Collection, Query, load, make_doc
from benchmarks.quality.engines import Index, Kind, Node
from benchmarks.quality.split import SEED, at_random, by_topic, overlapping
from benchmarks.quality.testbed import Asked, Central, everybody

SPLIT = ("scifact", "icecat", "cosqa")
"""Collections large enough to be laid over ten nodes."""
PARTS = 10
ALL = frozenset[str]()
NO_TEXT = frozenset({"snippets"})
_MIXED = (Kind.COUNTS, Kind.NO_DF, Kind.COUNTS, Kind.TEXT, Kind.COUNTS, Kind.STANDING)
_BARE = (Kind.COUNTS, Kind.NO_DF, Kind.COUNTS, Kind.TEXT, Kind.COUNTS, Kind.RANK)


@dataclass(frozen=True, slots=True)
class Setup:
    """One testbed on one collection or on all.

    Attributes:
        name: testbeds of one name are one row of the table, and their mean is what the bound is for.
        nodes: who is asked.
        queries: what is asked.
        central: the baseline.
        bound: the goal for the default method's ratio, or None when it is shown without a goal.
        asked: which nodes answer.
        without: methods that have nothing to work on here.
    """

    name: str
    nodes: Sequence[Node]
    queries: Sequence[Query]
    central: Central
    bound: float | None = None
    asked: Asked = everybody
    without: frozenset[str] = NO_TEXT


def read(folder: Path, queries_max: int) -> list[Collection]:
    """Return all collections of a folder, documents numbered through; raises FileNotFoundError when there is none."""
    collections: list[Collection] = []
    for path in sorted(one.parent for one in folder.glob("*/docs.jsonl.gz")):
        collections.append(load(path, sum(len(one.docs) for one in collections), queries_max))
    if not collections:
        raise FileNotFoundError(f"no folder with docs.jsonl.gz, queries.jsonl and qrels.tsv below {folder}")
    return collections


def setups(collections: Sequence[Collection]) -> Iterator[Setup]:
    """Yield every testbed, indexes built once a layout and dropped when the next layout begins."""
    for collection in collections:
        if collection.name in SPLIT:
            yield from _one_collection(collection)
    yield from _all_collections(collections)
    for collection in collections:
        if collection.name == SPLIT[0]:
            yield from _without_spaces(collection)


def _one_collection(one: Collection) -> Iterator[Setup]:
    central = Central(Index(one.docs))
    random_parts = [Index(part) for part in at_random(one.docs, PARTS)]
    topics = [Index(part) for part in by_topic(one.docs, PARTS)]
    shared = [Index(part) for part in overlapping(one.docs, PARTS, 0.25)]

    def setup(name: str, indexes: Sequence[Index], kinds: Sequence[Kind], bound: float | None = None) -> Setup:
        without = ALL if set(kinds) <= {Kind.TEXT, Kind.TEXT_DF} else NO_TEXT
        return Setup(name, lay_out(indexes, kinds), one.queries, central, bound, without=without)

    yield setup("A-random: BM25 nodes", random_parts, [Kind.COUNTS])
    yield setup("A-topic: BM25 nodes", topics, [Kind.COUNTS], 0.99)
    yield setup("A-topic: snippets only, df known", topics, [Kind.TEXT_DF], 0.93)
    yield setup("A-topic: snippets only, nothing known", topics, [Kind.TEXT])
    yield setup("A-topic: ranks only, df known", topics, [Kind.STANDING], 0.85)
    yield setup("A-topic: a third LIKE", topics, [Kind.COUNTS, Kind.COUNTS, Kind.LIKE])
    yield setup("A-topic: a third foreign analyser", topics, [Kind.COUNTS, Kind.COUNTS, Kind.FOREIGN], 0.95)
    yield setup("A-topic: a third without df", topics, [Kind.COUNTS, Kind.COUNTS, Kind.NO_DF], 0.95)
    for kind in (Kind.LIAR_DF, Kind.LIAR_TF, Kind.LIAR_BOTH):
        yield setup(f"A-random: one node {kind}", random_parts, [kind, *[Kind.COUNTS] * (PARTS - 1)])
    silent = setup("A-random: one of ten silent", random_parts, [Kind.COUNTS], 0.88)
    yield Setup(silent.name, silent.nodes, one.queries, central, silent.bound, one_silent)
    yield setup("A-random: 25 % duplicates", shared, [Kind.COUNTS], 0.99)


def _all_collections(collections: Sequence[Collection]) -> Iterator[Setup]:
    central = Central(Index([doc for one in collections for doc in one.docs]))
    queries = [query for one in collections for query in one.queries]
    whole = [Index(one.docs) for one in collections]
    halves = [Index(part) for one in collections for part in at_random(one.docs, 2)]

    def setup(name: str, indexes: Sequence[Index], kinds: Sequence[Kind], bound: float | None = None) -> Setup:
        without = ALL if set(kinds) <= {Kind.TEXT, Kind.TEXT_DF} else NO_TEXT
        return Setup(name, lay_out(indexes, kinds), queries, central, bound, without=without)

    yield setup("B: BM25 nodes", whole, [Kind.COUNTS], 1.03)
    yield setup("B: snippets only, df known", whole, [Kind.TEXT_DF])
    yield setup("B: snippets only, nothing known", whole, [Kind.TEXT])
    yield setup("B: ranks only, df known", whole, [Kind.STANDING])
    like = (*_MIXED[:4], Kind.LIKE, Kind.LIKE)
    for turn in range(0, len(_MIXED), 2):
        yield setup("E: mixed engines", whole, _MIXED[turn:] + _MIXED[:turn], 0.98)
        yield setup("E2: mixed, a third LIKE", whole, like[turn:] + like[:turn], 0.97)
    yield setup("E: halves, mixed engines", halves, shuffled(_MIXED))
    yield setup("E: halves, ranks without df", halves, shuffled(_BARE))
    yield setup("E2: halves, a third LIKE", halves, shuffled(like))
    yield setup("E: a third foreign analyser", halves, shuffled([Kind.COUNTS, Kind.COUNTS, Kind.FOREIGN]), 0.95)
    yield setup("E: a third without df", halves, shuffled([Kind.COUNTS, Kind.COUNTS, Kind.NO_DF]), 0.95)


def _without_spaces(one: Collection) -> Iterator[Setup]:
    """Write a collection in invented Han words without spaces, so that a pair of characters is all there is."""
    relevant = {number for query in one.queries for number in query.judged}
    some = [doc for at, doc in enumerate(one.docs) if at % 4 == 0 or doc.number in relevant]
    docs = [make_doc(doc.number, "", transliterated(f"{doc.title} {doc.text}")) for doc in some]
    asks = analyser.default().question
    queries = [Query(text, asks(text), query.judged) for query in one.queries for text in [transliterated(query.text)]]
    indexes = [Index(part) for part in at_random(docs, PARTS)]
    yield Setup("A-random: no spaces (synthetic)", lay_out(indexes, [Kind.COUNTS]), queries, Central(Index(docs)), 0.99)


def transliterated(text: str) -> str:
    """Return each word as one to three Han characters by its stem, with no space between, a stop after twenty."""
    words = [_han(term) for term in analyser.default().tokens(text)]
    return "。".join("".join(words[at : at + 20]) for at in range(0, len(words), 20))


@cache
def _han(term: str) -> str:
    dice = random.Random(term)
    return "".join(chr(0x4E00 + int(dice.paretovariate(0.4)) % 3_000) for _ in range(min(3, (len(term) + 2) // 3)))


def lay_out(indexes: Sequence[Index], kinds: Sequence[Kind]) -> list[Node]:
    """Return a node for each index, of the kinds in turn."""
    return [Node(f"node{at:02}", index, kinds[at % len(kinds)]) for at, index in enumerate(indexes)]


def shuffled(kinds: Sequence[Kind]) -> list[Kind]:
    """Return kinds for twelve nodes, so that no kind meets always the same collections."""
    turns = list(kinds) * (2 * 6 // len(kinds))
    random.Random(SEED).shuffle(turns)
    return turns


def one_silent(nodes: Sequence[Node], number: int) -> Sequence[Node]:
    """Ask all nodes but one, another one each time."""
    return [node for at, node in enumerate(nodes) if at != number % len(nodes)]
