"""The law of restart intensity: never more than so many within any window, and never fewer than allowed."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.restarts import Intensity, Restarts, crashed


@given(
    st.lists(st.integers(0, 30), max_size=60),
    st.integers(0, 5),
    st.integers(1, 50),
)
def test_restarts_in_any_window_are_bounded_and_a_refusal_has_a_reason(
    gaps_ms: list[int], restarts_max: int, window_ms: int
) -> None:
    intensity = Intensity(restarts_max, window_ms)
    state = Restarts()
    restarted: list[int] = []
    for now_ms in accumulate(gaps_ms):
        state, again = crashed(state, now_ms, intensity)
        recent = [at for at in restarted if now_ms - at < window_ms]
        assert again is (len(recent) < restarts_max)
        if again:
            restarted.append(now_ms)
        assert len(state.at_ms) <= restarts_max
    for end in restarted:
        assert sum(end - window_ms < at <= end for at in restarted) <= restarts_max
