"""Real `antiphon` processes for the tests of the command line: started, read, waited for, always ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antiphon.bus.server import find_binary

ANTIPHON = (sys.executable, "-m", "antiphon")
BOUND_S = 40.0
"""The machine may be busy; what is waited for takes less than a second."""

SCRIPT = """
import sys
from antiphon import Hit, Node

node = Node(sys.argv[1], description="a node of a test")

@node.search
def search(query):
    {body}

node.run(sys.argv[2])
"""


@dataclass
class Fabric:
    """One data directory, the processes on it, and a word to run commands against it."""

    data: Path
    environment: dict[str, str]
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *words: str, command: Sequence[str] = ANTIPHON) -> subprocess.Popen[str]:
        out = (self.data.parent / f"{len(self.running)}.out").open("w", encoding="utf-8")
        err = (self.data.parent / f"{len(self.running)}.err").open("w", encoding="utf-8")
        with out, err:
            process = subprocess.Popen([*command, *words], env=self.environment, stdout=out, stderr=err, text=True)
        self.running.append(process)
        return process

    def log(self, process: subprocess.Popen[str]) -> str:
        return (self.data.parent / f"{self.running.index(process)}.err").read_text(encoding="utf-8")

    def run(self, *words: str, stdin: str | bytes = b"", environment: dict[str, str] | None = None) -> Done:
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [*ANTIPHON, *words],
            env=self.environment | (environment or {}),
            input=given,
            capture_output=True,
            timeout=BOUND_S,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def up(self) -> subprocess.Popen[str]:
        process = self.start("up")
        until(lambda: '"antiphon.up"' in self.log(process) or process.poll() is not None)
        assert process.poll() is None, self.log(process)
        return process

    def open_server(self) -> str:
        """Start a nats-server that asks nobody who he is, and return its URL."""
        folder = self.data.parent / "server"
        folder.mkdir()
        ports = ("--ports_file_dir", str(folder))
        self.start("-js", "-sd", str(folder), "-a", "127.0.0.1", "-p", "-1", *ports, command=[str(find_binary())])
        until(lambda: any(path.read_text().endswith("}") for path in folder.glob("*.ports")))
        return str(json.loads(next(iter(folder.glob("*.ports"))).read_text())["nats"][0])

    def url(self) -> str:
        return str(json.loads((self.data / "antiphon.json").read_text(encoding="utf-8"))["url"])

    def program(self, path: Path, *words: str) -> subprocess.Popen[str]:
        """Start a Python program that is a node, and return once it has joined."""
        return self._joined(self.start(str(path), *words, command=(sys.executable,)))

    def serve(self, *words: str) -> subprocess.Popen[str]:
        return self._joined(self.start("node", "serve", *words))

    def script(self, name: str, body: str) -> subprocess.Popen[str]:
        program = (sys.executable, "-c", SCRIPT.format(body=body))
        process = self.start(name, self.url(), command=program)
        until(lambda: name in self.run("node", "ls").out)
        return process

    def _joined(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        until(lambda: '"node.joined"' in self.log(process) or process.poll() is not None)
        assert process.poll() is None, self.log(process)
        return process


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@contextmanager
def fabric(folder: Path) -> Iterator[Fabric]:
    """A data directory of its own; whatever was started on it is ended."""
    outside = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("ANTIPHON_", "NATS_")) and key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    data = folder / "data"
    environment = outside | {
        "ANTIPHON_DATA": str(data),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PYTHONUNBUFFERED": "1",
    }
    made = Fabric(data, environment)
    try:
        yield made
    finally:
        for process in reversed(made.running):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in reversed(made.running):
            try:
                process.wait(BOUND_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(true: Callable[[], bool], bound_s: float = BOUND_S) -> None:
    """Wait for what another process does and sends no event for."""
    end = time.monotonic() + bound_s
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
