"""Nonces: good once, within their time, and bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.identities import Reason
from antiphon.decide.nonces import WINDOW_MS, Nonces

NOW_MS = 10**12


def test_a_nonce_is_good_once_and_in_its_time() -> None:
    nonces = Nonces()
    assert nonces.use("a", NOW_MS, NOW_MS) is None
    assert nonces.use("a", NOW_MS, NOW_MS + 1) is Reason.REPLAYED
    assert nonces.use("b", NOW_MS - WINDOW_MS - 1, NOW_MS) is Reason.WRONG_CLOCK
    assert nonces.use("b", NOW_MS + WINDOW_MS + 1, NOW_MS) is Reason.WRONG_CLOCK
    assert nonces.use("b", NOW_MS + WINDOW_MS, NOW_MS) is None
    nonces.forget("a")
    assert nonces.use("a", NOW_MS, NOW_MS) is None


def test_what_is_kept_is_bounded() -> None:
    nonces = Nonces(kept_max=2)
    assert [nonces.use(one, NOW_MS, NOW_MS) for one in "abc"] == [None, None, Reason.TOO_OFTEN]
    later = NOW_MS + 2 * WINDOW_MS + 1
    assert [nonces.use(one, later, later) for one in "cd"] == [None, None]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-WINDOW_MS, WINDOW_MS), st.integers(0, WINDOW_MS))))
def test_no_proof_is_taken_twice(shown: list[tuple[str, int, int]]) -> None:
    nonces, now_ms, taken = Nonces(), NOW_MS, set[tuple[str, int]]()
    made = {"a": NOW_MS, "b": NOW_MS + WINDOW_MS}
    for nonce, _, later_ms in shown:
        now_ms += later_ms
        if nonces.use(nonce, made[nonce], now_ms) is None:
            assert (nonce, made[nonce]) not in taken
            taken.add((nonce, made[nonce]))
