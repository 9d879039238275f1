"""The laws of alerts: raised once, reminded in its time, cleared once, deaf to trembling, bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from antiphon.decide.alerts import (
    RULES,
    Alert,
    AlertBounds,
    Alerts,
    Observation,
    Phase,
    Severity,
    observed,
    ticked,
)

BOUNDS = AlertBounds(remind_ms=60_000, alerts_max=3)
VALUES = st.sampled_from([0.0, 0.04, 0.05, 0.07, 0.1, 0.5, 0.89, 0.9, 0.93, 0.95, 1.0])


class Ringing(RuleBasedStateMachine):
    """Observations and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Alerts()
        self.now_ms = 0
        self.open: dict[str, int] = {}  # id -> when it was last told of

    def take(self, outcome: tuple[Alerts, list[Alert]]) -> None:
        self.state, alerts = outcome
        for alert in alerts:
            match alert.phase:
                case Phase.RAISED:
                    assert alert.id not in self.open, "raised once"
                    assert alert.id == f"{alert.kind}:{alert.subject}"
                    assert self.now_ms - alert.since_ms >= RULES[alert.kind].hold_ms
                case Phase.REMINDED:
                    assert self.now_ms - self.open[alert.id] >= BOUNDS.remind_ms
                case Phase.CLEARED:
                    assert alert.severity is Severity.INFO
                    del self.open[alert.id]  # cleared once
            if alert.phase is not Phase.CLEARED:
                self.open[alert.id] = self.now_ms

    @rule(kind=st.sampled_from(sorted(RULES)), subject=st.sampled_from("ab"), value=VALUES)
    def observe(self, kind: str, subject: str, value: float) -> None:
        self.take(observed(self.state, Observation(kind, subject, value), self.now_ms, BOUNDS))

    @rule(passed_ms=st.sampled_from([1, 4_999, 5_000, 10_000, 60_000]))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule()
    def tick(self) -> None:
        self.take(ticked(self.state, self.now_ms, BOUNDS))
        assert ticked(self.state, self.now_ms, BOUNDS) == (self.state, []), "what was told is not told again"

    @rule()
    def mend(self) -> None:
        for rule_ in RULES.values():
            for subject in "ab":
                seen = Observation(rule_.kind, subject, 1.0 if rule_.kind == "coverage_below" else 0.0)
                self.take(observed(self.state, seen, self.now_ms, BOUNDS))
        self.now_ms += 10_000
        self.take(ticked(self.state, self.now_ms, BOUNDS))
        assert self.state.entries == {}, "whatever is right long enough is over"

    @invariant()
    def what_is_open_is_known_and_bounded(self) -> None:
        assert self.state.open == tuple(sorted(self.open))
        assert len(self.state.entries) <= BOUNDS.alerts_max


TestRinging = Ringing.TestCase


def told(values: list[tuple[int, float]], kind: str) -> list[tuple[int, str, str]]:
    state = Alerts()
    found: list[tuple[int, str, str]] = []
    for now_ms, value in values:
        state, alerts = observed(state, Observation(kind, "blog", value), now_ms)
        found += [(now_ms, alert.phase, alert.kind) for alert in alerts]
    return found


def test_a_node_goes_down_and_comes_back() -> None:
    assert told([(0, 0.0), (5, 1.0), (6, 1.0), (9, 0.0), (10, 0.0)], "node_down") == [
        (5, "raised", "node_down"),
        (9, "cleared", "node_recovered"),
    ]


def test_low_coverage_has_to_last_and_so_has_its_end() -> None:
    values = [(0, 0.5), (4_999, 0.5), (5_000, 0.5), (6_000, 0.96), (15_999, 0.96), (16_000, 0.96)]
    assert told(values, "coverage_below") == [
        (5_000, "raised", "coverage_below"),
        (16_000, "cleared", "coverage_restored"),
    ]


@given(st.lists(st.floats(0.051, 0.099), max_size=50))
def test_a_value_that_trembles_between_the_levels_does_not_ring(values: list[float]) -> None:
    assert told([(at * 1_000, value) for at, value in enumerate(values)], "error_rate") == []
    wrong_first = [(0, 0.2), (5_000, 0.2), *((5_000 + at * 1_000, value) for at, value in enumerate(values))]
    assert told(wrong_first, "error_rate") == [(5_000, "raised", "error_rate")]


def test_nine_of_ten_nodes_are_not_below_nine_tenths() -> None:
    assert told([(0, 0.9), (9_000, 0.9)], "coverage_below") == []


def test_a_moment_of_error_is_none() -> None:
    assert told([(0, 0.5), (4_000, 0.0), (5_000, 0.5), (9_999, 0.5)], "error_rate") == []


@given(VALUES)
def test_what_changes_nothing_returns_the_same_state(value: float) -> None:
    state = Alerts()
    if value <= 0.05:
        after, alerts = observed(state, Observation("error_rate", "blog", value), 0)
        assert (after is state, alerts) == (True, [])


def test_what_does_not_fit_is_counted_and_raised_when_there_is_room() -> None:
    state = Alerts()
    for subject in "abcd":
        state, _ = observed(state, Observation("node_down", subject, 1.0), 0, BOUNDS)
    assert (state.open, state.dropped) == (("node_down:a", "node_down:b", "node_down:c"), 1)
    state, _ = observed(state, Observation("node_down", "a", 0.0), 1, BOUNDS)
    state, alerts = observed(state, Observation("node_down", "d", 1.0), 2, BOUNDS)
    assert [alert.id for alert in alerts] == ["node_down:d"]
