"""One master's book of the fleet: compartments and counts come back to zero, and nobody who waits is forgotten."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from antiphon.decide.breakers import BreakerView, Shut
from antiphon.decide.bulkhead import BulkheadBounds
from antiphon.decide.dispatch import Dispatch, DispatchBounds, NodeBook
from antiphon.decide.ending import Ending
from antiphon.decide.failures import Key
from antiphon.decide.gather import Expected
from antiphon.decide.registry import NodeView, RegistryView
from antiphon.errors import UnknownMethod

BLOG = NodeView("blog", frozenset({"search"}), (), ("a", "b"), instances=("a", "b"), weights={"a": 100, "b": 100})
SHOP = replace(BLOG, node="shop")


def registry(*nodes: NodeView) -> RegistryView:
    return RegistryView({node.node: node for node in nodes}, nodes)


class Judges:
    """Breakers that are what the test says."""

    def __init__(self) -> None:
        self.view = BreakerView()
        self.told: list[tuple[Key, Ending]] = []

    def ended(self, key: Key, ending: Ending, began_ms: int, now_ms: int) -> None:
        self.told.append((key, ending))

    def probed(self, key: Key, ending: Ending) -> None:
        self.told.append((key, ending))


class Asker:
    """A search, as dispatch knows it."""

    def __init__(self) -> None:
        self.admissions: list[int] = []

    def admitted(self, at: int) -> None:
        self.admissions.append(at)


class Book:
    """A dispatch with room for two requests and one that waits."""

    def __init__(self) -> None:
        self.judges = Judges()
        bounds = DispatchBounds(bulkhead=BulkheadBounds(in_flight_max=2, queue_max=1))
        self.dispatch = Dispatch(bounds, self.judges, Random(1))

    def ask(self, *nodes: NodeView, asker: Asker | None = None, balancer: str | None = None) -> list[Expected]:
        view = registry(*nodes)
        waiter = asker or Asker()
        return self.dispatch.expect(view, nodes, waiter, left_ms=1_000, now_ms=0, balancer=balancer)

    def of(self, node: str) -> NodeBook:
        book = self.dispatch.book(node)
        assert book is not None
        return book


def test_a_full_compartment_makes_the_next_wait_and_the_one_after_skip_it() -> None:
    book, waiting = Book(), Asker()
    assert [book.ask(BLOG)[0].is_waiting for _ in range(2)] == [False, False]
    (queued,) = book.ask(BLOG, asker=waiting)
    assert queued.is_waiting
    (refused,) = book.ask(BLOG)
    assert (refused.instances, refused.code) == ((), "overloaded")
    book.dispatch.left("blog", 10)
    assert waiting.admissions == [0]
    for _ in range(2):
        book.dispatch.left("blog", 10)
    assert (book.of("blog").bulkhead.in_flight, book.of("blog").bulkhead.waiting) == (0, 0)


def test_a_node_whose_breakers_are_open_takes_no_room_even_when_it_is_full() -> None:
    book, waiting = Book(), Asker()
    book.ask(BLOG)
    book.ask(BLOG)
    book.judges.view = BreakerView({("blog", "search"): Shut(("a", "b"))})
    (skipped,) = book.ask(BLOG, asker=waiting)
    assert (skipped.code, skipped.is_waiting) == ("open", False)
    assert (book.of("blog").bulkhead.in_flight, book.of("blog").bulkhead.waiting) == (2, 0)
    for _ in range(2):
        book.dispatch.left("blog", 10)
    assert waiting.admissions == [], "it was told that it is skipped"
    assert book.of("blog").bulkhead.in_flight == 0


def test_a_question_with_a_balancer_that_is_none_enters_nothing() -> None:
    book = Book()
    for _ in range(5):
        with pytest.raises(UnknownMethod, match="peak_ewma"):
            book.ask(BLOG, SHOP, balancer="magic")
    assert book.dispatch.book("blog") is None
    assert book.ask(BLOG, SHOP, balancer="random")[0].instances


def test_a_card_with_a_balancer_that_is_none_harms_no_search() -> None:
    book = Book()
    one, other = book.ask(BLOG, replace(SHOP, balancer="of-a-newer-master"))
    assert sorted(one.instances) == sorted(other.instances) == ["a", "b"]


def test_whoever_waits_for_a_node_that_leaves_and_comes_back_is_not_forgotten() -> None:
    book, waiting = Book(), Asker()
    book.ask(BLOG)
    book.ask(BLOG)
    book.ask(BLOG, asker=waiting)
    book.ask(SHOP)  # a registry without the blog
    book.ask(replace(BLOG, topics=("back",)), SHOP)
    book.dispatch.left("blog", 10)
    assert waiting.admissions == [0]
    assert book.of("blog").bulkhead.in_flight == 2


def test_who_loses_to_its_hedge_is_known_to_be_slow() -> None:
    book = Book()
    book.ask(BLOG)
    for at, (took_us, is_answered) in enumerate([(20_000, True), (60_000, False), (10_000, False)]):
        leg = book.dispatch.started("blog", "a", 0, at, is_probe=False)
        if is_answered:
            book.dispatch.ended(leg, None, took_us, at)
        else:
            book.dispatch.abandoned(leg, took_us, at)
    assert 20_000 < book.of("blog").loads["a"].latency_us < 60_000, "a longer wait raises it, a shorter one does not"


def test_who_was_left_at_once_is_not_known_to_be_fast() -> None:
    book = Book()
    book.ask(BLOG)
    book.dispatch.abandoned(book.dispatch.started("blog", "a", 0, 0, is_probe=False), 300, 0)
    assert book.of("blog").loads["a"].latency_us == 0


def test_a_request_ends_once_and_teaches_once() -> None:
    book = Book()
    (asked,) = book.ask(BLOG)
    leg = book.dispatch.started("blog", asked.instances[0], 0, 0, is_probe=False)
    assert book.of("blog").loads[leg.instance].in_flight == 1
    for _ in range(2):
        book.dispatch.ended(leg, None, 5_000, 5)
        book.dispatch.abandoned(leg, 5_000, 5)
    assert book.of("blog").loads[leg.instance].in_flight == 0
    assert book.judges.told == [(("blog", leg.instance, "search"), Ending.SUCCEEDED)]
