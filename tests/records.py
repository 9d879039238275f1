"""What tests of the record share: facts of every kind, messages of the stream, a store that is written into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from antiphon.decide.reading import Position
from antiphon.decide.record_batch import Taken
from antiphon.decide.record_rows import Hide, as_is
from antiphon.messages.base import Message
from antiphon.messages.facts import SearchFinished
from antiphon.messages.records import FACTS
from antiphon.messages.search import Coverage, NodeLine, Outcome
from antiphon.stats.store import Store

NOW_MS = 1_790_000_000_000
"""2026-09-21 14:13:20 UTC."""
SUBJECT = "antiphon.v1.record.facts.master-1"


def searched(
    number: int, *, caller: str = "web", query: str = "outage", at_ms: int = NOW_MS, nodes: int = 3
) -> SearchFinished:
    """A search that some nodes have answered, each a little slower than the one before."""
    lines = tuple(
        NodeLine(node=f"n{at}", instance="a", outcome=Outcome.ANSWERED, hits=5, took_us=1_000 * (at + 1))
        for at in range(nodes)
    )
    return SearchFinished(
        request=f"r{number}",
        caller=caller,
        query=query,
        at_ms=at_ms,
        took_us=1_000 * (nodes + 1),
        hits=5,
        total=5 * nodes,
        complete=True,
        sufficient=True,
        coverage=Coverage(expected=nodes, answered=nodes),
        nodes=lines,
        contributed={"n0": 3, "n1": 2},
    )


def message(sequence: int, *facts: Message | tuple[str, bytes], at_ms: int = NOW_MS) -> Taken:
    """A message of the stream of facts; a pair is a kind and bytes that may be anything."""
    pairs = [one if isinstance(one, tuple) else (type(one).__name__, one.model_dump_json().encode()) for one in facts]
    inside = b",".join(b'{"kind":"%s","fact":%s}' % (kind.encode(), data) for kind, data in pairs)
    return Taken(SUBJECT, sequence, b'{"session":"s","number":1,"facts":[' + inside + b"]}", at_ms)


def store_in(folder: Path, hide: Hide = as_is) -> Store:
    """An open store that has read nothing yet."""
    store = Store(folder, "antiphon", hide)
    store.open(NOW_MS)
    if FACTS not in store.positions:
        store.begin(FACTS, Position(7, 0), None, NOW_MS)
    return store


def write(store: Store, *messages: Taken) -> tuple[int, int]:
    """Write messages of the stream of facts."""
    return store.write(FACTS, 7, messages, NOW_MS)


def rows(store: Store, query: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
    """What a statement finds."""
    return store.execute(query, list(values))
