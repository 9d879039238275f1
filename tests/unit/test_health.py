"""The laws of health: up is who beats and answers, whoever is down is tried again, loads and shares stay in bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.health import (
    FAILURE_WEIGHT,
    IN_FLIGHT_WEIGHT,
    LATENCY_WEIGHT,
    HealthBounds,
    Vitals,
    report,
)
from antiphon.decide.registry import Patience, heard, pinged, ticked, written
from antiphon.messages.registry import NodeRecord, Status

BOUNDS = HealthBounds()
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["beat", "answered", "missed", "failed", "tick"]), st.sampled_from([0, 1, 999, 1_000, 3_000])
    ),
    max_size=80,
)


def happened(vitals: Vitals, event: str, now_ms: int) -> None:
    match event:
        case "beat":
            vitals.beat(3, now_ms)
        case "answered":
            vitals.answered(5_000, now_ms)
        case "missed":
            vitals.ping_missed(now_ms)
        case "failed":
            vitals.searched(2, 1)
        case _:
            vitals.asked(now_ms)


def test_the_weights_are_a_whole() -> None:
    assert pytest.approx(1.0) == IN_FLIGHT_WEIGHT + LATENCY_WEIGHT + FAILURE_WEIGHT


@given(EVENTS)
def test_only_an_answer_forgives_misses(events: list[tuple[str, int]]) -> None:
    vitals = Vitals(BOUNDS, 0)
    misses = 0
    for event, _ in events:
        happened(vitals, event, 0)
        misses = 0 if event == "answered" else misses + (event == "missed")
        assert vitals.misses == misses


def test_one_that_is_down_and_beats_is_pinged_at_once() -> None:
    vitals = Vitals(BOUNDS, 0)
    for _ in range(3):
        assert not vitals.misses or not vitals.is_ping_due(1)
        vitals.ping_missed(0)
    assert not vitals.is_ping_due(1)
    vitals.beat(0, 1)
    assert vitals.is_ping_due(1)


def test_nobody_is_pinged_again_while_a_ping_is_waited_for() -> None:
    vitals = Vitals(BOUNDS, 0)
    assert vitals.is_ping_due(0)
    vitals.asked(0)
    assert not vitals.is_ping_due(BOUNDS.wait_ms - 1)


@given(EVENTS)
def test_it_is_always_tried_again(events: list[tuple[str, int]]) -> None:
    vitals = Vitals(BOUNDS, 0)
    now_ms = 0
    for event, passed_ms in events:
        now_ms += passed_ms
        happened(vitals, event, now_ms)
    assert vitals.is_ping_due(now_ms + BOUNDS.ping_ms_max)
    vitals.answered(1, now_ms)
    assert not vitals.is_ping_due(now_ms + BOUNDS.ping_ms - 1), "who answers is not pinged"


def test_one_that_stays_down_is_tried_less_and_less_often() -> None:
    vitals = Vitals(BOUNDS, 0)
    now_ms, waits_ms = 0, []
    vitals.ping_missed(now_ms)
    for _ in range(8):
        began_ms = now_ms
        while not vitals.is_ping_due(now_ms):
            now_ms += 500
        waits_ms.append(now_ms - began_ms)
        vitals.ping_missed(now_ms)
    assert waits_ms == [2_000, 2_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
def test_the_average_lies_among_what_was_measured(latencies: list[int]) -> None:
    vitals = Vitals(BOUNDS, 0)
    for latency_us in latencies:
        vitals.answered(latency_us, 0)
    assert min(latencies) * (1 - 1e-9) <= vitals.latency_us <= max(latencies) * (1 + 1e-9)


def test_the_average_takes_three_tenths_of_the_newest() -> None:
    vitals = Vitals(BOUNDS, 0)
    vitals.answered(1_000, 0)
    vitals.answered(2_000, 0)
    assert vitals.latency_us == pytest.approx(1_300)


STATES = st.tuples(st.integers(0, 500), st.integers(0, 10**6), st.floats(0, 1))


def vitals_of(in_flight: int, latency_us: int, failure_share: float) -> Vitals:
    vitals = Vitals(BOUNDS, 0)
    vitals.in_flight, vitals.latency_us, vitals.failure_share = in_flight, float(latency_us), failure_share
    return vitals


@given(STATES, STATES, st.integers(0, 10**6), st.integers(1, 300))
def test_the_load_is_a_share_and_grows_with_each_of_its_parts(
    one: tuple[int, int, float], other: tuple[int, int, float], median_us: int, capacity: int
) -> None:
    low = vitals_of(min(one[0], other[0]), min(one[1], other[1]), min(one[2], other[2])).load(median_us, capacity)
    high = vitals_of(max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])).load(median_us, capacity)
    assert 0 <= low <= high <= 1 + 1e-9


@given(EVENTS)
def test_shares_stay_shares(events: list[tuple[str, int]]) -> None:
    vitals = Vitals(BOUNDS, 0)
    for event, _ in events:
        happened(vitals, event, 0)
        assert 0 <= vitals.failure_share <= 1


def test_a_report_shows_who_is_slower_than_the_rest() -> None:
    vitals = {name: vitals_of(8, us, 0.0) for name, us in (("a", 10_000), ("b", 10_000), ("c", 40_000))}
    vitals["d"] = vitals_of(0, 0, 0.0)
    for _ in range(3):
        vitals["d"].ping_missed(0)
    shown = report("blog", vitals, ("a", "b", "c"), 16)
    assert [line.is_up for line in shown.instances] == [True, True, True, False]
    assert [round(line.load, 3) for line in shown.instances] == [0.25, 0.25, 0.475, 0.054]
    assert shown.load == pytest.approx(0.325), "who is down carries nothing"
    assert report("blog", {}, (), 16).load == 1.0


SIGNS = st.lists(
    st.tuples(st.sampled_from(["beat", "answered", "missed", "tick"]), st.sampled_from([0, 1, 999, 1_000, 3_000])),
    max_size=60,
)


@given(SIGNS)
def test_the_registry_has_it_up_exactly_when_it_beats_and_answers(signs: list[tuple[str, int]]) -> None:
    key, patience = ("blog", "one"), Patience()
    state, _ = written({}, NodeRecord(node="blog", instance="one"), 0)
    now_ms = heard_ms = misses = 0
    was_up = True
    for sign, passed_ms in signs:
        now_ms += passed_ms
        misses = 0 if sign == "answered" else misses + (sign == "missed")
        heard_ms = now_ms if sign in ("beat", "answered") else heard_ms
        match sign:
            case "beat":
                state, changes = heard(state, key, now_ms, None, patience)
            case "tick":
                state, changes = ticked(state, now_ms, patience)
            case _:
                state, changes = pinged(state, key, misses, now_ms, patience=patience)
        is_up = misses < 3 and now_ms - heard_ms < 3_000
        assert (state[key].status is Status.ACTIVE) is is_up
        assert changes == ([] if is_up is was_up else [(*key, "recovered" if is_up else "down")])
        was_up = is_up


def test_a_ping_of_nobody_changes_nothing() -> None:
    assert pinged({}, ("blog", "one"), 3, 0) == ({}, [])
