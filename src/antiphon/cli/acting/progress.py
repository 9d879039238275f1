"""A job while it runs: a bar and the nodes that work on it, on stderr; nothing where that is no terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from antiphon.cli.acting.outcome import STYLES, what
from antiphon.messages.actions import JobLine, JobView, RunState

if TYPE_CHECKING:
    from rich.console import RenderableType

LINES_MAX = 8
"""Nodes shown below the bar; of more, those that moved last."""
PER_SECOND = 10
OVER = (RunState.SUCCEEDED, RunState.FAILED, RunState.NO_ANSWER, RunState.SKIPPED, RunState.CANCELLED)


class Watched:
    """What a person sees of a job while it runs."""

    def __init__(self) -> None:
        self._live: Any = None
        self._moved: dict[str, JobLine] = {}
        self._view: JobView | None = None
        self._seen_us = 0
        """When `_view` came, on this process's own clock."""

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415 - for people only
            from rich.live import Live  # noqa: PLC0415 - as above

            console = Console(stderr=True, highlight=False)
            self._live = Live(get_renderable=self._now, console=console, refresh_per_second=PER_SECOND, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def moved(self, view: JobView, one: JobLine | None = None) -> None:
        """Show how it is now, after a line has changed."""
        if one is not None:
            self._moved.pop(one.node, None)
            self._moved[one.node] = one
        self._view, self._seen_us = view, time.monotonic_ns() // 1_000

    def _now(self) -> RenderableType:
        if self._view is None:
            return ""
        took_us = self._view.took_us + time.monotonic_ns() // 1_000 - self._seen_us
        return rendered(self._view, tuple(self._moved.values()), took_us)


def rendered(view: JobView, moved: tuple[JobLine, ...], took_us: int) -> RenderableType:
    """Return a job as it looks while it runs.

    Args:
        view: how it stands.
        moved: its lines, the one that moved last at the end.
        took_us: how long it has been running.
    """
    from rich.console import Group  # noqa: PLC0415 - for people only
    from rich.progress_bar import ProgressBar  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    counts = {str(state): int(getattr(view.counts, str(state))) for state in RunState}
    over, every = sum(counts[str(state)] for state in OVER), sum(counts.values())
    bad = over - counts[str(RunState.SUCCEEDED)]
    head = Table.grid(padding=(0, 1, 0, 0))
    bar = ProgressBar(total=max(1, every), completed=over + sum(map(share, moved)), width=30)
    told = [f"{over}/{every} nodes", f"{took_us / 1_000_000:.0f} s"]
    told += [f"{number} {name}" for name in ("running", "waiting") if (number := counts[name])]
    head.add_row(
        Text(view.action, "bold"), bar, Text("; ".join(told)), Text(f"{bad} not done", "red") if bad else Text("")
    )
    body = Table.grid(padding=(0, 2, 0, 0))
    running = [one for one in moved if one.state is RunState.RUNNING]
    rest = [one for one in moved if one.state in OVER and one.state is not RunState.SUCCEEDED]
    for one in [*rest, *running][-LINES_MAX:]:
        body.add_row(Text(f"  {one.node}"), Text(str(one.state), STYLES[one.state]), Text(what(one), no_wrap=True))
    return Group(head, body)


def share(one: JobLine) -> float:
    """Return how much of a node's run is done, 0 to 1, as far as its handler tells; of one that is over, nothing."""
    if one.state is not RunState.RUNNING or not one.total:
        return 0.0
    return min(1.0, one.done / one.total)
