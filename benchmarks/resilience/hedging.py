"""Hedging a tail: three instances of which each takes a second for 2 % of its answers, with hedges and without."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random

from antiphon import Hit, Query
from antiphon.responder import SearchHandler
from antiphon.testing import TestFleet, virtual_run
from benchmarks.balance.traffic import SECOND_US, arrivals

INSTANCES = ("i1", "i2", "i3")
TAIL_SHARE = 0.02
TAIL_MS = 1_000
RATE = 100
WARM_MS = 5_000
"""What is asked earlier is not counted: before fifty answers nobody knows what is late."""


@dataclass(slots=True)
class Hedged:
    """One run."""

    latencies_ms: list[int] = field(default_factory=list[int])
    searches: int = 0
    requests: int = 0

    @property
    def p99_ms(self) -> int:
        """What one in a hundred exceeds."""
        return sorted(self.latencies_ms)[int(0.99 * (len(self.latencies_ms) - 1))]

    @property
    def extra(self) -> float:
        """Requests beyond one a search, as a share."""
        return self.requests / self.searches - 1


def measure(seed: int, seconds: int, hedge_permille: int) -> Hedged:
    """Run it in virtual time."""
    run = Hedged()

    def handler(dice: Random) -> SearchHandler:
        async def search(_query: Query) -> list[Hit]:
            run.requests += 1
            is_late = dice.random() < TAIL_SHARE
            await asyncio.sleep(TAIL_MS / 1_000 if is_late else 0.01 * dice.lognormvariate(-0.18, 0.6))
            return [Hit(id="1", title="a whale")]

        return search

    async def main() -> None:
        async with TestFleet(seed, hedge_permille=hedge_permille, tell_facts=False) as fleet:
            await fleet.master()
            for name in INSTANCES:
                await fleet.node("node", handler(Random(f"{seed}/{name}")), instance=name)

            async def ask() -> None:
                began_ms = fleet.now_ms()
                await fleet.search("whales", deadline_ms=5_000)
                if began_ms >= WARM_MS:
                    run.latencies_ms.append(fleet.now_ms() - began_ms)

            asked: list[asyncio.Task[None]] = []
            await fleet.client()
            began_ms = fleet.now_ms()
            for at_us in arrivals(RATE, seconds, Random(seed)):
                await fleet.sleep_ms(max(0, at_us * 1_000 // SECOND_US - (fleet.now_ms() - began_ms)))
                asked.append(asyncio.ensure_future(ask()))
            await asyncio.gather(*asked)
            run.searches = len(asked)

    virtual_run(main())
    return run
