"""How long a command has taken, counted from the start of its process and not from when Python was ready."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

_IMPORTED_NS = time.monotonic_ns()
_IS_A_SHELLS = any(os.times()[2:4])
"""Whether this process ended children before it was Python: a shell that had other work first, e.g. installing."""


@dataclass(slots=True)
class Timing:
    """Milestones of one command, in milliseconds since its process began."""

    marks: dict[str, int] = field(default_factory=dict[str, int])

    def mark(self, name: str) -> int:
        """Remember when something was reached, and return it."""
        self.marks[name] = since_start_ms()
        return self.marks[name]

    def between(self, earlier: str, later: str) -> int:
        """Return the milliseconds between two milestones."""
        return self.marks[later] - self.marks[earlier]


def since_start_ms() -> int:
    """Return milliseconds since this process began, where the system tells; else since this was imported."""
    if _IS_A_SHELLS:
        return (time.monotonic_ns() - _IMPORTED_NS) // 1_000_000
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        begun_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return round((time.clock_gettime(time.CLOCK_BOOTTIME) - begun_s) * 1_000)
    except (OSError, ValueError, IndexError, AttributeError):
        return (time.monotonic_ns() - _IMPORTED_NS) // 1_000_000
