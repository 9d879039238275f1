"""The laws of rate limits: never more than the rate, the wait that is named is the true one, and forgetting is free."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.limit import ALLOWED, Limiter, Rate, Verdict, Window, judge_counted

RATES = st.builds(Rate, count=st.integers(1, 300), period_ms=st.integers(1, 100_000), burst=st.integers(1, 50))
PASSED = st.lists(st.sampled_from([0, 0, 1, 7, 100, 999, 1_000, 5_000, 61_000]), max_size=120)


def test_sixty_at_once_then_one_a_second() -> None:
    limiter: Limiter[str] = Limiter()
    verdicts = [limiter.judge("web", Rate(), 0) for _ in range(61)]
    assert verdicts == [ALLOWED] * 60 + [Verdict(1_000)]
    assert limiter.judge("web", Rate(), 999) == Verdict(1)
    assert limiter.judge("web", Rate(), 1_000).is_allowed
    assert limiter.judge("crm", Rate(), 0).is_allowed, "keys do not know each other"


@given(RATES, PASSED)
def test_any_stretch_of_time_stays_within_burst_and_rate(rate: Rate, passed: list[int]) -> None:
    limiter: Limiter[str] = Limiter()
    now_ms = 0
    allowed: list[int] = []
    for passed_ms in passed:
        now_ms += passed_ms
        if limiter.judge("web", rate, now_ms).is_allowed:
            allowed.append(now_ms)
    for first, begin_ms in enumerate(allowed):
        for last in range(first, len(allowed)):
            within = rate.burst + Fraction((allowed[last] - begin_ms) * rate.count, rate.period_ms)
            assert last - first + 1 <= within


@given(RATES, PASSED)
def test_the_wait_that_is_named_is_the_shortest_that_helps(rate: Rate, passed: list[int]) -> None:
    limiter: Limiter[str] = Limiter()
    now_ms = 0
    for passed_ms in passed:
        now_ms += passed_ms
        verdict = limiter.judge("web", rate, now_ms)
        if not verdict.is_allowed:
            assert not limiter.judge("web", rate, now_ms + verdict.retry_after_ms - 1).is_allowed
            now_ms += verdict.retry_after_ms
            assert limiter.judge("web", rate, now_ms).is_allowed


@given(
    RATES, st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from([0, 1, 500, 3_000, 60_000])), max_size=80)
)
def test_forgetting_the_idle_changes_no_verdict(rate: Rate, asks: list[tuple[str, int]]) -> None:
    small, large = Limiter[str](3), Limiter[str]()
    now_ms = 0
    for key, passed_ms in asks:
        now_ms += passed_ms
        verdict = small.judge(key, rate, now_ms)
        assert len(small) <= 3
        known = key in small._arrivals_ns
        if verdict.is_allowed or known:
            assert large.judge(key, rate, now_ms) == verdict
        else:  # refused for want of room: three others are busy, and none of them is idle before the named time
            full = sorted(small._arrivals_ns.values())
            assert len(full) == 3
            assert full[0] > now_ms * 1_000_000
            assert 1 <= verdict.retry_after_ms <= -(-(full[0] - now_ms * 1_000_000) // 1_000_000)


def test_a_key_is_forgotten_when_it_is_idle_and_not_before() -> None:
    rate, limiter = Rate(count=1, period_ms=10, burst=1), Limiter[str](1)
    assert limiter.judge("web", rate, 0).is_allowed
    assert [limiter.judge("crm", rate, now_ms).retry_after_ms for now_ms in (6, 9, 10)] == [4, 1, 0]


@given(RATES, st.integers(0, 10_000), st.integers(0, 10_000), st.booleans())
def test_a_held_key_is_let_in_at_the_very_millisecond(rate: Rate, asks: int, hold_ms: int, is_known: bool) -> None:
    limiter: Limiter[str] = Limiter()
    if is_known:
        limiter.judge("web", rate, 0)
    limiter.hold("web", rate, hold_ms, 0)
    for now_ms in (0, hold_ms // 2, hold_ms - 1):
        if 0 <= now_ms < hold_ms:
            assert limiter.judge("web", rate, now_ms).retry_after_ms >= hold_ms - now_ms
    assert limiter.judge("crm", rate, 0).is_allowed
    if not is_known:
        assert limiter.judge("web", rate, hold_ms).is_allowed


def test_a_counter_is_a_subject_of_its_own_for_each_key_and_window() -> None:
    window = Window.at(125_000, 60_000)
    assert window == Window(2, 5_000)
    assert window.counter("caller", "web") == "antiphon.v1.limit.count.caller.web.2"
    assert window.counter("node", "blog", prefix="test") == "test.v1.limit.count.node.blog.2"


@pytest.mark.parametrize(
    ("previous", "counted", "elapsed_ms", "retry_after_ms"),
    [
        (0, 60, 0, 0),
        (0, 61, 10_000, 50_000 + 1_000),  # the next window, when 60 in the last weigh 59
        (60, 1, 0, 1_000),
        (60, 1, 1_000, 0),
        (60, 31, 30_000, 1_000),
        (120, 1, 0, 30_500),
    ],
)
def test_examples_of_the_sliding_window(previous: int, counted: int, elapsed_ms: int, retry_after_ms: int) -> None:
    assert judge_counted(previous, counted, Rate(), elapsed_ms) == Verdict(retry_after_ms)


class Counters:
    """What the stream does: one count for all masters; the refused is taken back."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.counts: dict[int, int] = {}

    def ask(self, wall_ms: int) -> Verdict:
        window = Window.at(wall_ms, self.rate.period_ms)
        counted = self.counts.get(window.number, 0) + 1
        verdict = judge_counted(self.counts.get(window.number - 1, 0), counted, self.rate, window.elapsed_ms)
        if verdict.is_allowed:
            self.counts[window.number] = counted
        return verdict


@given(st.builds(Rate, count=st.integers(1, 20), period_ms=st.integers(1, 5_000)), PASSED)
def test_no_aligned_window_exceeds_the_limit_and_no_sliding_one_twice_of_it(rate: Rate, passed: list[int]) -> None:
    counters = Counters(rate)
    wall_ms = 0
    allowed: list[int] = []
    for passed_ms in passed:
        wall_ms += passed_ms
        if counters.ask(wall_ms).is_allowed:
            allowed.append(wall_ms)
    assert all(count <= rate.count for count in counters.counts.values())
    for at_ms in allowed:
        assert sum(at_ms <= other < at_ms + rate.period_ms for other in allowed) < 2 * rate.count + 1


@given(st.builds(Rate, count=st.integers(1, 20), period_ms=st.integers(1, 5_000)), PASSED)
def test_the_named_wait_of_the_sliding_window_is_the_shortest_that_helps(rate: Rate, passed: list[int]) -> None:
    counters = Counters(rate)
    wall_ms = 0
    for passed_ms in passed:
        wall_ms += passed_ms
        verdict = counters.ask(wall_ms)
        if not verdict.is_allowed:
            before = dict(counters.counts)
            assert not counters.ask(wall_ms + verdict.retry_after_ms - 1).is_allowed
            assert counters.counts == before
            wall_ms += verdict.retry_after_ms
            assert counters.ask(wall_ms).is_allowed
