"""Measure sagas: `python -m benchmarks.saga [--quick] [--fsync] [--json]`.

Three remote steps, each with a compensation, through the bus: a publisher, a master and three node processes, the
history in JetStream's files with the server's default of syncing (every two minutes; what is acknowledged survives the
process, not a power cut). One at a time and 32 in flight; and a saga of one step, the single durable action. DBOS
(SQLite, in process, where it is installed) runs the same three steps in the same rounds: its steps are functions in one
process and its writes are synced as SQLite's defaults say, so it is a neighbour and no peer; it is not guessed where it
is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from antiphon import Saga
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.errors import AntiphonError
from antiphon.messages.saga_desk import SagaState, SagaSubmit
from antiphon.runtime.loop import run
from benchmarks import report
from benchmarks.report import Goal
from benchmarks.saga import dbos, fleet
from benchmarks.search.fleet import Child, cpu_us, stop

BUDGET_MS = 60_000
Way = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One way at one concurrency in one round."""

    rate: float
    p50_ms: float
    cpu_us: float


class Bench:
    """The fleet, and every way to ask it."""

    def __init__(self, bus: Bus, server_pid: int, children: dict[str, Child], peer: dbos.Peer | None) -> None:
        self.bus = bus
        self.children = children
        self.server_pid = server_pid
        self.peer = peer
        self.ids = count(1)
        self.ways: dict[str, Way] = {
            "three steps": lambda: self.saga(fleet.THREE),
            "one step": lambda: self.saga(fleet.ONE),
        }
        if peer is not None:
            self.ways["DBOS, three steps"] = peer.run

    async def saga(self, saga: Saga) -> None:
        """Submit one and wait for its end."""
        ask = SagaSubmit(id=f"b{os.getpid()}-{next(self.ids)}", definition=saga.definition, input={"at": 1}, wait=True)
        view = await self.bus.ask(ask, budget_ms=BUDGET_MS)
        assert view.state is SagaState.COMPLETED, view

    def cpu(self) -> dict[str, float]:
        """Return the CPU time of each process."""
        found = {name: child.cpu_us() for name, child in self.children.items()}
        return found | {"publisher": cpu_us(os.getpid()), "server": cpu_us(self.server_pid)}

    async def measure(self, name: str, concurrency: int, seconds: float) -> tuple[Sample, dict[str, float]]:
        """Ask in a closed loop."""
        way = self.ways[name]
        latencies: list[float] = []
        before = self.cpu()
        began = time.perf_counter()
        end = began + seconds

        async def worker() -> None:
            while (now := time.perf_counter()) < end:
                await way()
                latencies.append(time.perf_counter() - now)

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        took, done = time.perf_counter() - began, len(latencies)
        spent = {one: (us - before[one]) / done for one, us in self.cpu().items()}
        return Sample(done / took, statistics.median(latencies) * 1_000, sum(spent.values())), spent


async def measure(given: argparse.Namespace, data: Path) -> int:
    """Run all rounds and print."""
    seconds, rounds = (1.5, 3) if given.quick else (4.0, 5)
    samples: dict[tuple[str, int], list[Sample]] = {}
    shares: dict[str, float] = {}
    async with await EmbeddedServer.start(data / "nats", Options(fsync=given.fsync)) as server:
        children = {"master": Child(fleet.master(server.url, "master", shards=8 if given.fsync else 1), "master")}
        children |= {name: Child(fleet.node(server.url, name), name) for name in fleet.NODES}
        peer = dbos.peer(data / "dbos.sqlite")
        bus = await connect("publisher", nats=server.url)
        bench = Bench(bus, server.pid, children, peer)
        try:
            await ready(bench)
            for round_ in range(rounds):
                report.note(f"round {round_ + 1} of {rounds} ...", as_json=given.json)
                for name in bench.ways:
                    for concurrency in (1, 32):
                        sample, spent = await bench.measure(name, concurrency, seconds)
                        samples.setdefault((name, concurrency), []).append(sample)
                        if (name, concurrency) == ("three steps", 32):
                            shares = spent
        finally:
            await bus.close()
            stop(children.values())
            if peer is not None:
                peer.close()
    if not given.json:
        show(samples, shares)
        if bench.peer is None:
            report.note("DBOS is not installed: pip install dbos")
    where = report.environment("nats-py", "dbos")
    return report.finish("saga", where, goals(samples), as_json=given.json)


async def ready(bench: Bench) -> None:
    """Return when sagas complete; nodes join in their own time."""
    for _ in range(600):
        try:
            await bench.saga(fleet.THREE)
        except AntiphonError:
            await asyncio.sleep(0.05)
        else:
            return
    raise TimeoutError("no saga completes")


def middle(samples: list[Sample], what: str) -> tuple[float, float]:
    """Return the median and the spread of a figure."""
    values = [getattr(one, what) for one in samples]
    return statistics.median(values), max(values) - min(values)


def show(samples: dict[tuple[str, int], list[Sample]], shares: dict[str, float]) -> None:
    """Print tables for people."""
    rows = []
    for (name, concurrency), found in samples.items():
        rate, p50, cpu = (middle(found, what)[0] for what in ("rate", "p50_ms", "cpu_us"))
        rows.append((name, concurrency, round(rate), round(p50, 2), round(cpu)))
    report.table("sagas, medians", ("way", "in flight", "a second", "p50, ms", "CPU in all, us"), rows)
    parts = [(name, round(us)) for name, us in shares.items()]
    report.table("CPU of a saga of three steps, 32 in flight", ("process", "us"), parts)


def goals(samples: dict[tuple[str, int], list[Sample]]) -> list[Goal]:
    """Return what GOALS asks for."""
    alone, busy = samples["three steps", 1], samples["three steps", 32]
    found = [
        Goal("three steps, one at a time: p50, ms", *middle(alone, "p50_ms"), "<= 5"),
        Goal("three steps, 32 in flight: sagas a second", *middle(busy, "rate"), ">= 800"),
        Goal("three steps, 32 in flight: CPU of all processes, us", *middle(busy, "cpu_us"), "<= 2000"),
        Goal("a single durable action: p50, ms", *middle(samples["one step", 1], "p50_ms"), "<= 1"),
    ]
    theirs = samples.get(("DBOS, three steps", 32))
    if theirs is not None:
        ratios = [ours.rate / peer.rate for ours, peer in zip(busy, theirs, strict=True)]
        spread = max(ratios) - min(ratios)
        found.append(Goal("three steps, 32 in flight: throughput / DBOS", statistics.median(ratios), spread, ">= 1.5"))
    return found


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="end within 45 s")
    parser.add_argument("--fsync", action="store_true", help="each write on the disk first; eight shards")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        return run(measure(given, Path(data)))


if __name__ == "__main__":
    sys.exit(main())
