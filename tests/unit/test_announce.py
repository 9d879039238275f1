"""The laws of announcing: over any number of masters an alert is told once and cleared once, also those of the dead."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from antiphon.decide.alerts import Alert, Phase, Severity
from antiphon.decide.announce import AnnounceBounds, Board, Record, Swap, record

BOUNDS = AnnounceBounds(renew_ms=1_000, lease_ms=3_000, settle_ms=500)
ID = "node_down:blog"
MASTERS = st.sampled_from(["a", "b", "c"])


def wrong(me: str, since_ms: int) -> Record:
    alert = Alert(ID, "node_down", Phase.RAISED, Severity.CRITICAL, "blog", 1.0, since_ms)
    return record(alert, "blog is down", since_ms, me)


class Masters(RuleBasedStateMachine):
    """Three masters and one bucket; they see, write, die and come back in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 10_000
        self.revision = 0
        self.entry: tuple[Record, int] | None = None
        self.boards: dict[str, Board] = {name: Board(name, BOUNDS) for name in "abc"}
        self.sees: dict[str, int] = {}
        self.is_open = False

    def write(self, me: str, swap: Swap) -> None:
        current = 0 if self.entry is None else self.entry[1]
        if swap.revision != current:
            self.boards[me].swapped(swap, None, self.now_ms)
            return
        self.revision += 1
        self.entry = None if swap.record is None else (swap.record, self.revision)
        if swap.phase is Phase.RAISED:
            assert not self.is_open, "told once"
            self.is_open = True
        elif swap.phase is Phase.CLEARED:
            assert self.is_open, "cleared once"
            self.is_open = False
        self.boards[me].swapped(swap, self.revision, self.now_ms)
        for name, board in self.boards.items():
            if name != me:
                board.heard(ID, swap.record, self.revision, self.now_ms)

    def turn(self, me: str, *, reminded: bool = False) -> None:
        seen = {ID: wrong(me, self.sees[me])} if me in self.sees else {}
        for swap in self.boards[me].due(seen, {ID: self.sees.get(me, 0)}, {ID} if reminded else (), self.now_ms):
            self.write(me, swap)

    @rule(me=MASTERS)
    def goes_wrong(self, me: str) -> None:
        self.sees.setdefault(me, self.now_ms)

    @rule(me=MASTERS)
    def goes_right(self, me: str) -> None:
        self.sees.pop(me, None)

    @rule(me=MASTERS, reminded=st.booleans())
    def takes_its_turn(self, me: str, reminded: bool) -> None:
        self.turn(me, reminded=reminded)

    @rule(passed_ms=st.sampled_from([1, 400, 1_000, 4_000]))
    def time_passes(self, passed_ms: int) -> None:
        self.now_ms += passed_ms

    @rule(me=MASTERS)
    def dies_and_starts_anew(self, me: str) -> None:
        self.sees.pop(me, None)
        self.boards[me] = Board(me, BOUNDS)
        if self.entry is not None:
            self.boards[me].heard(ID, *self.entry, self.now_ms)

    @precondition(lambda self: not self.sees)
    @rule()
    def what_is_right_for_all_is_cleared(self) -> None:
        self.now_ms += BOUNDS.lease_ms
        for me in "abc":
            self.turn(me)
        assert self.entry is None
        assert not self.is_open

    @precondition(lambda self: self.sees)
    @rule()
    def what_one_sees_wrong_is_told(self) -> None:
        self.now_ms += BOUNDS.lease_ms
        for _ in range(2):
            for me in "abc":
                self.turn(me)
            self.now_ms += BOUNDS.settle_ms
        assert self.is_open

    @invariant()
    def every_master_shows_what_the_bucket_holds(self) -> None:
        shown = () if self.entry is None else (self.entry[0],)
        assert all(board.open == shown for board in self.boards.values())
        assert self.is_open is (self.entry is not None)


TestMasters = Masters.TestCase
TestMasters.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_master_that_sees_the_same_a_moment_later_raises_nothing_anew() -> None:
    board = Board("b", BOUNDS)
    board.heard(ID, wrong("a", 0), 1, 0)
    board.heard(ID, None, 2, 100)
    assert board.due({ID: wrong("b", 0)}, {ID: 0}, (), 500) == []
    assert board.due({ID: wrong("b", 0)}, {ID: 0}, (), 600)[0].phase is Phase.RAISED
    assert board.due({ID: wrong("b", 200)}, {ID: 200}, (), 300)[0].phase is Phase.RAISED, "it began after the clearing"
