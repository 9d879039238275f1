"""The laws of admission, and the simulation that says what they are good for: goodput at three times the capacity."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.admission import Admission, AdmissionBounds

BOUNDS = AdmissionBounds()
WORK_US = 500
"""Half of what a search costs: before its nodes are asked, and after they have answered."""
REFUSE_US = 50
DEADLINE_US = 500_000
CAPACITY_PER_S = 1_000_000 // (2 * WORK_US)
SECONDS = 15
LEARNING_US = 1_000_000
"""How long the valve may take to close from wide open before its refusals have to be quick."""


@dataclass
class Outcome:
    good: int = 0
    late: int = 0
    refused: int = 0
    refused_after_us: list[int] = field(default_factory=list)
    retry_after_ms: set[int] = field(default_factory=set)

    def goodput(self) -> float:
        """As a share of what one core can do."""
        return self.good / (CAPACITY_PER_S * SECONDS)


def simulated(load: float, *, seed: int, is_admitting: bool = True, node_ms: float = 20) -> Outcome:
    """One event loop, Poisson arrivals at `load` times its capacity, one first-in-first-out queue for all its work."""
    random = Random(seed)
    admission = Admission(BOUNDS if is_admitting else AdmissionBounds(target_ms=10**9, limit_max=10**9))
    done = Outcome()
    answers: list[tuple[int, int]] = []  # when the nodes have answered, when the question arrived
    queue: deque[tuple[int, int, bool]] = deque()  # ready at, arrived at, whether it is a new question
    arrives_us, now_us, end_us = 0, 0, SECONDS * 1_000_000
    while now_us < end_us:
        while arrives_us <= now_us:
            heappush(answers, (arrives_us, -1))
            arrives_us += max(1, int(random.expovariate(load * CAPACITY_PER_S / 1_000_000)))
        while answers and answers[0][0] <= now_us:
            at_us, arrived_us = heappop(answers)
            queue.append((at_us, at_us if arrived_us < 0 else arrived_us, arrived_us < 0))
        if not queue:
            now_us = min(arrives_us, answers[0][0] if answers else arrives_us)
            continue
        ready_us, arrived_us, is_new = queue.popleft()
        if not is_new:
            now_us += WORK_US
            admission.leave()
            is_good = now_us - arrived_us <= DEADLINE_US
            done.good += is_good
            done.late += not is_good
            continue
        verdict = admission.enter((now_us - ready_us) // 1_000, now_us // 1_000)
        if verdict.is_allowed:
            now_us += WORK_US
            heappush(answers, (now_us + int(random.expovariate(1 / (node_ms * 1_000))), arrived_us))
        else:
            now_us += REFUSE_US
            done.refused += 1
            if arrived_us > LEARNING_US:
                done.refused_after_us.append(now_us - arrived_us)
            done.retry_after_ms.add(verdict.retry_after_ms)
    return done


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_goodput_at_three_times_the_capacity_is_at_least_four_fifths_of_it(seed: int) -> None:
    done = simulated(3, seed=seed)
    waits_ms = [us // 1_000 for us in sorted(done.refused_after_us)]
    p50_ms, p99_ms = waits_ms[len(waits_ms) // 2], waits_ms[len(waits_ms) * 99 // 100]
    print(f"goodput {done.goodput():.3f}, late {done.late}, refused {done.refused} within {p50_ms} ms, p99 {p99_ms} ms")
    assert done.goodput() >= 0.8
    assert p50_ms <= 20
    assert p99_ms <= 60
    assert min(done.retry_after_ms) >= BOUNDS.interval_ms


def test_without_admission_the_same_load_leaves_next_to_nothing() -> None:
    assert simulated(3, seed=1, is_admitting=False).goodput() < 0.2


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_below_its_capacity_a_master_refuses_nobody(load: float) -> None:
    done = simulated(load, seed=1)
    assert done.refused == 0
    assert done.goodput() >= 0.98 * load


def test_slow_nodes_are_not_our_overload() -> None:
    # 500 searches a second that wait a second each: many in flight, and the master is half idle
    done = simulated(0.5, seed=1, node_ms=1_000)
    assert done.refused == 0


STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 400), st.integers(0, 150)), max_size=300)


@given(STEPS)
def test_the_valve_stays_within_its_limits_and_counts_right(steps: list[tuple[bool, int, int]]) -> None:
    bounds = AdmissionBounds(limit_min=2, limit_max=20)
    admission = Admission(bounds)
    inside, now_ms = 0, 0
    for is_entering, waited_ms, passed_ms in steps:
        now_ms += passed_ms
        if is_entering:
            before = inside
            verdict = admission.enter(waited_ms, now_ms)
            inside += verdict.is_allowed
            assert verdict.is_allowed is (before < admission.limit)
            assert verdict.is_allowed or bounds.interval_ms <= verdict.retry_after_ms <= bounds.retry_after_ms_max
        elif inside:
            admission.leave()
            inside -= 1
        assert admission.in_flight == inside
        assert bounds.limit_min <= admission.limit <= bounds.limit_max


@given(STEPS)
def test_whatever_happened_it_opens_wide_again(steps: list[tuple[bool, int, int]]) -> None:
    bounds = AdmissionBounds(limit_max=200)
    admission = Admission(bounds)
    now_ms = 0
    for is_entering, waited_ms, passed_ms in steps:
        now_ms += passed_ms
        if is_entering:
            admission.enter(waited_ms, now_ms)
        elif admission.in_flight:
            admission.leave()
    for _ in range(60):
        now_ms += bounds.interval_ms
        while admission.enter(0, now_ms).is_allowed:
            pass
        while admission.in_flight:
            admission.leave()
    assert admission.limit == bounds.limit_max
