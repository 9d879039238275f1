"""The laws of the learned bound: inside its limits, cold at the ceiling, and never a prisoner of its own time-outs."""

from __future__ import annotations

from math import ceil, log2

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.bound import Bound, BoundLimits

LIMITS = BoundLimits(floor_ms=50, ceiling_ms=5_000)


def learned(bound: Bound, latency_ms: int, asks: int, now_ms: int = 0, every_ms: int = 300) -> int:
    """Ask a node that takes exactly so long; return the time after it."""
    for _ in range(asks):
        waits_ms = bound.bound_ms(now_ms)
        if latency_ms <= waits_ms:
            bound.answered(latency_ms * 1_000, now_ms)
        else:
            bound.timed_out(waits_ms * 1_000, now_ms)
        now_ms += every_ms
    return now_ms


def test_a_node_that_nothing_is_known_of_gets_the_ceiling() -> None:
    bound = Bound(LIMITS)
    assert bound.bound_ms(0) == 5_000
    now_ms = learned(bound, 10, LIMITS.records_min - 1)
    assert bound.bound_ms(now_ms) == 5_000
    now_ms = learned(bound, 10, 1, now_ms)
    assert bound.bound_ms(now_ms) == 50


def test_a_fast_nodes_bound_is_its_factor_and_slack() -> None:
    bound = Bound(LIMITS)
    now_ms = learned(bound, 100, 200)
    assert abs(bound.bound_ms(now_ms) - 220) <= 6, "2 x 100 ms + 20 ms, within 3 %"


@given(st.integers(1, 200), st.integers(1, 5_000), st.integers(20, 400), st.sampled_from([1, 50, 300, 1_000]))
def test_a_node_that_became_slower_raises_its_bound_again(
    before_ms: int, after_ms: int, known: int, every_ms: int
) -> None:
    bound = Bound(LIMITS)
    now_ms = learned(bound, before_ms, known, every_ms=every_ms)
    # the first per cent of the window, then a doubling a reading; readings may be 250 ms apart
    readings = ceil(log2(LIMITS.ceiling_ms / LIMITS.floor_ms)) + 2
    asks = ceil(0.011 * known) + 2 + readings * (LIMITS.fresh_ms // every_ms + 1)
    now_ms = learned(bound, after_ms, asks, now_ms, every_ms)
    assert bound.bound_ms(now_ms) >= after_ms, "what answers within the ceiling is waited for again"


@given(st.integers(1, 200), st.integers(60, 5_000))
def test_a_node_that_became_faster_lowers_its_bound_again(fast_ms: int, slow_ms: int) -> None:
    bound = Bound(LIMITS)
    now_ms = learned(bound, slow_ms, 100)
    now_ms = learned(bound, fast_ms, 800, now_ms)
    assert bound.bound_ms(now_ms) <= max(50, ceil(2 * fast_ms * 1.03) + 20)


def test_a_node_that_dies_costs_little_until_its_breaker_opens() -> None:
    bound = Bound(LIMITS)
    now_ms = learned(bound, 20, 600)
    bound.answered(4_000_000, now_ms)  # one old outlier
    costs: list[int] = []
    for _ in range(5):
        costs.append(bound.bound_ms(now_ms))
        bound.timed_out(costs[-1] * 1_000, now_ms)
        now_ms += 300
    assert costs[1] == costs[0], "less than one per cent of the window says nothing yet"
    assert max(costs) <= 8 * costs[0], "the outlier of 4 s is not jumped to"
    assert sum(costs) <= 1_000


EVENTS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 20_000_000), st.sampled_from([0, 1, 20, 300, 9_000])), max_size=150
)


@given(EVENTS)
def test_the_bound_is_always_within_its_limits_and_never_jumps_up(events: list[tuple[bool, int, int]]) -> None:
    bound = Bound(LIMITS)
    now_ms = 0
    before = bound.bound_ms(now_ms)
    for is_answer, us, passed_ms in events:
        (bound.answered if is_answer else bound.timed_out)(us, now_ms)
        now_ms += passed_ms
        after = bound.bound_ms(now_ms)
        assert LIMITS.floor_ms <= after <= LIMITS.ceiling_ms
        assert after <= 2 * before
        before = after


@given(EVENTS)
def test_reading_twice_at_one_moment_is_reading_once(events: list[tuple[bool, int, int]]) -> None:
    once, often = Bound(LIMITS), Bound(LIMITS)
    now_ms = 0
    for is_answer, us, passed_ms in events:
        for bound in (once, often):
            (bound.answered if is_answer else bound.timed_out)(us, now_ms)
        now_ms += passed_ms
        assert once.bound_ms(now_ms) == often.bound_ms(now_ms) == often.bound_ms(now_ms)
