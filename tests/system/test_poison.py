"""One poisoned query among a hundred in flight: the other ninety-nine are answered, and everything lives on."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from antiphon import Hit, SearchAnswer
from antiphon.decide import fuse
from antiphon.decide.fuse import rrf
from antiphon.decide.fusing import Fusing, Fusion, NodeReply, Question
from antiphon.errors import AntiphonError, Internal
from antiphon.messages.facts import SearchFinished
from fabrics import until
from fleet import Fleet, found


@pytest.fixture
def poisonous() -> Iterator[str]:
    """A fusion method that has a bug with one question, in the catalogue for one test."""

    def buggy(question: Question, replies: Sequence[NodeReply]) -> Fusing:
        if "poison" in question.text:
            raise LookupError("a bug in the master's own conversation")
        return rrf.fuse(question, replies)

    fuse.methods()["buggy"] = Fusion("buggy", "Has a bug.", buggy, keeps_node_order=False)
    yield "buggy"
    del fuse.methods()["buggy"]


class Gate:
    """A handler that answers nobody before all questions are in flight."""

    def __init__(self, count: int, poison: str | None) -> None:
        self.count = count
        self.poison = poison
        self.waiting = 0
        self.opened = asyncio.Event()

    async def __call__(self, query: Any) -> list[Hit]:
        self.waiting += 1
        if self.waiting == self.count:
            self.opened.set()
        await self.opened.wait()
        if query.text == self.poison:
            raise LookupError("a bug in a node's handler")
        return [Hit(id=query.text, title=f"whale {query.text}")]


async def flood(fleet: Fleet, **more: Any) -> dict[str, SearchAnswer | AntiphonError]:
    client = await fleet.client()
    queries = ["poison" if at == 41 else f"question {at}" for at in range(100)]
    asked = [client.search(query, deadline_ms=30_000, **more) for query in queries]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    found: dict[str, SearchAnswer | AntiphonError] = {}
    for query, outcome in zip(queries, outcomes, strict=True):
        assert isinstance(outcome, SearchAnswer | AntiphonError), outcome
        found[query] = outcome
    return found


async def test_a_poisoned_handler_fails_one_node_of_one_question(fleet: Fleet) -> None:
    role = await fleet.master()
    gate = Gate(100, "poison")

    async def through(query: Any) -> list[Hit]:
        return await gate(query)

    await fleet.node("blog", through)
    await fleet.node("shop", found("whale watch"))
    outcomes = await flood(fleet)
    for query, answer in outcomes.items():
        assert isinstance(answer, SearchAnswer)
        lines = {line.node: (line.outcome.value, line.code) for line in answer.nodes}
        blog = ("failed", "handler_failed") if query == "poison" else ("answered", None)
        assert lines == {"blog": blog, "shop": ("answered", None)}
        titles = {hit.title for hit in answer.hits}
        assert titles == {"whale watch"} | ({f"whale {query}"} if query != "poison" else set())
    assert role.supervisor.children[0] is not None
    assert (await (await fleet.client("later")).search("question 7")).complete


def exits(_query: Any) -> list[Hit]:
    sys.exit(3)


async def exits_in_the_loop(_query: Any) -> list[Hit]:
    sys.exit(3)


def looks_at_nothing(_query: Any) -> list[Hit]:
    return [next(iter(()))]


async def raises_what_nobody_catches(_query: Any) -> list[Hit]:
    raise BaseExceptionGroup("what nobody catches", [SystemExit()])


@pytest.mark.parametrize("handler", [exits, exits_in_the_loop, looks_at_nothing, raises_what_nobody_catches])
async def test_what_a_handler_raises_fails_the_node_at_once_and_ends_no_process(fleet: Fleet, handler: Any) -> None:
    await fleet.master()
    await fleet.node("blog", handler)
    answer = await (await fleet.client()).search("whale", deadline_ms=30_000)
    assert [(line.node, line.outcome.value, line.code) for line in answer.nodes] == [
        ("blog", "failed", "handler_failed")
    ]
    assert answer.took_us < 15_000_000


async def test_what_a_plain_handler_yields_is_read_in_its_thread_and_within_a_bound(fleet: Fleet) -> None:
    await fleet.master()
    threads: set[int] = set()

    def whales(_query: Any) -> Iterator[Hit]:
        for at in count():
            threads.add(threading.get_ident())
            yield Hit(id=str(at), title=f"whale {at}")

    await fleet.node("blog", whales)
    answer = await (await fleet.client()).search("whale", deadline_ms=30_000)
    assert [(line.node, line.outcome.value, line.hits) for line in answer.nodes] == [("blog", "answered", 1_000)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_poisoned_conversation_of_the_master_ends_alone(fleet: Fleet, poisonous: str) -> None:
    finished = await fleet.heard(SearchFinished)
    role = await fleet.master()
    children = role.supervisor.children
    gate = Gate(100, None)

    async def through(query: Any) -> list[Hit]:
        return await gate(query)

    await fleet.node("blog", through)
    outcomes = await flood(fleet, fusion=poisonous)
    kinds = Counter(type(outcome) for outcome in outcomes.values())
    assert kinds == {SearchAnswer: 99, Internal: 1}
    refused = outcomes["poison"]
    assert isinstance(refused, Internal)
    assert "LookupError" not in refused.text, "a bug's details stay in the log"
    for query, answer in outcomes.items():
        if isinstance(answer, SearchAnswer):
            assert [hit.title for hit in answer.hits] == [f"whale {query}"]
    assert role.supervisor.children == children, "nothing was restarted"
    client = await fleet.client("later")
    assert (await client.search("question 7", fusion=poisonous)).complete
    with pytest.raises(Internal):
        await client.search("poison", fusion=poisonous)
    assert (await client.search("poison")).complete, "by another method it is a question like any other"
    await until(lambda: len(finished) >= 99)
