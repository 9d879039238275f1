"""Sagas while masters, nodes and the server are killed and frozen; and that the auditor sees what would be wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from benchmarks.saga import audit
from benchmarks.saga.chaos import chaos
from msgspec.structs import replace

from antiphon import Saga
from antiphon.decide.saga_log import Entry
from antiphon.messages.saga_history import SagaEnded, StepCommanded, StepOutcome
from antiphon.testing.rehearsal import Rehearsal, failing

SAGAS, KILLS, SEED = 300, 15, 7


@pytest.mark.timeout(400)
async def test_every_saga_ends_whole_or_undone_and_every_effect_happens_once(tmp_path: Path) -> None:
    out = await chaos(tmp_path, count=SAGAS, kills=KILLS, seed=SEED, pause_s=1.0, tell=print)
    print(f"{out.submitted} sagas, {dict(out.kills)}, {out.freezes} frozen, {dict(out.states)}, {out.settled_s:.1f} s")
    assert out.submitted >= SAGAS
    assert out.kills.total() >= KILLS
    assert out.faults == []
    assert set(out.states) <= {"completed", "compensated"}
    assert out.states["completed"] > 0, "some were to be completed"
    assert out.states["compensated"] > 0, "and some to fail"


# -- the auditor bites


def rehearsed(*, fails: bool) -> tuple[list[Entry], audit.Ledger]:
    """A saga of two steps, and a ledger that says what it does."""
    saga = Saga("line").step("a", "do", node="x", compensate="undo").step("b", "do", node="y", compensate="undo")
    done: audit.Ledger = Counter()

    def do(command: StepCommanded) -> str:
        if fails and command.step == "b":
            return str(failing(99)(command))
        done["rehearsal", command.step, "do"] += 1
        return "done"

    def undo(command: StepCommanded) -> None:
        done["rehearsal", command.step, "undo"] += 1

    rehearsal = Rehearsal(saga, {"do": do, "undo": undo})
    rehearsal.run()
    return rehearsal.journal.entries(), done


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_right_is_not_complained_of(*, fails: bool) -> None:
    entries, done = rehearsed(fails=fails)
    assert audit.faults({"rehearsal": entries}, done) == []


def test_it_sees_effects_that_are_missing_or_doubled() -> None:
    entries, done = rehearsed(fails=False)
    assert audit.faults({"rehearsal": entries}, done + Counter({("rehearsal", "a", "do"): 1})) == [
        "rehearsal: completed, and a was done 2 times and undone 0 times"
    ]
    assert len(audit.faults({"rehearsal": entries}, Counter())) == 2
    entries, done = rehearsed(fails=True)
    assert audit.faults({"rehearsal": entries}, done - Counter({("rehearsal", "a", "undo"): 1})) == [
        "rehearsal: compensated, and a was done 1 times and undone 0 times"
    ]
    assert "never accepted" in audit.faults({}, done)[0]


def test_it_sees_histories_that_are_not_legal() -> None:
    entries, done = rehearsed(fails=True)
    end = next(entry for entry in entries if isinstance(entry.event, SagaEnded))
    commands = [entry for entry in entries if isinstance(entry.event, StepCommanded)]
    outcome = next(entry for entry in entries if isinstance(entry.event, StepOutcome))

    def seen(changed: list[Entry]) -> str:
        return "; ".join(audit.faults({"rehearsal": changed}, done))

    assert "has not ended" in seen([entry for entry in entries if entry is not end])
    assert "is not there" in seen([])
    assert "after its end" in seen([*entries, replace(commands[0], seq=end.seq + 1)])
    assert "has no outcome" in seen([entry for entry in entries if entry is not outcome])
    forth, back = commands[0], commands[-1]
    assert "begun to be undone" in seen(
        [
            replace(entry, seq=back.seq)
            if entry is forth
            else replace(entry, seq=forth.seq)
            if entry is back
            else entry
            for entry in entries
        ]
    )
