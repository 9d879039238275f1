"""What `antiphon logs` does: reads the kept logs of all processes, puts their lines in order, shows what is asked."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from antiphon.cli import say
from antiphon.cli.safe import json_text, line
from antiphon.kept_logs import FOLDER, files, role_of
from antiphon.logs import LEVELS

SHOWN_FIRST = frozenset({"at", "level", "event", "role"})


def show(
    home: Path, role: str | None, request: str | None, since_ms: int, *, level: str, count: int, output: str
) -> int:
    """Write the lines, oldest first; exit code 0 even where there are none."""
    begin = time.time() - since_ms / 1_000
    found = [
        one
        for one in _events(home / FOLDER)
        if (role is None or one["role"] == role)
        and _at(one) >= begin
        and LEVELS.index(_level(one)) >= LEVELS.index(level)
        and (request is None or request in map(str, one.values()))
    ]
    found.sort(key=_at)
    for one in found[-count:]:
        print(json_text(json.dumps(one)) if output == "json" else _readable(one))
    sys.stdout.flush()
    if not found:
        say(f"nothing of that in {home / FOLDER}: `antiphon up`, `run` and `node serve` keep their logs there")
    return 0


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every line that is one; the last of a process that was killed may be half."""
    for path in files(folder) if folder.is_dir() else ():
        with path.open(encoding="utf-8", errors="replace") as lines:
            for text in lines:
                try:
                    event = json.loads(text)
                except json.JSONDecodeError:
                    continue
                if isinstance(event, dict) and "at" in event:
                    yield {**event, "role": role_of(path)}


def _at(event: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(event["at"])).timestamp()
    except ValueError:
        return 0.0


def _level(event: dict[str, Any]) -> str:
    level = str(event.get("level", "info"))
    return level if level in LEVELS else "error"


def _readable(event: dict[str, Any]) -> str:
    rest = " ".join(f"{line(key)}={line(str(value))}" for key, value in event.items() if key not in SHOWN_FIRST)
    head = f"{line(str(event['at']))} {_level(event):7} {event['role']:10} {line(str(event.get('event', '')))}"
    return f"{head} {rest}".rstrip()
