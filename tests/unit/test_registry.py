"""The laws of the registry's picture: who is heard is there, who is silent goes down, who left stays away."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from antiphon.decide.registry import Patience, State, heard, listing, removed, ticked, view, written
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
    assert view(state).nodes["blog"].active == ("a",)
    state, changes = ticked(state, 3_000, PATIENCE)
    assert changes == [("blog", "a", "down")]
    assert view(state).nodes["blog"].active == ()
    assert [node.node for node in view(state).searchable] == ["blog"], "what is down is still expected"
    assert ticked(state, 3_001, PATIENCE)[1] == [], "down is told once"


def test_a_heartbeat_brings_it_back_and_carries_the_load() -> None:
    state, _ = ticked(joined(("blog", "a")), 5_000, PATIENCE)
    state, changes = heard(state, ("blog", "a"), 5_100, Load(in_flight=3, latency_us=70))
    assert changes == [("blog", "a", "recovered")]
    assert view(state).nodes["blog"].active == ("a",)
    (entry,) = listing(state, 5_150)
    assert (entry.instances[0].heard_ms_ago, entry.instances[0].in_flight) == (50, 3)
    state, changes = heard(state, ("blog", "a"), 5_200)
    assert changes == []
    assert state["blog", "a"].load.in_flight == 3, "a sign of life without a load keeps the last one"


def test_silence_is_forgotten_at_last() -> None:
    state, _ = ticked(joined(("blog", "a")), 59_999, PATIENCE)
    state, changes = ticked(state, 60_000, PATIENCE)
    assert changes == [("blog", "a", "forgotten")]
    assert state == {}
    assert heard(state, ("blog", "a"), 60_001) == ({}, []), "a heartbeat of the forgotten is nobody's"


def test_the_newest_record_speaks_for_the_node() -> None:
    state, _ = written({}, record("blog", "a", topics=["old"], joined_at_ms=5), 0)
    state, _ = written(state, record("blog", "b", topics=["new"], joined_at_ms=9), 0)
    assert view(state).nodes["blog"].topics == ("new",)
    (entry,) = listing(state, 0)
    assert (entry.topics, [line.instance for line in entry.instances]) == (("new",), ["a", "b"])


def test_a_node_without_the_capability_is_known_and_not_asked() -> None:
    state, _ = written({}, record("blog", "a", capabilities=[]), 0)
    assert list(view(state).nodes) == ["blog"]
    assert view(state).searchable == ()


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
        if changes:
            self.heard_at[key] = self.now_ms
            self.down.discard(key)

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
        shown = view(self.state)
        active = {(node.node, instance) for node in shown.nodes.values() for instance in node.active}
        assert active == set(self.heard_at) - self.down
        assert set(shown.nodes) == {node for node, _ in self.heard_at}
        assert [node.node for node in shown.searchable] == sorted(shown.nodes)
        entries = listing(self.state, self.now_ms)
        assert {(e.node, i.instance) for e in entries for i in e.instances} == set(self.state)
        for entry in entries:
            up = any(line.status is Status.ACTIVE for line in entry.instances)
            assert entry.status is (Status.ACTIVE if up else Status.DOWN)


TestLife = Life.TestCase
