"""Where the number is about time: real processes, a real server, and the asker's own watch."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from antiphon import Client
from benchmarks.chaos.fabric import Fabric

WAIT_MS = 100
SILENT_DEADLINES_MS = (100, 300, 700)
OFF = {"ANTIPHON_CALLER_PER_MINUTE": "0", "ANTIPHON_BREAKER_FAILURES_MAX": "1000000"}
"""No limit to a caller, and a silent node is waited for each time."""


@dataclass(slots=True)
class Timing:
    """Milliseconds, as the asker saw them."""

    three_ms: list[float]
    """Of questions that take each of three nodes 100 ms."""
    late_ms: list[float]
    """How much later than its deadline each answer came while a node was frozen."""


async def measure(rounds: int) -> Timing:
    """Ask one question at a time."""
    timing = Timing([], [])
    with tempfile.TemporaryDirectory() as data:
        nodes = {"blog": 1, "shop": 1, "wiki": 1}
        async with Fabric(Path(data), nodes, ("master",), OFF) as fabric, Client(fabric.url, name="web") as client:
            for _ in range(20):
                await client.search("whale")
            for _ in range(rounds):
                began = time.perf_counter()
                answer = await client.search(f"wait {WAIT_MS} ms")
                timing.three_ms.append((time.perf_counter() - began) * 1_000)
                assert answer.coverage.answered == len(nodes), answer.coverage
            fabric.parts["wiki.i0"].freeze()
            for at in range(rounds):
                deadline_ms = SILENT_DEADLINES_MS[at % len(SILENT_DEADLINES_MS)]
                began = time.perf_counter()
                answer = await client.search("whale", deadline_ms=deadline_ms)
                timing.late_ms.append((time.perf_counter() - began) * 1_000 - deadline_ms)
                assert answer.coverage.answered == len(nodes) - 1, answer.coverage
            fabric.parts["wiki.i0"].thaw()
    return timing


def run(rounds: int) -> Timing:
    """Run it on a loop of its own."""
    return asyncio.run(measure(rounds))


def quantile(values: list[float], share: float) -> float:
    """Return a quantile."""
    return statistics.quantiles(values, n=1_000, method="inclusive")[round(share * 1_000) - 1]
