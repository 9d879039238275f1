"""Progress of indexing on stderr: one line that moves on a terminal, nothing elsewhere (the log says the end).

Ten lines of its own instead of rich's: a node's process would keep rich in memory for as long as it serves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from antiphon import logs
from antiphon.connectors.base import Progress, silent

REDRAW_MS = 100
BAR_CHARS = 24


@contextmanager
def shown(name: str) -> Generator[Progress, None, None]:
    """Give what is to be called with (done, total) while something is indexed."""
    if not sys.stderr.isatty():
        yield silent
        return
    drawn_ms = 0

    def progress(done: int, total: int) -> None:
        nonlocal drawn_ms
        now_ms = time.monotonic_ns() // 1_000_000
        if now_ms - drawn_ms >= REDRAW_MS:
            drawn_ms = now_ms
            sys.stderr.write(f"{logs.CLEAR}{bar(done, total)} indexing {name} {count(done, total)}")
            sys.stderr.flush()
            logs.moving.is_drawn = True

    try:
        yield progress
    finally:
        sys.stderr.write(logs.moving.cleared())
        sys.stderr.flush()


def bar(done: int, total: int) -> str:
    """Return a bar; one that only says how much where the total is not known."""
    full = BAR_CHARS * done // total if total else 0
    return "━" * min(full, BAR_CHARS) + "─" * (BAR_CHARS - full)


def count(done: int, total: int) -> str:
    """Return how far it is."""
    return f"{done}/{total}" if total else str(done)
