"""The help of every command renders, fast, and says what its options mean."""

from __future__ import annotations

import subprocess
import sys

import pytest

from antiphon.cli import app
from antiphon.cli.commands.node import ELSEWHERE
from antiphon.cli.commands.saga import ELSEWHERE as SAGA
from antiphon.connectors import catalogue

COMMANDS = [
    (),
    ("up",),
    ("run",),
    ("run", "master"),
    ("search",),
    ("node",),
    *(("node", verb) for verb in ELSEWHERE if verb != "serve"),
    ("node", "ls"),
    ("node", "serve"),
    *(("node", "serve", kind) for kind in catalogue()),
    ("monitor",),
    ("breaker",),
    ("saga",),
    *(("saga", verb) for verb in SAGA),
    *(("breaker", verb) for verb in ("ls", "open", "close", "reset")),
    ("demo",),
    ("run", "recorder"),
    ("sql",),
    ("logs",),
    ("stats",),
    *(("stats", verb) for verb in ("export", "forget")),
    ("requests",),
    *(("requests", verb) for verb in ("tail", "show")),
    ("schemas",),
    ("version",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    app()([*command, "--help"])
    text = capsys.readouterr().out
    assert "Usage: antiphon" in text
    bare = [line for line in text.splitlines() if line.startswith("│ --") and not line.strip("│ ").partition("  ")[2]]
    assert bare == [], "each option is explained"


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from antiphon.cli import run; run(['--help']); "
        "print([name for name in ('nats', 'pydantic', 'structlog', 'uvloop') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_versions_and_the_module_run(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "antiphon", "version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "nats-server  2." in done.stdout
    assert subprocess.run([sys.executable, "-m", "antiphon", "--version"], check=False, timeout=60).returncode == 0
