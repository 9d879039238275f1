"""Who is refused unseen, and how much of it is told: no secret can be tried for long, and nobody shuts an owner out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.knocks import REMEMBERED_MAX, Knock, KnockBounds, Knocks
from antiphon.decide.limit import Rate

BOUNDS = KnockBounds(failures=Rate(3, 60_000, 3), strangers=Rate(5, 60_000, 5))
OWNER, THIEF = Knock("10.0.0.1", "key-1", "UOWNER"), Knock("10.0.0.1", "key-1", "UTHIEF")


def held(knocks: Knocks, knock: Knock, now_ms: int) -> int:
    """How many of ten failures are looked at."""
    seen = 0
    for _ in range(10):
        if not knocks.is_held(knock, now_ms):
            seen += 1
            knocks.failed(knock, now_ms)
    return seen


def test_one_credential_is_looked_at_so_often_a_minute() -> None:
    knocks = Knocks(BOUNDS)
    assert held(knocks, THIEF, 0) == 4, "three are within the rate; the fourth says that it is not"
    assert held(knocks, THIEF, 10_000) == 0
    assert held(knocks, THIEF._replace(place="10.0.0.2"), 0) == 4, "another place is another count"
    assert held(knocks, THIEF._replace(credential="key-2"), 0) == 4
    assert held(knocks, THIEF, 20_000) >= 1, "it does not last for ever"


def test_a_new_key_is_no_way_round_it() -> None:
    knocks = Knocks(BOUNDS)
    seen = [held(knocks, THIEF._replace(nkey=f"U{at}"), 0) for at in range(10)]
    assert seen == [4, *[0] * 9]


def test_whoever_came_in_before_is_not_shut_out_by_a_stranger_who_fails_in_his_name() -> None:
    knocks = Knocks(BOUNDS)
    knocks.came_in(OWNER)
    held(knocks, THIEF, 0)
    assert knocks.is_held(THIEF, 0)
    assert not knocks.is_held(OWNER, 0)
    knocks.failed(OWNER, 0)
    assert knocks.is_held(OWNER, 0), "until he fails himself"


def test_without_a_limit_nobody_is_held() -> None:
    knocks = Knocks(KnockBounds(failures=None, strangers=None))
    assert held(knocks, THIEF, 0) == 10
    assert all(knocks.may_look("10.0.0.1", 0) and knocks.told("10.0.0.1", 0) == 0 for _ in range(1_000))


def test_what_is_not_told_is_counted() -> None:
    knocks = Knocks(BOUNDS)
    told = [knocks.told("10.0.0.1", 0) for _ in range(12)]
    assert told == [*[0] * 5, *[None] * 7]
    assert not knocks.may_look("10.0.0.1", 0)
    assert knocks.may_look("10.0.0.2", 0)
    assert knocks.told("10.0.0.1", 60_000) == 7
    assert knocks.told("10.0.0.1", 60_000) == 0


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 20_000)), max_size=60))
def test_told_and_counted_are_all(arrivals: list[tuple[str, int]]) -> None:
    knocks, now_ms, told = Knocks(BOUNDS), 0, 0
    for place, wait_ms in arrivals:
        now_ms += wait_ms
        said = knocks.told(place, now_ms)
        told += 0 if said is None else said + 1
    later_ms = now_ms + 120_000
    told += sum((knocks.told(place, later_ms) or 0) for place in ("a", "b"))
    assert told == len(arrivals)


def test_a_million_strangers_cost_a_bounded_memory() -> None:
    knocks = Knocks(BOUNDS)
    for at in range(REMEMBERED_MAX + 500):
        stranger = Knock(f"host-{at}", f"key-{at}", "U")
        knocks.came_in(stranger)
        for _ in range(5):
            knocks.failed(stranger, 0)
            knocks.told(stranger.place, 0)
    assert len(knocks._welcome) <= REMEMBERED_MAX
    assert len(knocks._held) <= REMEMBERED_MAX
    assert len(knocks._untold) <= REMEMBERED_MAX
