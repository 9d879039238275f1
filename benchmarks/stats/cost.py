"""What the record costs a search: two masters over the same nodes, one of which tells what happens.

First with a recorder on the same cores, then with none that works: it may be anywhere, and telling is the master's.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from antiphon import Client
from antiphon.bus.connect import connect
from benchmarks.search import fleet
from benchmarks.stats.recorder import fabric

NODES = 10
IN_FLIGHT = 32


@dataclass(frozen=True, slots=True)
class Cost:
    """With facts and their stream, divided by without; a ratio of each round.

    Attributes:
        throughput: searches a second.
        master_cpu: of the master, a search.
    """

    throughput: list[float]
    master_cpu: list[float]


async def cost(folder: Path, rounds: int, seconds: float) -> tuple[Cost, Cost]:
    """Search in turn over both masters; return what it was with a recorder beside them, and with none."""
    async with fabric(folder) as made:
        url = made.server.url
        masters = {prefix: fleet.Child(fleet.master(url, prefix), prefix) for prefix in (fleet.FULL, fleet.UNTOLD)}
        halves = (range(NODES // 2), range(NODES // 2, NODES))
        children = [
            *masters.values(),
            *(fleet.Child(fleet.nodes(url, here, tuple(masters)), "nodes") for here in halves),
        ]
        try:
            await fleet.ready(url, NODES)
            clients = {one: Client(bus=await connect("publisher", nats=url, prefix=one)) for one in masters}
            beside = await _compared(clients, masters, rounds, seconds)
            made.process.terminate()
            await made.process.wait()
            elsewhere = await _compared(clients, masters, rounds, seconds)
            for client in clients.values():
                await client.close()
        finally:
            fleet.stop(children)
    return beside, elsewhere


def summed(ratios: list[float]) -> tuple[float, float]:
    """Return the median and the spread."""
    return statistics.median(ratios), max(ratios) - min(ratios)


async def _compared(clients: dict[str, Client], masters: dict[str, fleet.Child], rounds: int, seconds: float) -> Cost:
    found = Cost([], [])
    for at in range(rounds + 1):
        rate, cpu = {}, {}
        for prefix in sorted(masters, reverse=at % 2 == 0):
            rate[prefix], cpu[prefix] = await _searched(clients[prefix], masters[prefix], seconds)
        if at:  # the first is for warming up
            found.throughput.append(rate[fleet.FULL] / rate[fleet.UNTOLD])
            found.master_cpu.append(cpu[fleet.FULL] / cpu[fleet.UNTOLD])
    return found


async def _searched(client: Client, master: fleet.Child, seconds: float) -> tuple[float, float]:
    """Return searches a second, and the master's CPU of each in microseconds."""
    count = 0
    began, before = time.monotonic(), master.cpu_us()
    end = began + seconds

    async def worker() -> None:
        nonlocal count
        while time.monotonic() < end:
            answer = await client.search(fleet.QUERIES[count % len(fleet.QUERIES)])
            assert answer.coverage.answered == NODES, answer.coverage
            count += 1

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return count / (time.monotonic() - began), (master.cpu_us() - before) / count
