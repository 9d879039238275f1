"""Histories that older versions wrote are read alike for ever, and what they decided is what would be decided now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from antiphon.decide.saga import Append, fold, moves
from antiphon.decide.saga_log import Entry, Link, read, subject_of
from antiphon.decide.saga_state import Saga
from antiphon.decide.saga_view import view
from antiphon.messages.saga_history import SAGAS
from antiphon.testing.rehearsal import Kept
from golden_sagas import FOLDER, SCENARIOS, STORMS, main, write
from golden_sagas import read as read_golden
from saga_laws import broken

GOLDEN = sorted(FOLDER.glob("*.jsonl"))
"""Add some (`python tests/golden_sagas.py`); never change one: a stream somewhere holds just that."""
KINDS_MIN = 12


def entry_of(one: Kept) -> Entry:
    entry = read(one.subject, one.data, one.seq, one.at_ms)
    assert entry is not None
    return entry


def folded(saga: str, kept: list[Kept]) -> Saga:
    state = Saga(saga)
    for one in kept:
        state = fold(state, entry_of(one))
    return state


def contains(whole: Any, part: Any) -> bool:
    """Whether everything in `part` stands in `whole` too; a later version may say more."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(part, list):
        return len(whole) == len(part) and all(contains(a, b) for a, b in zip(whole, part, strict=True))
    return bool(whole == part)


def test_there_are_many_and_each_scenario_has_one() -> None:
    names = {path.stem for path in GOLDEN}
    assert len(names) >= KINDS_MIN
    assert names >= {*SCENARIOS, *STORMS}, "run `python tests/golden_sagas.py --missing`"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_history_replays_to_its_recorded_end(path: Path) -> None:
    saga, kept, recorded = read_golden(path)
    state = folded(saga, kept)
    shown = view(state, state.newest_ms, has_history=True)
    assert shown is not None
    assert contains(json.loads(shown.model_dump_json(exclude_none=True)), recorded)
    assert moves(state, state.newest_ms) == (), "nothing was left to do when it was recorded"
    assert broken(kept, saga) == []


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_in_any_order_it_is_the_same(path: Path) -> None:
    saga, kept, _ = read_golden(path)
    assert folded(saga, kept) == folded(saga, kept[::-1]) == folded(saga, sorted(kept, key=lambda one: one.subject))


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_link_is_what_would_be_written_now(name: str) -> None:
    """Sagas that run while their coordinators are replaced go on as they would have; a change here is a decision."""
    saga, kept, _ = read_golden(FOLDER / f"{name}.jsonl")
    for at, one in enumerate(kept):
        if at == 0 or one.stream != SAGAS or not isinstance(entry_of(one).event, Link):
            continue
        before = folded(saga, kept[:at])
        possible = [move for move in moves(before, one.at_ms) if isinstance(move, Append)]
        subjects = {subject_of(move.event, saga, **move.keys()): move for move in possible}
        assert one.subject in subjects, one.subject
        written = json.loads(subjects[one.subject].event.model_dump_json(exclude_none=True))
        then = json.loads(one.data)
        timeouts = (written.pop("timeout_ms", None), then.pop("timeout_ms", None))
        assert contains(written, then), one.subject
        assert timeouts[0] is None or abs(timeouts[0] - timeouts[1]) < 10, "a deadline near the saga's, by the clock"


def test_a_history_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("happy", tmp_path)
    assert path.read_text() == (FOLDER / "happy.jsonl").read_text(), "a rehearsal gives the same history each time"
    path.write_text("kept")
    with pytest.raises(FileExistsError):
        write("happy", tmp_path)
    assert path.read_text() == "kept"
    assert main(["happy"]) == 1
    assert "stays" in capsys.readouterr().err
    assert main(["no-such"]) == 1
    assert main([]) == 0
