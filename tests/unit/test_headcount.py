"""The headcount: there is always room for masters, and one identity cannot take everybody's."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.headcount import ROOM_FOR_OPERATORS, UNSURE_MS, HeadBounds, Headcount, Place
from antiphon.messages.base import Kind

BOUNDS = HeadBounds(connections=10, of_one=4)


def at(cid: int, server: str = "s") -> Place:
    return Place(server, cid)


def admitted(heads: Headcount, name: str, count: int, *, kind: Kind = Kind.PUBLISHER, first: int = 0) -> int:
    return sum(heads.admit(at(first + cid), kind, name, 0) for cid in range(count))


def test_one_identity_has_its_own_bound() -> None:
    heads = Headcount(BOUNDS)
    assert admitted(heads, "web", 9) == 4
    assert admitted(heads, "app", 9, first=100) == 4
    heads.went(at(0))
    assert admitted(heads, "web", 9, first=200) == 1


def test_all_together_leave_room_and_operators_get_some_of_it() -> None:
    heads = Headcount(BOUNDS)
    assert sum(admitted(heads, f"p{one}", 4, first=one * 10) for one in range(9)) == 10
    assert admitted(heads, "boss", 4, kind=Kind.OPERATOR, first=500) == 4
    many = sum(admitted(heads, f"o{one}", 4, kind=Kind.OPERATOR, first=1_000 + one * 10) for one in range(90))
    assert len(heads) == BOUNDS.connections + ROOM_FOR_OPERATORS == 10 + 4 + many


def test_who_was_let_in_and_never_came_is_forgotten() -> None:
    heads = Headcount(BOUNDS)
    assert admitted(heads, "web", 4) == 4
    heads.came(at(1), "web", 5)
    assert not heads.admit(at(9), Kind.PUBLISHER, "web", UNSURE_MS - 1)
    assert heads.admit(at(9), Kind.PUBLISHER, "web", UNSURE_MS)
    assert heads.of("web") == 2, "the one that came, and the new one"


def test_a_list_mends_what_was_not_heard() -> None:
    heads = Headcount(BOUNDS)
    for cid in (1, 2, 3):
        heads.came(at(cid), "web", 100)
    heads.came(at(4), "web", 300)
    heads.admit(at(5), Kind.PUBLISHER, "new", 150)
    heads.compare({at(2): "web", at(7, "other"): "docs", at(8): ""}, began_ms=200)
    assert heads.of("web") == 2, "1 and 3 are not listed; 4 came after it was asked for"
    assert (heads.of("docs"), heads.of("new"), len(heads)) == (1, 1, 5)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["admit", "came", "went"]), st.integers(0, 12), st.sampled_from(["a", "b", "c"])),
    max_size=80,
)


@given(EVENTS)
def test_the_sums_are_true_whatever_happens(events: list[tuple[str, int, str]]) -> None:
    heads, now_ms = Headcount(BOUNDS), 0
    for what, cid, name in events:
        now_ms += 400
        if what == "admit":
            heads.admit(at(cid), Kind.PUBLISHER, name, now_ms)
        elif what == "came":
            heads.came(at(cid), name, now_ms)
        else:
            heads.went(at(cid))
        there = Counter(head.name for head in heads._there.values())
        assert all(heads.of(one) == there[one] for one in "abc")
    heads.compare({}, began_ms=now_ms + 1)
    heads.admit(at(99), Kind.PUBLISHER, "d", now_ms + 10 * UNSURE_MS)
    assert len(heads) == 1, "nothing stays for ever that the servers do not list"
