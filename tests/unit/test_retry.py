"""The laws of asking again: never more than the budget, never what may harm, never past the deadline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.retry import UNDELIVERED, Answer, Budget, RetryBounds, Verdict, full_jitter_ms, judge
from antiphon.errors import CODES, AntiphonError, HandlerFailed, Internal, NoResponders, OutOfBudget, Overloaded

BOUNDS = RetryBounds()
DICE = st.floats(0, 1, exclude_max=True)
ERRORS = st.sampled_from(sorted(CODES)).map(lambda code: CODES[code]("x"))


def asked(error: AntiphonError, budget: Budget | None = None, **more: object) -> Verdict:
    given_: dict[str, object] = {"attempts": 1, "is_idempotent": True, "left_ms": 5_000, "dice": 0.5, **more}
    if budget is None:
        budget = BOUNDS.budget()
        budget.requested(10)
    return judge(error, bounds=BOUNDS, budget=budget, now_ms=0, **given_)  # type: ignore[arg-type]  # one default each


@given(
    st.integers(0, 500),
    st.integers(0, 5),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, 3_000), st.integers(0, 20), st.integers(0, 30)), max_size=40),
)
def test_any_stretch_of_time_stays_within_the_budget(
    share: int, per_s: int, burst: int, steps: list[tuple[int, int, int]]
) -> None:
    budget = Budget(share, per_s, burst)
    now_ms = 0
    log: list[tuple[int, int, int]] = []  # time, requests, extras
    for passed_ms, requests, tries in steps:
        now_ms += passed_ms
        budget.requested(requests)
        log.append((now_ms, requests, sum(budget.spend(now_ms) for _ in range(tries))))
    for begin in range(len(log)):
        requests = extras = 0
        for at_ms, made, spent in log[begin:]:
            requests += made
            extras += spent
            saved = burst if begin else 0
            # the minimum accrues since the last look at the bucket, which lies before this stretch
            since_ms = log[begin - 1][0] if begin else log[0][0]
            assert 1_000 * extras <= 1_000 * saved + share * requests + per_s * (at_ms - since_ms)
    assert budget.spent == sum(extras for _, _, extras in log)


def test_a_tenth_of_the_requests_may_be_retried_when_nothing_else_earns() -> None:
    budget = Budget(100, 0, 10)
    retried = 0
    for now_ms in range(10_000):
        budget.requested()
        retried += budget.spend(now_ms)
    assert retried == 1_000


def test_a_quiet_publisher_may_retry_once_a_second() -> None:
    budget = BOUNDS.budget()
    assert [budget.spend(now_ms) for now_ms in (0, 999, 1_000, 1_500, 2_000)] == [False, False, True, False, True]


@given(ERRORS, st.booleans(), st.integers(1, 5), st.integers(0, 3_000), DICE)
def test_what_is_retried_may_be(
    error: AntiphonError, is_idempotent: bool, attempts: int, left_ms: int, dice: float
) -> None:
    verdict = asked(error, is_idempotent=is_idempotent, attempts=attempts, left_ms=left_ms, dice=dice)
    if verdict.answer is Answer.RETRY:
        assert error.retryable
        assert is_idempotent or isinstance(error, (*UNDELIVERED, Overloaded))
        assert attempts < BOUNDS.attempts_max
        assert verdict.delay_ms < left_ms
    else:
        assert verdict.delay_ms == 0


@pytest.mark.parametrize(
    ("error", "is_idempotent", "answer"),
    [
        (NoResponders(), False, Answer.RETRY),
        (HandlerFailed(), True, Answer.RETRY),
        (HandlerFailed(), False, Answer.HARMFUL),
        (OutOfBudget(), False, Answer.HARMFUL),
        (Overloaded(), False, Answer.RETRY),
        (Internal(), True, Answer.HOPELESS),
    ],
)
def test_examples(error: AntiphonError, is_idempotent: bool, answer: Answer) -> None:
    assert asked(error, is_idempotent=is_idempotent).answer is answer


@given(st.integers(0, 4_000), DICE)
def test_nobody_comes_back_before_it_was_asked_to(retry_after_ms: int, dice: float) -> None:
    verdict = asked(Overloaded(retry_after_ms=retry_after_ms), dice=dice)
    assert verdict.answer is Answer.RETRY
    assert retry_after_ms <= verdict.delay_ms <= retry_after_ms + BOUNDS.cap_ms


@given(st.integers(1, 10**9), DICE)
def test_the_jitter_is_below_its_doubling_cap(attempts: int, dice: float) -> None:
    wait_ms = full_jitter_ms(attempts, BOUNDS, dice)
    assert 0 <= wait_ms < max(1, min(BOUNDS.cap_ms, BOUNDS.base_ms * 2 ** min(attempts - 1, 20)))


def test_only_a_retry_is_paid_for() -> None:
    budget = BOUNDS.budget()
    budget.requested(10)
    assert asked(Internal(), budget).answer is Answer.HOPELESS
    assert asked(HandlerFailed(), budget, left_ms=0).answer is Answer.LATE
    assert asked(HandlerFailed(), budget, attempts=3).answer is Answer.EXHAUSTED
    assert budget.spent == 0
    assert asked(HandlerFailed(), budget).answer is Answer.RETRY
    assert asked(HandlerFailed(), budget).answer is Answer.BROKE
    assert (budget.spent, budget.refused) == (1, 1)
