"""A saga on its way to stdout: a drawing of its steps for people, lines for scripts, JSON for programs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from antiphon.cli import say
from antiphon.cli.listing import since
from antiphon.cli.safe import json_text, line
from antiphon.messages.saga_desk import SagaEventLine, SagaState, SagaView
from antiphon.messages.saga_history import SagaCause, SagaStepLine

if TYPE_CHECKING:
    from rich.console import RenderableType

SECOND_MS: Final = 1_000
COLUMNS: Final = ("", "step", "node", "state", "at", "took", "runs")
EVENT_COLUMNS: Final = ("at", "event", "step", "who")
NUMBERS: Final = ("at", "took", "runs", "done")
WIDTH_MAX: Final = 28
"""Of one column, so that all of them fit into 80."""
ROOM: Final = 76
"""On a line, for an event and what is said of it."""
STYLES: Final = {
    SagaState.COMPLETED: "green",
    SagaState.COMPENSATED: "yellow",
    SagaState.ABANDONED: "red",
    SagaState.PARKED: "bold red",
    SagaState.PAUSED: "yellow",
    SagaState.COMPENSATING: "yellow",
    SagaState.RUNNING: "cyan",
    SagaState.SCHEDULED: "dim",
}
DONE: Final = {
    "waiting": ("·", "waiting", "dim"),
    "running": ("▸", "running", "cyan"),
    "succeeded": ("✓", "done", "green"),
    "failed": ("✗", "failed", "red"),
    "unknown": ("?", "unknown", "red"),
    "skipped": ("-", "skipped", "yellow"),
}
"""A step's fate as it is drawn: a sign, a word, a style."""
UNDONE: Final = {
    "waiting": ("·", "to undo", "dim"),
    "running": ("◂", "undoing", "cyan"),
    "succeeded": ("↺", "undone", "yellow"),
    "failed": ("✗", "not undone", "red"),
    "unknown": ("?", "unknown", "red"),
    "skipped": ("-", "left", "red"),
}
WHY: Final = {
    "step_failed": "failed",
    "step_unknown": "may or may not have been done",
    "cancelled": "it was cancelled",
    "deadline": "its time was over",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the drawing: a step, or its undoing below it.

    Attributes:
        began_ms: since the saga's start, None where that is not known.
        took_ms: until its outcome, or until now.
        runs: of the handler, doing and undoing together.
    """

    sign: str
    name: str
    node: str
    state: str
    style: str
    began_ms: int | None = None
    took_ms: int | None = None
    runs: int | None = None
    text: str = ""
    is_undoing: bool = False


def written(view: SagaView, output: str, *, has_history: bool = False) -> None:
    """Write a saga to stdout, as it stands."""
    if output == "json":
        print(json_text(view.model_dump_json(exclude_none=True, indent=2 if sys.stdout.isatty() else None)))
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - for people only

        console = Console(highlight=False)
        console.print(drawing(view, wall_ms()))
        if has_history:
            console.print(history(view))
    else:
        for cells in plain(view, has_history=has_history):
            print("\t".join(cells))
    sys.stdout.flush()


def hint(view: SagaView) -> None:
    """Say on stderr what a person can do about a saga that needs one."""
    if view.state is SagaState.PARKED:
        at = ", ".join(one.step for one in view.steps if one.is_parked)
        say(f"parked at {at}: `antiphon saga retry {view.id}` tries again; or skip, resolve or abandon it")
    elif view.state is SagaState.PAUSED:
        say(f"`antiphon saga resume {view.id}` lets it go on")


def plain(view: SagaView, *, has_history: bool = False) -> Iterator[tuple[str, ...]]:
    """Yield all that is known of a saga as lines of cells: what, and how it is; for scripts, so nothing is in words."""
    yield "saga", view.id
    yield "name", view.name
    yield "state", str(view.state)
    yield "caller", view.caller
    yield "started", clock(view.started_ms)
    if view.ended_ms is not None:
        yield "ended", clock(view.ended_ms)
    if view.cause is not None:
        yield "cause", why(view.cause)
    if view.left:
        yield "left", ", ".join(view.left)
    for one in view.steps:
        told = line(" ".join(filter(None, (one.code and f"{one.code}:", one.text))))
        fate = "parked" if one.is_parked else one.undo or "-"
        yield "step", one.step, one.node, one.action, one.state, fate, str(one.attempts), told or "-"
    for event in view.history if has_history else ():
        yield "event", clock(event.at_ms), event.event, event.step or "-", event.who or "-", line(event.text) or "-"


def drawing(view: SagaView, now_ms: int) -> RenderableType:
    """Return a saga as it is drawn for people: columns as wide as they must be, and what went wrong below its step."""
    from rich.console import Group  # noqa: PLC0415 - for people only
    from rich.padding import Padding  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    drawn = list(rows(view, now_ms))
    table = [COLUMNS, *map(_cells, drawn)]
    widths = [min(WIDTH_MAX, max(len(cells[at]) for cells in table)) for at in range(len(COLUMNS))]
    head = Text.assemble((view.id, "bold"), f"  {view.name}  ", (view.state, STYLES[view.state]))
    parts: list[RenderableType] = [head]
    parts += [Text(text, "dim") for text in told(view, now_ms)]
    parts += [Text(), Text(aligned(COLUMNS, widths), "dim", no_wrap=True, overflow="ellipsis")]
    for row, cells in zip(drawn, table[1:], strict=True):
        shown = Text(aligned(cells, widths), no_wrap=True, overflow="ellipsis")
        shown.stylize(row.style, 0, 1)
        shown.stylize("dim" if row.is_undoing else "bold", 3, 3 + widths[1])
        state = sum(widths[:3]) + 6
        shown.stylize(row.style, state, state + widths[3])
        parts.append(shown)
        if row.text:
            parts.append(Padding(Text(row.text, "red"), (0, 0, 0, 5)))
    return Group(*parts)


def _cells(row: Row) -> tuple[str, ...]:
    times = ("" if ms is None else span(ms) for ms in (row.began_ms, row.took_ms))
    name = f"  {row.name}" if row.is_undoing else row.name
    return (row.sign, name, row.node, row.state, *times, str(row.runs or ""))


def aligned(cells: Sequence[str], widths: Sequence[int], columns: Sequence[str] = COLUMNS) -> str:
    """Return cells in columns; what is wider than its column is cut, and numbers stand to the right."""
    placed: list[str] = []
    for name, cell, width in zip(columns, cells, widths, strict=True):
        fitted = cell if len(cell) <= width else f"{cell[: width - 1]}…"
        placed.append(fitted.rjust(width) if name in NUMBERS else fitted.ljust(width))
    return "  ".join(placed)


def history(view: SagaView) -> RenderableType:
    """Return every event, with the time since its start; what is said of it stands below where there is no room."""
    from rich.console import Group  # noqa: PLC0415 - for people only
    from rich.padding import Padding  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = [EVENT_COLUMNS, *(_event_cells(view, one) for one in view.history)]
    widths = [min(WIDTH_MAX, max(len(cells[at]) for cells in table)) for at in range(len(EVENT_COLUMNS))]
    parts: list[RenderableType] = [Text(), Text(aligned(EVENT_COLUMNS, widths, EVENT_COLUMNS), "dim")]
    for one, cells in zip(view.history, table[1:], strict=True):
        shown, text = aligned(cells, widths, EVENT_COLUMNS), line(one.text)
        if len(shown) + len(text) <= ROOM:
            parts.append(Text.assemble(shown, (f"  {text}" if text else "", "dim")))
        else:
            parts += [Text(shown), Padding(Text(text, "dim"), (0, 0, 0, widths[0] + 4))]
    return Group(*parts)


def _event_cells(view: SagaView, one: SagaEventLine) -> tuple[str, ...]:
    return (span(max(0, one.at_ms - view.started_ms)), one.event, one.step or "", one.who or "")


def rows(view: SagaView, now_ms: int) -> Iterator[Row]:
    """Yield the rows of the drawing: each step, and below it its undoing; times as far as the history is there."""
    for one in view.steps:
        told = line(": ".join(part for part in (one.code, one.text) if part))
        sign, word, style = DONE[one.state]
        is_parked_here = one.is_parked and one.undo is None
        yield Row(
            sign="!" if is_parked_here else sign,
            name=one.step,
            node=one.node,
            state="parked" if is_parked_here else word,
            style="bold red" if is_parked_here else style,
            began_ms=_since(view, one.began_ms),
            took_ms=_took(view, one, now_ms),
            runs=one.attempts,
            text=told if one.undo is None else "",
        )
        if one.undo is not None:
            yield _undoing(view, one, told, now_ms)


def _undoing(view: SagaView, one: SagaStepLine, told: str, now_ms: int) -> Row:
    sign, word, style = DONE["unknown"] if one.undo is None else UNDONE[one.undo]
    events = _of(view, one.step, is_undoing=True)
    first = next((event for event in events if event.event == "commanded"), None)
    began_ms = None if first is None else first.at_ms
    ended_ms = one.ended_ms if one.undo != "running" else now_ms
    return Row(
        sign="!" if one.is_parked else sign,
        name="undo" if first is None else line(first.text),
        node="",
        state="parked" if one.is_parked else word,
        style="bold red" if one.is_parked else style,
        began_ms=_since(view, began_ms),
        took_ms=None if began_ms is None or ended_ms is None else max(0, ended_ms - began_ms),
        text=told if one.undo != "succeeded" else "",
        is_undoing=True,
    )


def _took(view: SagaView, one: SagaStepLine, now_ms: int) -> int | None:
    """Return how long the doing of a step took: where it was undone, only its history can tell."""
    if one.began_ms is None:
        return None
    ended_ms = one.ended_ms
    if one.undo is not None:
        ends = [event for event in _of(view, one.step) if event.event in ("succeeded", "failed", "unknown")]
        ended_ms = ends[-1].at_ms if ends else None
    elif one.state == "running":
        ended_ms = now_ms
    return None if ended_ms is None else max(0, ended_ms - one.began_ms)


def _of(view: SagaView, step: str, *, is_undoing: bool = False) -> list[SagaEventLine]:
    """Return a step's events, of its doing or of its undoing."""
    way = "b" if is_undoing else "f"
    return [one for one in view.history if one.step == step and one.ticket is not None and way in one.ticket]


def _since(view: SagaView, at_ms: int | None) -> int | None:
    return None if at_ms is None else max(0, at_ms - max(view.started_ms, view.begins_ms))


def told(view: SagaView, now_ms: int) -> Iterator[str]:
    """Yield what is said of a saga above its steps."""
    took = f", took {span(max(0, view.ended_ms - view.started_ms))}" if view.ended_ms is not None else ""
    yield f"started {clock(view.started_ms)} by {view.caller}{took}"
    if view.state is SagaState.SCHEDULED:
        yield f"begins {clock(view.begins_ms)}, in {span(max(0, view.begins_ms - now_ms))}"
    if view.cause is not None:
        yield f"turned back because {why(view.cause)}"
    if view.left:
        yield f"not undone: {', '.join(view.left)}"


def why(cause: SagaCause) -> str:
    """Return in words why a saga was turned back."""
    words = WHY[cause.reason]
    if cause.reason in ("step_failed", "step_unknown"):
        words = f"{cause.step} {words}"
    elif cause.by:
        words = f"{words} by {cause.by}"
    said = line(": ".join(part for part in (cause.code, cause.text) if part))
    return f"{words}: {said}" if said else words


def span(ms: int) -> str:
    """Return how long something lasts, as people say it."""
    return f"{ms} ms" if ms < SECOND_MS else since(ms)


def clock(at_ms: int) -> str:
    """Return a time as this machine's clock shows it."""
    return datetime.fromtimestamp(at_ms / 1_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def wall_ms() -> int:
    """Return the time now; how long something has run is told by this machine's clock."""
    return time.time_ns() // 1_000_000
