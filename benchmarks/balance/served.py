"""The same scenarios served for real in virtual time: a `TestFleet` whose masters dispatch real searches to one node.

Only the strategies differ: no hedges, no retries, no breakers, so that the table is about balancing alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from antiphon import Client, Hit, Query
from antiphon.errors import AntiphonError
from antiphon.messages.search import Outcome
from antiphon.responder import SearchHandler
from antiphon.settings import Settings
from antiphon.testing import TestFleet, virtual_run
from benchmarks.balance.simulation import DEADLINE_US, MASTERS, WIRE_US, Result
from benchmarks.balance.traffic import SECOND_US, Behaviour, Scenario, arrivals

NODE = "node"
NEVER = 10**6
WARM_US = 2 * SECOND_US
"""What is asked earlier is not counted: masters that have just started know nobody."""


class Served:
    """One scenario under one strategy."""

    def __init__(self, scenario: Scenario, strategy: str, seconds: int, seed: int) -> None:
        self.scenario = scenario
        self.seconds = seconds
        self.seed = seed
        self.result = Result()
        self.settings = Settings(
            balancer=strategy,
            caller_per_minute=0,
            hedge_permille=0,
            retry_attempts_max=1,
            breaker_failures_max=NEVER,
            breaker_rate_calls_min=NEVER,
            node_parallel_max=NEVER,
            tell_facts=False,
        )

    def run(self) -> Result:
        """Run until every request has ended."""
        virtual_run(self._run())
        return self.result

    async def _run(self) -> None:
        async with TestFleet(self.seed, settings=self.settings) as fleet:
            for at in range(MASTERS):
                await fleet.master(f"master-{at}")
            for name, behaviour in self.scenario.instances.items():
                await fleet.node(NODE, worker(behaviour, Random(f"{self.seed}/{name}")), instance=name)
            client = await fleet.client()
            fleet.faults.delay(ms=WIRE_US / 1_000, subject="*.*.node.>")
            fleet.faults.delay(NODE, ms=WIRE_US / 1_000, subject="_I.>")
            await fleet.sleep_ms(10)
            await self._ask_on(client, list(arrivals(self.scenario.rate, self.seconds, Random(self.seed + 1))))

    async def _ask_on(self, client: Client, arrivals_us: Sequence[int]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked: list[asyncio.Task[None]] = []
        for at_us in arrivals_us:
            await asyncio.sleep(max(0.0, began + at_us / SECOND_US - loop.time()))
            asked.append(asyncio.ensure_future(self._ask(client, is_counted=at_us >= WARM_US)))
        await asyncio.gather(*asked)

    async def _ask(self, client: Client, *, is_counted: bool) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        answered, instance = False, "nobody"
        with suppress(AntiphonError):
            answer = await client.search("whales", deadline_ms=DEADLINE_US // 1_000)
            (line,) = answer.nodes
            instance = line.instance or instance
            answered = line.outcome is Outcome.ANSWERED
        if is_counted:
            self.result.picked[instance] += 1
            self.result.failed += not answered
            self.result.latencies_us.append(round((loop.time() - began) * SECOND_US))


def worker(behaviour: Behaviour, dice: Random) -> SearchHandler:
    """Return a handler that behaves so: a queue and a few workers."""
    workers = asyncio.Semaphore(behaviour.workers)

    async def search(_query: Query) -> list[Hit]:
        async with workers:
            now_us = round(asyncio.get_running_loop().time() * SECOND_US)
            work_us = behaviour.begins_us(now_us) - now_us + behaviour.work_us(dice)
            await asyncio.sleep(work_us / SECOND_US)
        if behaviour.failure_us is not None:
            raise RuntimeError("it fails at once")
        return [Hit(id="1", title="a whale")]

    return search
