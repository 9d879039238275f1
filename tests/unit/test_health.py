"""The laws of health: three misses and not two, back at the first answer, always tried again, wishes left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.health import (
    FAILURE_WEIGHT,
    IN_FLIGHT_WEIGHT,
    LATENCY_WEIGHT,
    HealthBounds,
    Moved,
    Vitals,
    report,
    status,
)
from antiphon.messages.card import Wish
from antiphon.messages.registry import Status

BOUNDS = HealthBounds()
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["beat", "answered", "missed", "failed", "tick"]), st.sampled_from([0, 1, 999, 1_000, 3_000])
    ),
    max_size=80,
)


def happened(vitals: Vitals, event: str, now_ms: int) -> Moved | None:
    match event:
        case "beat":
            return vitals.beat(3, now_ms)
        case "answered":
            return vitals.answered(5_000, now_ms)
        case "missed":
            return vitals.ping_missed(now_ms)
        case "failed":
            vitals.failed()
            return None
        case _:
            return vitals.ticked(now_ms)


def test_the_weights_are_a_whole() -> None:
    assert pytest.approx(1.0) == IN_FLIGHT_WEIGHT + LATENCY_WEIGHT + FAILURE_WEIGHT


def test_three_misses_in_a_row_and_back_at_the_first_answer() -> None:
    vitals = Vitals(BOUNDS, 0)
    events = ("missed", "missed", "answered", "missed", "missed", "beat", "missed", "missed", "beat", "answered")
    moves = [happened(vitals, event, 0) for event in events]
    assert moves == [None] * 6 + ["down", None, None, "recovered"]


def test_three_missed_heartbeats_and_not_a_millisecond_before() -> None:
    vitals = Vitals(BOUNDS, 0)
    assert vitals.ticked(2_999) is None
    assert vitals.ticked(3_000) == "down"
    assert vitals.ticked(9_000) is None
    assert vitals.beat(0, 9_001) == "recovered"


@given(EVENTS)
def test_it_is_up_exactly_when_it_beats_and_answers(events: list[tuple[str, int]]) -> None:
    vitals = Vitals(BOUNDS, 0)
    now_ms, beat_ms, misses, was_up = 0, 0, 0, True
    for event, passed_ms in events:
        now_ms += passed_ms
        moved = happened(vitals, event, now_ms)
        if event in ("beat", "answered"):
            beat_ms = now_ms
        misses = 0 if event == "answered" else misses + (event == "missed")
        if event != "failed":  # a failed search says nothing of whether it lives
            is_up = misses < 3 and now_ms - beat_ms < 3_000
            assert vitals.is_up is is_up
            assert moved == (None if is_up is was_up else "recovered" if is_up else "down")
            was_up = is_up
        assert moved is None or event != "failed"


@given(EVENTS)
def test_it_is_always_tried_again(events: list[tuple[str, int]]) -> None:
    vitals = Vitals(BOUNDS, 0)
    now_ms = 0
    for event, passed_ms in events:
        now_ms += passed_ms
        happened(vitals, event, now_ms)
    assert vitals.is_ping_due(now_ms + BOUNDS.ping_ms_max)
    vitals.answered(1, now_ms)
    assert vitals.is_up
    assert not vitals.is_ping_due(now_ms + BOUNDS.ping_ms - 1), "who answers is not pinged"


def test_one_that_stays_down_is_tried_less_and_less_often() -> None:
    vitals = Vitals(BOUNDS, 0)
    now_ms, waits_ms = 0, []
    for _ in range(8):
        began_ms = now_ms
        while not vitals.is_ping_due(now_ms):
            now_ms += 500
        waits_ms.append(now_ms - began_ms)
        vitals.ping_missed(now_ms)
    assert waits_ms == [5_000, 5_000, 5_000, 5_000, 10_000, 20_000, 30_000, 30_000]


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


@given(st.sampled_from(Wish), st.booleans())
def test_the_operators_wish_wins(wish: Wish, is_up: bool) -> None:
    shown = status(wish, is_up=is_up)
    if wish is Wish.ACTIVE:
        assert shown is (Status.ACTIVE if is_up else Status.DOWN)
    else:
        assert shown.value == wish.value


def test_a_report_shows_who_is_slower_than_the_rest() -> None:
    vitals = {name: vitals_of(8, us, 0.0) for name, us in (("a", 10_000), ("b", 10_000), ("c", 40_000))}
    vitals["d"] = vitals_of(0, 0, 0.0)
    for _ in range(3):
        vitals["d"].ping_missed(0)
    shown = report("blog", Wish.ACTIVE, vitals, 16)
    assert shown.status is Status.ACTIVE
    assert [round(line.load, 3) for line in shown.instances] == [0.25, 0.25, 0.475, 0.054]
    assert shown.load == pytest.approx(0.325), "who is down carries nothing"
    assert report("blog", Wish.DRAINING, {}, 16).status is Status.DRAINING
    assert report("blog", Wish.ACTIVE, {}, 16).load == 1.0
