"""How rows look: aligned where they fit, cut where that is enough, a record for each where nothing else can be read."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as some
from rich.console import Console

from antiphon.cli.record.writing import COLUMN_CHARS_MIN, GAP, fitting, rendered


def shown(columns: list[str], rows: list[list[object]], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(rendered(columns, rows, console))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@given(widths=some.lists(some.integers(1, 200), min_size=1, max_size=30), width=some.integers(20, 200))
def test_what_is_cut_fits_and_stays_readable(widths: list[int], width: int) -> None:
    cut = fitting(widths, width)
    if cut is None:
        return
    kept = [cut.get(at, wide) for at, wide in enumerate(widths)]
    assert sum(kept) + GAP * (len(kept) - 1) <= width
    assert all(COLUMN_CHARS_MIN <= cut[at] < widths[at] for at in cut)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_longer_than_the_terminal_and_no_number_is_lost(width: int) -> None:
    columns = [f"column_{at}" for at in range(24)]
    lines = shown(columns, [list(range(1_000, 1_024)), ["ж" * 50] * 24], width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    if width < 200:
        assert lines[0] == "row 1"
        assert all(f"column_{at} " in text for at in range(9))
        assert all(str(number) in text for number in range(1_000, 1_024))


def test_a_long_text_is_cut_for_the_others_to_fit() -> None:
    [head, row] = shown(["request", "query"], [["r1", "what does an outage teach " * 5]], 50)
    assert head.split() == ["request", "query"]
    assert row.startswith("r1       what does an outage teach")
    assert row.endswith("…")
