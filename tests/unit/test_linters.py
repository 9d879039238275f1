"""The linters as tests, so that one command runs everything: ruff, its formatter, mypy, pyright, import-linter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
COMMANDS = {
    "ruff": ["-m", "ruff", "check", "."],
    "format": ["-m", "ruff", "format", "--check", "."],
    "imports": ["-c", LINT_IMPORTS],
    "mypy": ["-m", "mypy"],
    "pyright": ["-m", "pyright", "--pythonpath", sys.executable],
}


@pytest.mark.timeout(900)  # mypy and pyright start cold in a fresh clone
@pytest.mark.parametrize("tool", COMMANDS)
def test_the_linters_have_nothing_to_say(tool: str) -> None:
    command = [sys.executable, *COMMANDS[tool]]
    done = subprocess.run(command, check=False, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-10_000:]
