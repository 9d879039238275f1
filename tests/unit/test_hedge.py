"""The laws of hedging: when and within which budget, and what it does to a tail; the race itself is the gather's."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.decide.digest import Digest, Quantiles
from antiphon.decide.hedge import HedgeBounds, delay_ms
from antiphon.decide.retry import Budget

KNOWN = Quantiles(p50_us=8_000, p95_us=18_000, p97_us=21_500, p99_us=40_000, records=500)
INSTANCES = ("a", "b", "c")


def rich() -> Budget:
    budget = HedgeBounds().budget()
    budget.requested(1_000)
    return budget


def test_a_hedge_goes_out_when_the_budget_can_pay_for_all_who_are_as_late() -> None:
    assert delay_ms(KNOWN, 2, 1_000, is_idempotent=True) == 22
    assert delay_ms(KNOWN, 2, 1_000, is_idempotent=True, bounds=HedgeBounds(share_permille=50)) == 18
    assert delay_ms(Quantiles(records=500), 2, 1_000, is_idempotent=True) == 2


def test_never_without_need_or_right() -> None:
    assert delay_ms(KNOWN, 1, 1_000, is_idempotent=True) is None
    assert delay_ms(KNOWN, 2, 1_000, is_idempotent=False) is None
    assert delay_ms(Quantiles(records=49), 2, 1_000, is_idempotent=True) is None
    assert delay_ms(KNOWN, 2, 25, is_idempotent=True) is None, "no time would be left"


def simulated(*, is_hedged: bool, seed: int, requests: int) -> tuple[int, float]:
    """Return p99 in microseconds and the share of extra requests, with a 2 % tail of 1 s on any instance."""
    random = Random(seed)
    bounds = HedgeBounds()
    budget, digest = bounds.budget(), Digest()

    def draw_us() -> int:
        return 1_000_000 if random.random() < 0.02 else int(random.lognormvariate(9, 0.4))

    took: list[int] = []
    known = Quantiles()
    for now_ms in range(requests):
        if now_ms % 250 == 0:
            known = digest.quantiles()
        budget.requested()
        first_us = draw_us()
        after_ms = delay_ms(known, 2, 5_000, is_idempotent=True, bounds=bounds) if is_hedged else None
        second_us = None
        if after_ms is not None and first_us > after_ms * 1_000:
            second_us = after_ms * 1_000 + draw_us() if budget.spend(now_ms) else None
        won_us = first_us if second_us is None else min(first_us, second_us)
        if second_us is not None and second_us < first_us:
            digest.censor(won_us, now_ms)
        else:
            digest.record(won_us, now_ms)
        took.append(won_us)
    return sorted(took)[requests * 99 // 100], budget.spent / requests


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_tail_of_two_per_cent_is_cut_for_three_per_cent_of_requests(seed: int) -> None:
    without, _ = simulated(is_hedged=False, seed=seed, requests=5_000)
    hedged, extra = simulated(is_hedged=True, seed=seed, requests=5_000)
    assert without == 1_000_000
    assert hedged <= 0.25 * without
    assert extra <= 0.03


@given(st.integers(0, 20_000))
def test_extra_requests_never_exceed_their_share(requests: int) -> None:
    budget = HedgeBounds().budget()
    for _ in range(requests):
        budget.requested()
        budget.spend(0)
    assert 1_000 * budget.spent <= 30 * requests
