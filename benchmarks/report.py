"""What every benchmark prints: where it ran, a table for people, or one JSON object for machines.

The JSON object is `{"name", "environment", "goals": [{"goal", "measured", "spread", "bound", "met"}]}`.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Goal:
    """One number to reach.

    Attributes:
        goal: what is measured, with its unit.
        measured: the number; None when it could not be measured, which never counts as met.
        spread: how far the number moves between runs or parts, in the same unit; None when there is one part only.
        bound: the number to reach, as a comparison, e.g. `>= 0.99`.
    """

    goal: str
    measured: float | None
    spread: float | None
    bound: str

    @property
    def met(self) -> bool:
        """Whether the measured number satisfies the bound."""
        if self.measured is None:
            return False
        sign, _, number = self.bound.partition(" ")
        return self.measured >= float(number) if sign == ">=" else self.measured <= float(number)


def environment(*packages: str) -> dict[str, Any]:
    """Return what the numbers depend on: system, cores, Python and the versions of these packages."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {package: _version(package) for package in packages},
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table for people; numbers with three decimals, a dash for what was not measured."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for at, column in enumerate(columns):
        shown.add_column(column, justify="right" if at else "left")
    for row in rows:
        shown.add_row(*[_cell(value) for value in row])
    _console().print(shown)


def finish(name: str, where: dict[str, Any], goals: Sequence[Goal], *, as_json: bool) -> int:
    """Print the goals and return the exit code: 0 when all are met, 1 when not."""
    if as_json:
        rows = [asdict(goal) | {"met": goal.met} for goal in goals]
        print(json.dumps({"name": name, "environment": where, "goals": rows}))
    else:
        rows_shown = [
            (goal.goal, goal.measured, goal.spread, goal.bound, "yes" if goal.met else "NO") for goal in goals
        ]
        table(f"goals of {name}", ("goal", "measured", "spread", "bound", "met"), rows_shown)
        print(f"{where['system']}, {where['cpu']}, {where['cores']} cores, load {where['load']}, {where['python']}")
    return 0 if all(goal.met for goal in goals) else 1


def note(text: str, *, as_json: bool = False) -> None:
    """Say how far the run is, on stderr, and nothing when a machine reads."""
    if not as_json:
        print(text, file=sys.stderr, flush=True)


def _console() -> Console:
    """Return a console that never cuts a table where nobody sees a terminal's edge."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
