"""The laws of the lists that cursors page over: bounded in number and in bytes, gone at their very millisecond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from antiphon.decide.pages import PageBounds, Pages, cursor, parse_cursor
from antiphon.errors import CursorExpired

BOUNDS = PageBounds(keep_ms=1_000, lists_max=5, bytes_max=100)
TOKENS = st.sampled_from([f"t{at}" for at in range(9)])


def anybody(_kept: str) -> bool:
    return True


class Keeping(RuleBasedStateMachine):
    """Keep lists, read them, let time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: Pages[str] = Pages(BOUNDS)
        self.now_ms = 0
        self.kept: dict[str, tuple[str, int, int]] = {}

    @rule(token=TOKENS, size=st.integers(0, 60), value=st.text(max_size=3))
    def keep(self, token: str, size: int, value: str) -> None:
        self.pages.keep(token, value, size, self.now_ms)
        self.kept.pop(token, None)
        self.kept[token] = (value, size, self.now_ms + BOUNDS.keep_ms)
        while len(self.kept) > BOUNDS.lists_max or sum(size for _, size, _ in self.kept.values()) > BOUNDS.bytes_max:
            del self.kept[next(iter(self.kept))]

    @rule(token=TOKENS)
    def read(self, token: str) -> None:
        kept = self.kept.get(token)
        if kept is None or self.now_ms >= kept[2]:
            with pytest.raises(CursorExpired):
                self.pages.get(token, self.now_ms, anybody)
        else:
            assert self.pages.get(token, self.now_ms, anybody) == kept[0]

    @rule(passed_ms=st.sampled_from([1, 499, 500, 999, 1_000]))
    def wait(self, passed_ms: int) -> None:
        self.now_ms += passed_ms
        self.kept = {token: one for token, one in self.kept.items() if one[2] > self.now_ms}

    @invariant()
    def within_bounds(self) -> None:
        assert len(self.pages) <= BOUNDS.lists_max
        assert 0 <= self.pages.bytes <= BOUNDS.bytes_max
        assert self.pages.bytes == sum(one.size for one in self.pages._kept.values())


TestKeeping = Keeping.TestCase


def test_a_list_is_gone_exactly_after_its_time() -> None:
    pages: Pages[str] = Pages(BOUNDS)
    pages.keep("t", "list", 1, now_ms=7)
    assert pages.get("t", 1_006, anybody) == "list"
    with pytest.raises(CursorExpired, match="1 s"):
        pages.get("t", 1_007, anybody)


def test_somebody_elses_list_is_refused_as_one_that_is_gone() -> None:
    pages: Pages[str] = Pages(BOUNDS)
    pages.keep("t", "list", 1, now_ms=0)
    with pytest.raises(CursorExpired) as refused:
        pages.get("t", 1, lambda kept: kept != "list")
    with pytest.raises(CursorExpired) as gone:
        pages.get("other", 1, anybody)
    assert refused.value.text == gone.value.text
    assert pages.get("t", 1, anybody) == "list", "and it stays where it is"


def test_a_list_above_all_bounds_is_not_kept_and_does_no_harm() -> None:
    pages: Pages[str] = Pages(BOUNDS)
    pages.keep("t", "list", 101, now_ms=0)
    with pytest.raises(CursorExpired):
        pages.get("t", 0, anybody)
    assert (len(pages), pages.bytes) == (0, 0)


@given(st.from_regex(r"master(-[a-z0-9]{1,8})?", fullmatch=True), st.from_regex(r"[0-9a-f]{32}", fullmatch=True))
def test_a_cursor_is_read_back(master: str, token: str) -> None:
    assert parse_cursor(cursor(master, token, 999_999)) == (master, token, 999_999)


@given(st.one_of(st.text(max_size=200), st.from_regex("[a-z.]*[.][0-9\u0660-\u0669\u00b2-]*", fullmatch=True)))
def test_whatever_is_no_cursor_has_expired(text: str) -> None:
    try:
        master, token, offset = parse_cursor(text)
    except CursorExpired:
        return
    assert text.split(".")[:2] == [master, token]
    assert 0 <= offset <= 999_999
