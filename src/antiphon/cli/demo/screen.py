"""What people see of the demo: progress while it indexes, answers with their sources, and what to try next."""

from __future__ import annotations

import sys
import time
from contextlib import suppress

from antiphon.cli import say, show
from antiphon.cli.demo.fleet import Fleet
from antiphon.cli.demo.timing import Timing
from antiphon.cli.progress import bar
from antiphon.messages.search import SearchAnswer

REDRAW_MS = 60


class Progress:
    """One moving line a process on stderr, gone when all have joined; nothing where stderr is no terminal."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lines = 0
        self._drawn_ms = 0
        self._is_on = sys.stderr.isatty()

    def draw(self) -> None:
        """Draw, unless that was just done."""
        now_ms = time.monotonic_ns() // 1_000_000
        if self._is_on and now_ms - self._drawn_ms >= REDRAW_MS:
            self._drawn_ms = now_ms
            self._write([self._line(at) for at in range(len(self._fleet.processes))])

    def clear(self) -> None:
        """Take the lines away."""
        if self._lines:
            self._write([])
        self._is_on = False

    def _line(self, at: int) -> str:
        one = self._fleet.processes[at]
        name = f"  {one.part.node:<14}"
        if one.has_joined:
            return f"{name}{bar(1, 1)} {one.entries:,} documents, joined"
        if one.indexed_ms is not None:
            return f"{name}{bar(1, 1)} {one.entries:,} documents"
        return f"{name}{bar(one.done, one.total)} {one.done}/{one.total}" if one.total else f"{name}{bar(0, 1)}"

    def _write(self, lines: list[str]) -> None:
        up = f"\x1b[{self._lines}A" if self._lines else ""
        with suppress(OSError):
            sys.stderr.write(f"{up}\r\x1b[J" + "".join(f"{line}\n" for line in lines))
            sys.stderr.flush()
        self._lines = len(lines)


def ready(fleet: Fleet, timing: Timing) -> str:
    """Return what has started, and what the time went to."""
    marks = timing.marks
    documents = sum(fleet.entries.values())
    return (
        f"{len(fleet.entries)} nodes in {len(fleet.processes)} processes hold {documents:,} documents; "
        f"ready {seconds(marks['joined'])} after the command\n"
        f"  {seconds(marks['forked'])} to start Python and import, "
        f"{seconds(timing.between('forked', 'master'))} until server and master were up, "
        f"{seconds(max(0, marks['indexed'] - marks['master']))} more to index, "
        f"{seconds(timing.between('indexed', 'joined'))} to join"
    )


def answered(question: str, answer: SearchAnswer) -> None:
    """Write one question and its answer."""
    bold = ("\x1b[1;36m", "\x1b[0m") if sys.stdout.isatty() and show.has_colour() else ("", "")
    print(f"\n{bold[0]}? {question}{bold[1]}\n")
    show.answer(answer, "table", is_paged=False)


def goodbye(option: str, url: str) -> None:
    """Say how to go on from another terminal."""
    say(
        f"\nThe demo stays up at {url}. From another terminal:\n"
        f'  antiphon search "read a csv file"{option}\n'
        f"  antiphon node ls{option}\n"
        f"  antiphon stats{option}\n"
        f"  antiphon node serve folder ./docs{option}\n"
        "Ctrl-C stops it."
    )


def seconds(ms: int) -> str:
    """Return a time as people read it."""
    return f"{ms / 1_000:.2f} s"
