"""Nobody has more under way at once than his turns, and what has ended is forgotten."""

from __future__ import annotations

from contextlib import ExitStack, suppress

from antiphon.decide.turns import Turns


def test_each_has_his_own_turns_and_gives_them_back() -> None:
    turns: Turns[str] = Turns(2)
    with ExitStack() as stack:
        assert [stack.enter_context(turns.taken("web")) for _ in range(4)] == [True, True, False, False]
        assert stack.enter_context(turns.taken("shop"))
        assert len(turns) == 2
    assert len(turns) == 0
    with turns.taken("web") as may:
        assert may


def test_who_fails_gives_his_turn_back() -> None:
    turns: Turns[str] = Turns(1)
    with suppress(RuntimeError), turns.taken("web"):
        raise RuntimeError
    with turns.taken("web") as may:
        assert may
