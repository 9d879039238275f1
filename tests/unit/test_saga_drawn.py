"""A saga as it is drawn on a terminal of 80 columns: running, undone, parked, and after its history was purged."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from antiphon import Saga
from antiphon.cli.sagas.drawn import drawing, history, plain
from antiphon.errors import Declined
from antiphon.messages.saga import SagaCompensation, SagaRetry
from antiphon.messages.saga_desk import SagaView
from antiphon.testing import NoAnswer, Rehearsal
from antiphon.testing.rehearsal import NOON_MS

ONCE = SagaRetry(attempts_max=1, rounds_max=1)
LONG = "a-step-with-a-name-that-is-much-longer-than-a-column-may-be"


def rehearsed(until_ms: int | None = None, **handlers: Any) -> SagaView:
    saga = (
        Saga("checkout")
        .step("verify", node="users")
        .step("charge", node="payments", compensate=SagaCompensation(action="refund", retry=ONCE))
        .step(LONG, "send", node="mail", retry=ONCE)
    )
    well: dict[str, Any] = dict.fromkeys(("verify", "charge", "refund", "send"), lambda _: None)
    return Rehearsal(saga, well | handlers, id="order-1").run(until_ms=until_ms)


def no(_command: object) -> None:
    raise Declined("no \x1b[31m" + "and again no " * 20)


def dies(_command: object) -> None:
    raise NoAnswer


def drawn(what: Any) -> list[str]:
    console = Console(width=80, force_terminal=False, highlight=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get().splitlines()


SHAPES = {
    "completed": rehearsed(),
    "running": rehearsed(until_ms=5_000, charge=dies),
    "compensated": rehearsed(send=no),
    "parked": rehearsed(send=no, refund=no),
}


@pytest.mark.parametrize("state", SHAPES)
def test_it_fits_whatever_it_says(state: str) -> None:
    view = SHAPES[state]
    assert str(view.state) == state
    for what in (drawing(view, NOON_MS + 5_000), history(view)):
        lines = drawn(what)
        assert max(map(len, lines)) <= 80
        assert "\x1b" not in "".join(lines)
    assert all("\x1b" not in cell for cells in plain(view, has_history=True) for cell in cells)


def test_what_was_undone_stands_below_its_step() -> None:
    view = SHAPES["compensated"]
    lines = drawn(drawing(view, NOON_MS))
    [charge] = [at for at, line in enumerate(lines) if line.startswith("✓  charge")]
    assert lines[charge + 1].split()[:4] == ["↺", "undo:", "refund", "undone"]
    assert any(line.startswith("turned back because") for line in lines)

    purged = drawn(drawing(view.model_copy(update={"history": ()}), NOON_MS))
    assert purged[charge + 1].split() == ["↺", "undo", "undone"], "its times went with its history"
    assert [line.split()[:2] for line in purged if line[:1] in "✓✗"] == [
        line.split()[:2] for line in lines if line[:1] in "✓✗"
    ]


def test_a_parked_undoing_says_why() -> None:
    lines = drawn(drawing(SHAPES["parked"], NOON_MS))
    [at] = [at for at, line in enumerate(lines) if line.startswith("!")]
    assert "parked" in lines[at]
    assert lines[at + 1].strip().startswith("declined: no ␛[31mand again no")


def test_what_runs_has_run_so_far() -> None:
    [line] = [line for line in drawn(drawing(SHAPES["running"], NOON_MS + 5_000)) if line.startswith("▸")]
    assert line.split()[-2:] == ["5.0", "s"]
