"""What a node costs while nobody asks it anything: `python -m benchmarks.rest [--quick] [--json]`.

Each node is a process of its own, started as a person starts it, and logs in at a fabric of `antiphon up`. Its resident
memory is read three seconds after it has joined, and so is what of it is private: the libraries' code, which all
processes on a machine share, counts as resident in each of them. Reads `/proc`, so it needs Linux.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import report
from benchmarks.report import Goal

RESIDENT_MIB_MAX: Final = 45
REST_S: Final = 3.0
PATIENCE_S: Final = 30.0
POLL_S: Final = 0.005
ANTIPHON: Final = str(Path(sys.executable).with_name("antiphon"))
CONTENT: Final = Path(__file__).parents[1] / "docs"
PROGRAM: Final = """
from antiphon import Hit, Node

node = Node({name!r}, description="our articles", topics=["news"])


@node.search
async def search(query):
    return [Hit(id="1", title="Hello", text="the whole text of the article")]


if __name__ == "__main__":
    node.run()
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at rest: memory in MiB, and seconds from its start until it had joined."""

    resident_mib: float
    private_mib: float
    joined_s: float


def program(name: str, place: Path) -> list[str]:
    """Return the command of a node that was written with the SDK."""
    file = place / f"{name}.py"
    file.write_text(PROGRAM.format(name=name), encoding="utf-8")
    return [sys.executable, str(file)]


def folder(name: str, _place: Path) -> list[str]:
    """Return the command of a node with no code: our own documentation."""
    return [ANTIPHON, "node", "serve", "folder", str(CONTENT), "--name", name]


KINDS: Final[dict[str, Callable[[str, Path], list[str]]]] = {"from antiphon import Node": program, "folder": folder}


def measure(rounds: int) -> dict[str, list[Sample]]:
    """Start a node of each kind, one after the other, round by round."""
    found: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as place, fabric(Path(place) / "data") as environment:
        for at in range(rounds):
            for kind, command in KINDS.items():
                name = f"node-{at}-{command.__name__}"
                found[kind].append(sample(command(name, Path(place)), Path(place) / f"{name}.log", environment))
    return found


@contextmanager
def fabric(data: Path) -> Iterator[dict[str, str]]:
    """Run `antiphon up`; yields the environment of who belongs to it."""
    environment = {**os.environ, "ANTIPHON_DATA": str(data)}
    for name in ("ANTIPHON_NATS", "ANTIPHON_TOKEN", "ANTIPHON_CREDENTIALS", "ANTIPHON_PREFIX"):
        environment.pop(name, None)
    log = data.with_name("up.log")
    with log.open("wb") as errors:
        up = subprocess.Popen([ANTIPHON, "up"], env=environment, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        until(lambda: b"antiphon.up" in log.read_bytes(), up)
        yield environment
    finally:
        end(up)


def sample(command: list[str], log: Path, environment: dict[str, str]) -> Sample:
    """Start a node, let it rest, measure and end it."""
    with log.open("wb") as errors:
        began = time.perf_counter()
        node = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        until(lambda: b"node.joined" in log.read_bytes(), node)
        joined_s = time.perf_counter() - began
        time.sleep(REST_S)
        rolled = Path(f"/proc/{node.pid}/smaps_rollup").read_text("ascii")
        return Sample(mib(rolled, "Rss"), mib(rolled, "Anonymous"), joined_s)
    finally:
        end(node)


def mib(rolled: str, field: str) -> float:
    """Return one line of `smaps_rollup`."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", rolled, re.MULTILINE)
    assert found is not None, rolled
    return int(found[1]) / 1024


def until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return once something is so; raise where the process ends before, or it takes too long."""
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if process.poll() is not None or time.monotonic() > end_s:
            raise RuntimeError(f"{process.args!r} did not get so far: exit code {process.returncode}")
        time.sleep(POLL_S)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it must be."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    given = parser.parse_args()
    found = measure(3 if given.quick else 7)
    figures = ("resident_mib", "private_mib", "joined_s")
    if not given.json:
        rows = [
            (kind, *(statistics.median(getattr(s, of) for s in taken) for of in figures))
            for kind, taken in found.items()
        ]
        report.table("a node at rest", ("node", "resident MiB", "private MiB", "joined after s"), rows)
    goals: list[Goal] = []
    for kind, taken in found.items():
        resident = [one.resident_mib for one in taken]
        spread = max(resident) - min(resident)
        text = f"a node at rest, {kind}: resident MiB"
        goals.append(Goal(text, statistics.median(resident), spread, f"<= {RESIDENT_MIB_MAX}"))
    where = report.environment("antiphon", "nats-py", "pydantic", "structlog", "uvloop", "PyNaCl")
    return report.finish("rest", where, goals, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
