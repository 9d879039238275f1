"""The blows that a fabric takes under load, one after the other, and how long it takes to be well again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from antiphon import Client
from benchmarks.chaos.fabric import Fabric
from benchmarks.chaos.load import REACHED, Load, Sample

NODES = {"blog": 2, "shop": 1, "wiki": 1}
MASTERS = ("master-a", "master-b")
BREAKER_WAIT_MS = 1_000
SETTINGS = {
    "ANTIPHON_BREAKER_WAIT_MS": str(BREAKER_WAIT_MS),
    "ANTIPHON_CALLER_PER_MINUTE": "0",
    "ANTIPHON_RESERVE_MS": "180",  # on a busy machine a partial answer that has 50 ms for its way back comes too late
}
DEADLINE_MS = 900
MARGIN_MS = 600
"""For a machine that is busy with twenty processes; the goal of 20 ms is measured in `benchmarks.resilience`."""
RECOVERY_S_MAX = 20
IN_A_ROW = 10
"""Complete answers that make a fabric well again."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One blow and what came of it."""

    name: str
    recovered_s: float
    """From the end of the blow to the first of ten complete answers in a row."""
    tally: dict[str, int]
    gaps: dict[str, int]
    """Why nodes are missing in the partial answers."""
    opened_s: float | None
    """From the fifth failure of the node to its open breaker, where a breaker opened."""


class Chaos:
    """A fabric under load."""

    def __init__(self, fabric: Fabric, load: Load, seed: int) -> None:
        self.fabric = fabric
        self.load = load
        self.dice = Random(f"blows/{seed}")

    @property
    def blows(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Every blow by name; each returns when it is over and what it struck is back."""
        return {
            "kill -9 of one of two instances": lambda: self.kill("blog.i0"),
            "kill -9 of a node": lambda: self.kill("shop.i0"),
            "SIGSTOP of a node": lambda: self.freeze("wiki.i0"),
            "kill -9 of a master": lambda: self.kill(self.dice.choice(MASTERS)),
            "SIGSTOP of a master": lambda: self.freeze(self.dice.choice(MASTERS)),
            "kill -9 of the server": self.kill_server,
        }

    async def strike(self, name: str) -> Blow:
        """Strike, and return when all is well again; raises `TimeoutError` when it does not get well."""
        began_s = time.monotonic()
        await self.blows[name]()
        over_s = time.monotonic()
        await self.load.until(lambda: self._well_at(over_s) is not None and self._all_closed(), RECOVERY_S_MAX)
        well_s = self._well_at(over_s)
        assert well_s is not None
        opened = [at for at, fact in self.load.moved if at >= began_s and fact.state == "open"]
        fifth = fifth_failure(self.load.since(began_s))
        opened_s = max(0.0, opened[0] - fifth) if opened and fifth is not None else None
        return Blow(name, well_s - over_s, dict(self.load.tally(began_s)), self._gaps(began_s), opened_s)

    async def kill(self, party: str) -> None:
        """Kill a part and start it again."""
        await self.fabric.parts[party].kill()
        await self._last()
        await self.fabric.parts[party].start()

    async def freeze(self, party: str) -> None:
        """Freeze a part and let it go on."""
        self.fabric.parts[party].freeze()
        try:
            await self._last()
        finally:
            self.fabric.parts[party].thaw()

    async def kill_server(self) -> None:
        """Kill the server and start it again."""
        await self.fabric.kill_server()
        await self._last()
        await self.fabric.start_server()

    def _gaps(self, since_s: float) -> dict[str, int]:
        answers = [one.answer for one in self.load.since(since_s) if one.answer is not None]
        missing = [line for answer in answers for line in answer.nodes if line.outcome not in REACHED]
        return dict(Counter(f"{line.node} {line.outcome.value} {line.code}" for line in missing))

    async def _last(self) -> None:
        await asyncio.sleep(self.dice.uniform(1.5, 2.5))

    def _well_at(self, since_s: float) -> float | None:
        """Return when the first of the last ten answers in a row came that were all complete, if they were."""
        late = sorted(self.load.since(since_s), key=lambda one: one.ended_s)
        first: Sample | None = None
        row = 0
        for one in late:
            row = row + 1 if one.is_complete else 0
            first = one if row == 1 else first
        return first.ended_s if row >= IN_A_ROW and first is not None else None

    def _all_closed(self) -> bool:
        last = {(fact.node, fact.instance): fact.state for _, fact in self.load.moved}
        return all(state == "closed" for state in last.values())


def fifth_failure(samples: list[Sample]) -> float | None:
    """Return when the fifth failure of one node was seen, if there was one."""
    failures: dict[str, list[float]] = {}
    for one in sorted(samples, key=lambda sample: sample.ended_s):
        for line in one.answer.nodes if one.answer is not None else ():
            if line.outcome.value in {"failed", "timed_out"}:
                failures.setdefault(line.node, []).extend([one.ended_s] * max(1, line.attempts))
    return min((times[4] for times in failures.values() if len(times) > 4), default=None)


@asynccontextmanager
async def chaos(data: Path, seed: int, rate: int = 40) -> AsyncGenerator[Chaos]:
    """A fabric under load that is well, and ends with the block."""
    async with Fabric(data, NODES, MASTERS, SETTINGS) as fabric, Client(fabric.url, name="web") as client:
        load = Load(NODES, DEADLINE_MS, MARGIN_MS, rate, seed)
        await load.listen(client)
        running = asyncio.ensure_future(load.run(client))
        try:
            made = Chaos(fabric, load, seed)
            await load.until(lambda: made._well_at(0.0) is not None, RECOVERY_S_MAX)  # noqa: SLF001 - its maker
            yield made
        finally:
            load.stop()
            await running
