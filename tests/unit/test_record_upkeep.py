"""When the record is sealed, merged and copied, and where a stream is read from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from antiphon.decide.reading import Gap, Position, begun
from antiphon.decide.upkeep import HOUR_MS, Segment, UpkeepBounds, UpkeepState, due, merges

BOUNDS = UpkeepBounds()
NOW_MS = 1_790_000_000_000


def idle(**fields: object) -> UpkeepState:
    state = UpkeepState(compacted_ms=NOW_MS, discarded_ms=NOW_MS, snapshot_ms=NOW_MS, is_changed=False)
    for name, value in fields.items():
        setattr(state, name, value)
    return state


def test_nothing_is_due_where_nothing_has_happened() -> None:
    assert due(idle(), NOW_MS, BOUNDS) is None


def test_rows_are_sealed_when_they_are_many_or_old() -> None:
    assert due(idle(open_rows=249_999, open_since_ms=NOW_MS), NOW_MS, BOUNDS) is None
    assert due(idle(open_rows=250_000, open_since_ms=NOW_MS), NOW_MS, BOUNDS) == "seal"
    assert due(idle(open_rows=1, open_since_ms=NOW_MS - 60_000), NOW_MS, BOUNDS) == "seal"


def test_catching_up_comes_before_snapshots_yet_there_are_some() -> None:
    behind = idle(is_changed=True, snapshot_ms=NOW_MS - 2_000, is_behind=True)
    assert due(behind, NOW_MS, BOUNDS) is None
    assert due(behind, NOW_MS + 8_000, BOUNDS) == "snapshot"
    assert due(idle(is_changed=True, snapshot_ms=NOW_MS - 2_000), NOW_MS, BOUNDS) == "snapshot"


@given(took_ms=some.integers(0, 100_000), turns=some.integers(1, 50))
def test_snapshots_take_a_tenth_of_the_time_at_most(took_ms: int, turns: int) -> None:
    now_ms = NOW_MS
    state = idle(is_changed=True, snapshot_ms=0, snapshot_took_ms=took_ms)
    began_ms = spent_ms = 0
    for _ in range(turns):
        while due(state, now_ms, BOUNDS) != "snapshot":
            now_ms += max(1, took_ms // 3)
            state.compacted_ms = state.discarded_ms = now_ms
        if not spent_ms and not began_ms:
            began_ms = now_ms
        state.snapshot_ms = now_ms
        now_ms += took_ms
        spent_ms += took_ms
    assert spent_ms - took_ms <= (now_ms - began_ms) / 10


@given(
    sealed=some.lists(some.tuples(some.integers(0, 50 * HOUR_MS), some.integers(0, 2), some.integers(1, 900))),
    now_ms=some.integers(0, 60 * HOUR_MS),
)
def test_what_is_merged_is_of_one_level_and_past_and_fits(sealed: list[tuple[int, int, int]], now_ms: int) -> None:
    segments = [Segment(f"f{at}", level, rows, at_ms) for at, (at_ms, level, rows) in enumerate(sealed)]
    groups = merges(segments, now_ms, rows_max=1_000)
    files = [one.file for group in groups for one in group]
    assert len(files) == len(set(files))
    for group in groups:
        assert len(group) > 1
        assert len({one.level for one in group}) == 1
        assert sum(one.rows for one in group) <= 1_000
        period_ms = HOUR_MS if group[0].level == 0 else 24 * HOUR_MS
        assert len({one.sealed_ms // period_ms for one in group}) == 1
        assert group[0].sealed_ms // period_ms < now_ms // period_ms


def test_a_first_reader_begins_at_the_beginning() -> None:
    assert begun(None, 7, 1, 100) == (Position(7, 0), None)
    assert begun(None, 7, 51, 100) == (Position(7, 50), Gap(1, 50, "retention"))


def test_a_reader_goes_on_behind_its_position() -> None:
    assert begun(Position(7, 60), 7, 51, 100) == (Position(7, 60), None)
    assert begun(Position(7, 100), 7, 101, 100) == (Position(7, 100), None)


def test_what_is_gone_made_again_or_cut_off_is_a_gap() -> None:
    assert begun(Position(7, 40), 7, 51, 100) == (Position(7, 50), Gap(41, 50, "retention"))
    assert begun(Position(7, 40), 8, 1, 3) == (Position(8, 0), Gap(41, None, "recreated"))
    assert begun(Position(7, 40), 7, 1, 30) == (Position(7, 30), Gap(31, 40, "rewound"))


@given(
    position=some.none() | some.builds(Position, some.integers(1, 3), some.integers(0, 50)),
    created=some.integers(1, 3),
    first=some.integers(1, 60),
    length=some.integers(0, 60),
)
def test_reading_never_stands_still_twice(position: Position | None, created: int, first: int, length: int) -> None:
    last = first + length - 1
    again, _ = begun(position, created, first, last)
    once_more, _ = begun(again, created, first, last)
    settled, gap = begun(once_more, created, first, last)
    assert settled == once_more, "after a look or two it reads"
    assert gap is None
