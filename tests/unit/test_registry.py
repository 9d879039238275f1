"""The laws of the registry's picture: who is heard is there, who is silent goes down, who left stays away."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from antiphon.decide.registry import (
    Patience,
    State,
    deaf,
    entry,
    heard,
    listing,
    pinged,
    refreshed,
    removed,
    ticked,
    view,
    written,
)
from antiphon.messages.card import NodeCard, Wish
from antiphon.messages.lane import Load
from antiphon.messages.registry import NodeRecord, Status

PATIENCE = Patience(heartbeat_ms=1_000, misses_max=3, forget_ms=60_000)
KEYS = st.tuples(st.sampled_from(["blog", "shop"]), st.sampled_from(["a", "b", "c"]))


def record(node: str, instance: str, **more: Any) -> NodeRecord:
    return NodeRecord.model_validate({"node": node, "instance": instance, "capabilities": ["search"], **more})


def joined(*keys: tuple[str, str], now_ms: int = 0) -> State:
    state: State = {}
    for key in keys:
        state, _ = written(state, record(*key), now_ms)
    return state


def test_three_misses_mark_down_and_not_a_millisecond_before() -> None:
    state = joined(("blog", "a"))
    state, changes = ticked(state, 2_999, PATIENCE)
    assert changes == []
    assert view(state, {}).nodes["blog"].active == ("a",)
    state, changes = ticked(state, 3_000, PATIENCE)
    assert changes == [("blog", "a", "down")]
    assert view(state, {}).nodes["blog"].active == ()
    assert [node.node for node in view(state, {}).searchable] == ["blog"], "what is down is still expected"
    assert ticked(state, 3_001, PATIENCE)[1] == [], "down is told once"


def test_a_heartbeat_brings_it_back_and_carries_the_load() -> None:
    state, _ = ticked(joined(("blog", "a")), 5_000, PATIENCE)
    state, changes = heard(state, ("blog", "a"), 5_100, Load(in_flight=3, latency_us=70))
    assert changes == [("blog", "a", "recovered")]
    assert view(state, {}).nodes["blog"].active == ("a",)
    (entry,) = listing(state, {}, 5_150)
    assert (entry.instances[0].heard_ms_ago, entry.instances[0].in_flight) == (50, 3)
    state, changes = heard(state, ("blog", "a"), 5_200)
    assert changes == []
    assert state["blog", "a"].load.in_flight == 3, "a sign of life without a load keeps the last one"


def test_what_was_only_read_of_is_asked_and_not_called_heard() -> None:
    state = joined(("blog", "a"))
    assert view(state, {}).nodes["blog"].active == ("a",), "a master that starts asks whom it has read of"
    [before] = listing(state, {}, 500)
    assert before.instances[0].heard_ms_ago is None
    state, _ = heard(state, ("blog", "a"), 600)
    [after] = listing(state, {}, 700)
    assert after.instances[0].heard_ms_ago == 100


def test_what_another_master_has_written_anew_is_no_sign_of_life() -> None:
    state, _ = ticked(joined(("blog", "a")), 5_000, PATIENCE)
    state, changes = written(state, record("blog", "a", version="2"), 5_100)
    assert changes == [("blog", "a", "updated")]
    assert view(state, {}).nodes["blog"].active == ()
    assert heard(state, ("blog", "a"), 5_200)[1] == [("blog", "a", "recovered")]


def test_a_sign_of_life_copies_nothing() -> None:
    state = joined(("blog", "a"))
    assert heard(state, ("blog", "a"), 1)[0] is state
    assert pinged(state, ("blog", "a"), 1, 2)[0] is state


def test_silence_is_forgotten_at_last() -> None:
    state, _ = ticked(joined(("blog", "a")), 59_999, PATIENCE)
    state, changes = ticked(state, 60_000, PATIENCE)
    assert changes == [("blog", "a", "forgotten")]
    assert state == {}
    assert heard(state, ("blog", "a"), 60_001) == ({}, []), "a heartbeat of the forgotten is nobody's"


def test_what_could_not_be_heard_is_no_silence() -> None:
    state = deaf(joined(("blog", "a")), 59_000, 59_000)
    assert ticked(state, 59_000 + 2_999, PATIENCE)[1] == []
    assert ticked(state, 59_000 + 3_000, PATIENCE)[1] == [("blog", "a", "down")]
    assert deaf(state, 10_000, 60_000)["blog", "a"].heard_at_ms == 60_000, "and nobody is heard in the future"


def test_the_newest_record_speaks_for_the_node() -> None:
    state, _ = written({}, record("blog", "a", topics=["old"], joined_at_ms=5), 0)
    state, _ = written(state, record("blog", "b", topics=["new"], joined_at_ms=9), 0)
    assert view(state, {}).nodes["blog"].topics == ("new",)
    (entry,) = listing(state, {}, 0)
    assert (entry.topics, [line.instance for line in entry.instances]) == (("new",), ["a", "b"])


def test_a_node_without_the_capability_is_known_and_not_asked() -> None:
    state, _ = written({}, record("blog", "a", capabilities=[]), 0)
    assert list(view(state, {}).nodes) == ["blog"]
    assert view(state, {}).searchable == ()


def card(node: str = "blog", **fields: Any) -> NodeCard:
    return NodeCard.model_validate({"node": node, **fields})


def test_a_registered_node_is_expected_before_it_comes_and_after_it_went() -> None:
    cards = {"blog": card(topics=["news"])}
    shown = view({}, cards).nodes["blog"]
    assert (shown.active, shown.instances, shown.status) == ((), (), Status.DOWN)
    assert [node.node for node in view({}, cards).searchable] == ["blog"]
    state = joined(("blog", "a"))
    assert view(state, cards).nodes["blog"].status is Status.ACTIVE
    state, _ = removed(state, ("blog", "a"))
    assert view(state, cards).nodes["blog"] == shown
    found = entry({}, cards, "blog", 0)
    assert found is not None
    assert (found.status, found.topics, found.instances, found.card) == (Status.DOWN, ("news",), (), cards["blog"])
    assert entry({}, cards, "shop", 0) is None


def test_a_registered_node_that_only_acts_is_not_expected_to_search() -> None:
    assert view({}, {"blog": card(capabilities=["act"])}).searchable == ()


@pytest.mark.parametrize("wish", [Wish.DRAINING, Wish.SUSPENDED])
def test_a_node_that_is_not_to_be_asked_stays_expected_and_alive(wish: Wish) -> None:
    state = joined(("blog", "a"), ("blog", "b"))
    shown = view(state, {"blog": card(status=wish)})
    node = shown.nodes["blog"]
    assert (node.active, node.alive, node.status) == ((), ("a", "b"), Status(wish))
    assert shown.searchable == (node,)
    silent, _ = ticked(state, 5_000, PATIENCE)
    assert view(silent, {"blog": card(status=wish)}).nodes["blog"].status is Status(wish), "the wish is the code"
    assert {line.status for line in listing(silent, {"blog": card(status=wish)}, 5_000)[0].instances} == {Status.DOWN}
    assert view(state, {"blog": card()}).nodes["blog"].active == ("a", "b"), "resumed, it is asked as before"


def test_weights_limits_and_balancer_are_what_operators_set() -> None:
    state, _ = written({}, record("blog", "a", weight=10), 0)
    state, _ = written(state, record("blog", "b"), 0)
    plain = view(state, {}).nodes["blog"]
    assert plain.weights == {"a": 10, "b": 100}
    assert (plain.balancer, plain.max_parallel_requests, plain.rate_per_minute) == (None, None, None)
    assert view(state, {"blog": card()}).nodes["blog"] == plain, "an empty card changes nothing"
    set_by_us = card(weight=7, balancer="prequal", max_parallel_requests=3, rate_per_minute=60, metadata={"k": "v"})
    node = view(state, {"blog": set_by_us}).nodes["blog"]
    assert node.weights == {"a": 7, "b": 7}
    assert (node.balancer, node.max_parallel_requests, node.rate_per_minute) == ("prequal", 3, 60)
    assert node.metadata == {"k": "v"}


def test_how_many_documents_is_the_most_that_an_instance_tells_and_what_operators_set_stands_beside_it() -> None:
    state, _ = written({}, record("blog", "a", documents=10), 0)
    state, _ = written(state, record("blog", "b", documents=30), 0)
    state, _ = written(state, record("blog", "c", joined_at_ms=9), 0)
    state, _ = written(state, record("shop", "a"), 0)
    nodes = view(state, {"blog": card()}).nodes
    assert (nodes["blog"].docs_told, nodes["blog"].docs_max) == (30, None)
    assert (nodes["shop"].docs_told, nodes["shop"].docs_max) == (None, None)
    nodes = view(state, {"blog": card(documents=20)}).nodes
    assert (nodes["blog"].docs_told, nodes["blog"].docs_max) == (30, 20)
    assert [one.documents for one in listing(state, {"blog": card(documents=20)}, 0)] == [20, None]
    assert listing(state, {}, 0)[0].documents == 30


@given(st.lists(KEYS, unique=True), KEYS)
def test_removing_twice_is_the_same_as_once(keys: list[tuple[str, str]], key: tuple[str, str]) -> None:
    state = joined(*keys)
    once, changes = removed(state, key)
    assert changes == ([(*key, "left")] if key in keys else [])
    assert removed(once, key) == (once, [])
    assert once == {k: v for k, v in state.items() if k != key}


class Life(RuleBasedStateMachine):
    """Joins, heartbeats, leaves and ticks in any order against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State = {}
        self.now_ms = 0
        self.heard_at: dict[tuple[str, str], int] = {}
        self.down: set[tuple[str, str]] = set()
        self.cards: dict[str, NodeCard] = {}
        self.shown = view({}, {})

    @rule()
    def show(self) -> None:
        """A snapshot made from an earlier one, whatever has happened since, is the whole one."""
        self.shown = refreshed(self.shown, self.state, self.cards, ["blog", "shop", "wiki"])
        assert self.shown == view(self.state, self.cards)
        assert list(self.shown.nodes) == sorted(self.shown.nodes)

    @rule(node=st.sampled_from(["blog", "shop", "wiki"]), wish=st.sampled_from(Wish), weight=st.none() | st.just(5))
    def say(self, node: str, wish: Wish, weight: int | None) -> None:
        self.cards = {**self.cards, node: card(node, status=wish, weight=weight)}

    @rule(node=st.sampled_from(["blog", "shop", "wiki"]))
    def take_back(self, node: str) -> None:
        self.cards = {of: one for of, one in self.cards.items() if of != node}

    @rule(key=KEYS, version=st.sampled_from(["1", "2"]))
    def write(self, key: tuple[str, str], version: str) -> None:
        given = record(*key, version=version)
        known = self.state.get(key)
        before = self.state
        self.state, changes = written(self.state, given, self.now_ms)
        if known is None:
            assert changes == [(*key, "joined")]
        elif known.record == given:
            assert changes == []
            assert self.state is before
        else:
            assert changes == [(*key, "updated")]
        if known is None:
            self.heard_at[key] = self.now_ms

    @rule(key=KEYS)
    def beat(self, key: tuple[str, str]) -> None:
        self.state, changes = heard(self.state, key, self.now_ms)
        assert changes == ([(*key, "recovered")] if key in self.down else [])
        if key in self.heard_at:
            self.heard_at[key] = self.now_ms
            self.down.discard(key)

    @rule(key=KEYS)
    def leave(self, key: tuple[str, str]) -> None:
        self.state, changes = removed(self.state, key)
        assert bool(changes) is (key in self.heard_at)
        self.heard_at.pop(key, None)
        self.down.discard(key)

    @rule(passed_ms=st.sampled_from([1, 500, 999, 1_000, 3_000, 30_000]))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @precondition(lambda self: bool(self.heard_at))
    @rule()
    def tick(self) -> None:
        self.state, changes = ticked(self.state, self.now_ms, PATIENCE)
        for key, at_ms in list(self.heard_at.items()):
            silence_ms = self.now_ms - at_ms
            if silence_ms >= PATIENCE.forget_ms:
                assert (*key, "forgotten") in changes
                del self.heard_at[key]
                self.down.discard(key)
            elif silence_ms >= 3_000:
                assert ((*key, "down") in changes) is (key not in self.down)
                self.down.add(key)
            else:
                assert key not in {change[:2] for change in changes}

    @invariant()
    def only_the_registered_are_there_and_only_the_living_are_asked(self) -> None:
        assert set(self.state) == set(self.heard_at), "nobody comes back from the dead"
        shown = view(self.state, self.cards)
        held = {of for of, one in self.cards.items() if one.status is not Wish.ACTIVE}
        alive = {(node.node, instance) for node in shown.nodes.values() for instance in node.alive}
        active = {(node.node, instance) for node in shown.nodes.values() for instance in node.active}
        assert alive == set(self.heard_at) - self.down
        assert active == {key for key in alive if key[0] not in held}
        assert set(shown.nodes) == {node for node, _ in self.heard_at} | set(self.cards)
        assert [node.node for node in shown.searchable] == sorted(shown.nodes)
        entries = listing(self.state, self.cards, self.now_ms)
        assert [one.node for one in entries] == sorted(shown.nodes)
        assert {(e.node, i.instance) for e in entries for i in e.instances} == set(self.state)
        for one in entries:
            node = shown.nodes[one.node]
            assert one == entry(self.state, self.cards, one.node, self.now_ms)
            assert one.status is node.status
            assert bool(node.active) is (one.status is Status.ACTIVE), "a status is the code of who is not asked"
            assert (node.status.value in ("draining", "suspended")) is (one.node in held)
            assert {line.instance: line.weight for line in one.instances} == node.weights


TestLife = Life.TestCase
