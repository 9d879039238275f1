"""The laws of the latency digest: within 3 % of the truth, a bounded window, and time-outs that never shorten."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.digest import BUCKETS, EDGES, LATENCY_US_MAX, MARKS, MIDDLES, Digest, Quantiles

LATENCIES = st.one_of(st.integers(0, 100), st.integers(0, 50_000), st.integers(0, LATENCY_US_MAX))


def marks(known: Quantiles) -> tuple[int, int, int, int]:
    return known.p50_us, known.p95_us, known.p97_us, known.p99_us


def nearest_rank(latencies: list[int], mark: float) -> int:
    return sorted(latencies)[max(0, ceil(mark * len(latencies) - 1e-9) - 1)]


def test_the_buckets_are_five_per_cent_wide_and_few() -> None:
    assert BUCKETS < 400
    for low, high in pairwise(EDGES):
        assert high == low + 1 or high - low <= 0.05 * low


@given(LATENCIES)
def test_a_buckets_middle_is_within_three_per_cent(latency_us: int) -> None:
    middle = MIDDLES[min(bisect_right(EDGES, latency_us) - 1, BUCKETS - 1)]
    assert abs(middle - latency_us) <= 0.03 * latency_us


@given(st.lists(LATENCIES, min_size=1, max_size=300))
def test_quantiles_are_within_three_per_cent_of_the_truth(latencies: list[int]) -> None:
    digest = Digest()
    for latency_us in latencies:
        digest.record(latency_us, 0)
    known = digest.quantiles()
    assert (known.records, known.censored) == (len(latencies), 0)
    for mark, estimate in zip(MARKS, marks(known), strict=True):
        truth = nearest_rank(latencies, mark)
        assert abs(estimate - truth) <= 0.03 * truth


def test_nothing_known_is_nothing() -> None:
    assert Digest().quantiles() == Quantiles()


def test_what_is_longer_than_the_longest_budget_counts_as_that() -> None:
    digest = Digest()
    digest.record(LATENCY_US_MAX * 9, 0)
    assert abs(digest.quantiles().p50_us - LATENCY_US_MAX) <= 0.05 * LATENCY_US_MAX


@given(st.lists(LATENCIES, min_size=1, max_size=200), st.lists(LATENCIES, max_size=200))
def test_time_outs_never_shorten_a_quantile(answers: list[int], waits: list[int]) -> None:
    alone, both = Digest(), Digest()
    for latency_us in answers:
        alone.record(latency_us, 0)
        both.record(latency_us, 0)
    longest = max(answers)
    for waited_us in waits:
        both.censor(waited_us, 0)
    before, after = alone.quantiles(), both.quantiles()
    assert after.censored == len(waits)
    for old, new in zip(marks(before), marks(after), strict=True):
        assert new >= old
        assert new <= max(longest, *waits, 0) * 1.03


@given(st.lists(st.integers(1_000, 9_000), min_size=1, max_size=200), st.integers(1, 500), st.integers(0, 900))
def test_short_deadlines_say_nothing_about_what_lies_beyond(answers: list[int], cuts: int, waited_us: int) -> None:
    # a deadline in a bucket below every answer tells nothing of how long they take
    alone, both = Digest(), Digest()
    for latency_us in answers:
        alone.record(latency_us, 0)
        both.record(latency_us, 0)
    for _ in range(cuts):
        both.censor(waited_us, 0)
    assert marks(alone.quantiles()) == marks(both.quantiles())


@given(st.integers(1, 300), st.integers(1, 300))
def test_a_tail_of_time_outs_is_at_least_as_long_as_they_waited(answers: int, waits: int) -> None:
    digest = Digest()
    for _ in range(answers):
        digest.record(5_000, 0)
    for _ in range(waits):
        digest.censor(80_000, 0)
    p99_us = digest.quantiles().p99_us
    if waits > 0.011 * (answers + waits):
        assert p99_us >= 77_600
    elif waits < 0.009 * (answers + waits):
        assert p99_us <= 5_150


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 9)), min_size=1, max_size=400))
def test_the_window_is_the_newest_one_to_two_generations(steps: list[tuple[int, int]]) -> None:
    digest = Digest(generation_ms=1_000, generation_records=10)
    generations: list[list[int]] = [[]]
    began_ms, now_ms = 0, 0
    for at, (passed_ms, latency) in enumerate(steps):
        now_ms += passed_ms if at else 0
        if now_ms - began_ms >= 1_000 and len(generations[-1]) >= 10:
            generations.append([])
            began_ms = now_ms
        generations[-1].append(latency)
        digest.record(latency, now_ms)
    window = [latency for generation in generations[-2:] for latency in generation]
    known = digest.quantiles()
    assert known.records == len(window)
    assert marks(known) == tuple(nearest_rank(window, mark) for mark in MARKS)
    assert digest.total == len(steps)
