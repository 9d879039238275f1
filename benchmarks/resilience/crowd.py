"""A crowd before one node: three times what it can bear, open loop, in virtual time; how much gets through in time?"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from antiphon import Hit, Query
from antiphon.errors import AntiphonError
from antiphon.testing import TestFleet, virtual_run
from benchmarks.balance.traffic import SECOND_US, arrivals

WORKERS = 8
WORK_MS = 10
CAPACITY = WORKERS * 1_000 // WORK_MS
DEADLINE_MS = 500


@dataclass(slots=True)
class Crowd:
    """One run."""

    asked: int = 0
    good: int = 0
    """Complete answers."""
    seconds: float = 0.0
    refused_ms: int = 0
    """How long it took at most to say that the node is skipped for want of room."""

    @property
    def goodput(self) -> float:
        """Complete answers a second, as a share of the node's capacity."""
        return self.good / self.seconds / CAPACITY


def measure(seed: int, seconds: int, load: float) -> Crowd:
    """Ask `load` times the capacity."""
    run = Crowd()

    async def main() -> None:
        workers = asyncio.Semaphore(WORKERS)

        async def search(_query: Query) -> list[Hit]:
            async with workers:
                await asyncio.sleep(WORK_MS / 1_000)
            return [Hit(id="1", title="a whale")]

        async with TestFleet(seed, tell_facts=False) as fleet:
            await fleet.master()
            await fleet.node("node", search)
            client = await fleet.client()

            async def ask() -> None:
                began_ms = fleet.now_ms()
                run.asked += 1
                try:
                    answer = await client.search("whales", deadline_ms=DEADLINE_MS)
                except AntiphonError:
                    return
                run.good += answer.complete
                if answer.nodes[0].code == "overloaded" and answer.nodes[0].attempts == 0:
                    run.refused_ms = max(run.refused_ms, fleet.now_ms() - began_ms)

            asked: list[asyncio.Task[None]] = []
            began_ms = fleet.now_ms()
            for at_us in arrivals(int(CAPACITY * load), seconds, Random(seed)):
                await fleet.sleep_ms(max(0, at_us * 1_000 // SECOND_US - (fleet.now_ms() - began_ms)))
                asked.append(asyncio.ensure_future(ask()))
            run.seconds = (fleet.now_ms() - began_ms) / 1_000
            await asyncio.gather(*asked)

    virtual_run(main())
    return run
