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


def wrong(me: str, since_ms: int, value: float = 1.0) -> Record:
    alert = Alert(ID, "node_down", Phase.RAISED, Severity.CRITICAL, "blog", 1.0, since_ms)
    return record(alert, value, f"blog is down by {value}", since_wall_ms=since_ms, me=me)


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
        self.unaware: set[str] = set()
        """Masters that have not heard yet that the server lost its data; while they have not, they hear nothing."""

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
            if name != me and name not in self.unaware:
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

    @precondition(lambda self: self.entry is not None and not self.unaware)
    @rule()
    def the_server_loses_its_data(self) -> None:
        self.entry, self.revision = None, 0
        self.unaware = set("abc")

    @precondition(lambda self: self.unaware)
    @rule(me=MASTERS)
    def hears_of_the_loss(self, me: str) -> None:
        if me in self.unaware:
            self.unaware.discard(me)
            if self.entry is not None:
                self.boards[me].heard(ID, *self.entry, self.now_ms)
            elif self.revision:  # a deletion leaves a marker
                self.boards[me].heard(ID, None, self.revision, self.now_ms)
            else:
                self.boards[me].lost(ID)

    @property
    def is_lost(self) -> bool:
        return bool(self.unaware) or (self.is_open and self.entry is None)

    # who forgets an alert while the server has forgotten it, too, tells it anew, and may
    @precondition(lambda self: not self.is_lost)
    @rule(me=MASTERS)
    def dies_and_starts_anew(self, me: str) -> None:
        self.sees.pop(me, None)
        self.boards[me] = Board(me, BOUNDS)
        if self.entry is not None:
            self.boards[me].heard(ID, *self.entry, self.now_ms)

    @precondition(lambda self: not self.sees)
    @rule()
    def what_is_right_for_all_is_cleared(self) -> None:
        self.all_hear()
        self.now_ms += BOUNDS.lease_ms
        for _ in range(2):  # what was lost is written back first
            for me in "abc":
                self.turn(me)
        assert self.entry is None
        assert not self.is_open

    @precondition(lambda self: self.sees)
    @rule()
    def what_one_sees_wrong_is_told(self) -> None:
        self.all_hear()
        self.now_ms += BOUNDS.lease_ms
        for _ in range(3):  # what another one's server lost is written back, cleared, and raised anew
            for me in "abc":
                self.turn(me)
            self.now_ms += BOUNDS.settle_ms
        assert self.is_open

    def all_hear(self) -> None:
        for me in "abc":
            self.hears_of_the_loss(me)

    @invariant()
    def every_master_shows_what_the_bucket_holds(self) -> None:
        if self.is_lost:
            return
        shown = () if self.entry is None else (self.entry[0],)
        assert all(board.open == shown for board in self.boards.values())
        assert self.is_open is (self.entry is not None)

    @invariant()
    def what_is_lost_is_shown_on(self) -> None:
        if self.is_open and self.entry is None:
            assert all(board.open for board in self.boards.values())


TestMasters = Masters.TestCase
TestMasters.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_master_that_sees_the_same_a_moment_later_raises_nothing_anew() -> None:
    board = Board("b", BOUNDS)
    board.heard(ID, wrong("a", 0), 1, 0)
    board.heard(ID, None, 2, 100)
    assert board.due({ID: wrong("b", 0)}, {ID: 0}, (), 500) == []
    assert board.due({ID: wrong("b", 0)}, {ID: 0}, (), 600)[0].phase is Phase.RAISED
    assert board.due({ID: wrong("b", 200)}, {ID: 200}, (), 300)[0].phase is Phase.RAISED, "it began after the clearing"


def test_who_comes_later_reads_how_it_is_by_then() -> None:
    board = Board("a", BOUNDS)
    board.swapped(Swap(ID, wrong("a", 100, 0.1), 0, Phase.RAISED), 1, 100)
    now = {ID: wrong("a", 900, 0.7)}
    assert board.due(now, {ID: 0}, (), 1_000) == []
    [renewed] = board.due(now, {ID: 0}, (), 1_100)
    assert renewed.record is not None
    assert (renewed.phase, renewed.record.value, renewed.record.text) == (None, 0.7, "blog is down by 0.7")
    assert renewed.record.since_ms == 100, "since when stays as it was told"


def test_a_reminder_that_falls_together_with_a_renewal_is_told() -> None:
    board = Board("a", BOUNDS)
    board.swapped(Swap(ID, wrong("a", 0), 0, Phase.RAISED), 1, 0)
    [swap] = board.due({ID: wrong("a", 0)}, {ID: 0}, {ID}, 1_000)
    assert swap.phase is Phase.REMINDED


def test_what_the_server_lost_is_written_back_and_then_cleared() -> None:
    board = Board("a", BOUNDS)
    board.swapped(Swap(ID, wrong("a", 0), 0, Phase.RAISED), 57, 0)
    board.lost(ID)
    assert [one.id for one in board.open] == [ID]
    [back] = board.due({}, {}, (), 10)
    assert (back.revision, back.phase, back.record is not None) == (0, None, True)
    board.swapped(back, 1, 10)
    [cleared] = board.due({}, {}, (), 20)
    assert (cleared.record, cleared.revision, cleared.phase) == (None, 1, Phase.CLEARED)


def test_what_another_master_wrote_back_counts_though_its_revision_is_lower() -> None:
    board = Board("b", BOUNDS)
    board.heard(ID, wrong("a", 0), 57, 0)
    board.heard(ID, wrong("a", 0), 1, 10)
    [swap] = board.due({ID: wrong("b", 0)}, {ID: 0}, (), 10 + BOUNDS.lease_ms)
    assert swap.revision == 1
