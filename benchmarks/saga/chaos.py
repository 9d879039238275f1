"""Sagas while everything is killed: `python -m benchmarks.saga.chaos [--sagas 10000] [--kills 150] [--seed 1]`.

Two masters, three nodes of two instances, the nats-server, a ledger database a node. While sagas are submitted and run,
processes are killed with -9 and started again, or frozen and thawed, all drawn from a seed. When all is up again every
saga has to end, and the auditor reads the streams and the ledgers.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from antiphon import Saga
from antiphon.actors.saga_book import SagaBook
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.decide.saga_log import Entry
from antiphon.errors import AntiphonError
from antiphon.messages.saga import SagaDefinition, SagaRetry
from antiphon.messages.saga_desk import SagaSubmit
from antiphon.messages.saga_history import SagaEnded
from antiphon.runtime.loop import run
from benchmarks import report
from benchmarks.chaos.fabric import Fabric, Part
from benchmarks.report import Goal
from benchmarks.saga import audit
from benchmarks.saga.part import ledger_of

NODES = {"alpha": 2, "beta": 2, "gamma": 2}
MASTERS = ("master-a", "master-b")
SETTINGS = {
    "ANTIPHON_SAGA_LEASE_MS": "2000",
    "ANTIPHON_ACTIONS_PER_MINUTE": "0",
    "ANTIPHON_SAGA_HISTORY_MS": str(24 * 3_600_000),
    "ANTIPHON_BREAKER_WAIT_MS": "1000",
    "ANTIPHON_HEARTBEAT_MS": "500",
}
RETRY = SagaRetry(attempts_max=8, rounds_max=5, base_ms=50, cap_ms=2_000)
TIMEOUT_MS = 15_000
IN_FLIGHT = 24
SUBMIT_MS = 3_000
SETTLE_S_MAX = 240
"""After the last blow; the longest wait is a step's time-out, for its doing and for its undoing."""
READ_AT_ONCE = 32


def sagas(dice: random.Random) -> SagaDefinition:
    """Return one of several sagas: one after the other or side by side, to be completed or to fail somewhere."""
    fail = dice.choice(["", "", "", "b", "c"])
    params: dict[str, JsonValue] = {"fail": fail, "slow_ms": dice.choice([0, 0, 0, 20, 300])}
    made = Saga(dice.choice(["line", "fork"]), deadline_ms=600_000)
    after = {"line": ((), "a", "b"), "fork": ((), (), ("a", "b"))}[made.name]
    for name, node, comes_after in zip("abc", NODES, after, strict=True):
        made = made.step(
            name,
            "do",
            node=node,
            params=params,
            after=comes_after,
            compensate="undo",
            timeout_ms=TIMEOUT_MS,
            retry=RETRY,
        )
    return made.definition


@dataclass(slots=True)
class Outcome:
    """What became of a run."""

    submitted: int = 0
    kills: Counter[str] = field(default_factory=Counter[str])
    freezes: int = 0
    faults: list[str] = field(default_factory=list[str])
    states: Counter[str] = field(default_factory=Counter[str])
    settled_s: float = 0.0
    took_s: float = 0.0


class Chaos:
    """One run.

    Args:
        fabric: the processes.
        count: sagas to submit.
        kills: -9s to deal out.
        seed: draws everything.
        pause_s: between two blows, at most.
    """

    def __init__(self, fabric: Fabric, *, count: int, kills: int, seed: int, pause_s: float) -> None:
        self.fabric = fabric
        self.count = count
        self.kills = kills
        self.pause_s = pause_s
        self.dice = random.Random(seed)
        self.out = Outcome()
        self.names: list[str] = []
        self.share = count / (kills + 1)
        """Sagas between two kills."""

    async def run(self, tell: Callable[[str], None]) -> Outcome:
        """Submit, strike, let it settle, and audit."""
        began = time.monotonic()
        bus = await connect("publisher", nats=self.fabric.url)
        try:
            striking = asyncio.ensure_future(self.strike(tell))
            await self.submit_all(bus, striking)
            await striking
            tell(f"{self.out.submitted} sagas, {self.out.kills.total()} kills: settling")
            await self.settle(bus)
            await self.audit(bus)
        finally:
            await bus.close()
        self.out.took_s = time.monotonic() - began
        return self.out

    async def submit_all(self, bus: Bus, striking: asyncio.Future[None]) -> None:
        """Submit `count`, spread over all blows."""
        dice = random.Random(self.dice.random())

        async def submitter() -> None:
            while self.out.submitted < self.count:
                if not striking.done() and self.out.submitted > self.share * (self.out.kills.total() + 1):
                    await asyncio.sleep(0.02)
                    continue
                self.out.submitted += 1
                name = f"s{self.out.submitted}"
                ask = SagaSubmit(id=name, definition=sagas(dice))
                while True:
                    try:
                        await bus.ask(ask, budget_ms=SUBMIT_MS)
                    except AntiphonError:  # the same id again: it has begun, or begins now
                        await asyncio.sleep(0.1)
                    else:
                        break
                self.names.append(name)

        await asyncio.gather(*(submitter() for _ in range(IN_FLIGHT)))

    async def strike(self, tell: Callable[[str], None]) -> None:
        """Deal out all blows; afterwards everything is up."""
        parts = self.fabric.parts
        while self.out.kills.total() < self.kills:
            await asyncio.sleep(self.dice.uniform(0.2, self.pause_s))
            name = self.dice.choice([*MASTERS, *MASTERS, *(one for one in parts if one not in MASTERS), "server"])
            if name == "server":
                self.out.kills["server"] += 1
                await self.fabric.kill_server()
                await asyncio.sleep(self.dice.uniform(0, 1))
                await self.fabric.start_server()
            elif self.dice.random() < 0.25:
                self.out.freezes += 1
                parts[name].freeze()
                await asyncio.sleep(self.dice.uniform(0.5, 2 * self.pause_s))
                parts[name].thaw()
            else:
                self.out.kills["master" if name in MASTERS else "node"] += 1
                await parts[name].kill()
                await asyncio.sleep(self.dice.uniform(0, 1))
                await started(parts[name])
            if self.out.kills.total() % 10 == 0:
                tell(f"{self.out.kills.total()} kills, {self.out.submitted} sagas")

    async def settle(self, bus: Bus) -> None:
        """Return when every saga has ended, or nothing is to be hoped for any more."""
        book = await opened(bus)
        began = time.monotonic()
        while time.monotonic() < began + SETTLE_S_MAX:
            try:
                ended = len(await book.ids("k.end"))
            except AntiphonError:
                ended = 0
            if ended >= len(self.names):
                break
            await asyncio.sleep(0.5)
        self.out.settled_s = time.monotonic() - began

    async def audit(self, bus: Bus) -> None:
        """Say what is wrong."""
        book = await opened(bus)
        found: dict[str, list[Entry]] = {}
        for at in range(0, len(self.names), READ_AT_ONCE):
            names = self.names[at : at + READ_AT_ONCE]
            found |= dict(zip(names, await asyncio.gather(*map(book.load, names)), strict=True))
        done = audit.ledger(ledger_of(self.fabric.data, node) for node in NODES)
        self.out.faults = audit.faults(found, done)
        for entries in found.values():
            ends = [entry.event.state for entry in entries if isinstance(entry.event, SagaEnded)]
            self.out.states[ends[0] if ends else "open"] += 1


async def opened(bus: Bus) -> SagaBook:
    """Return the streams, once the server is there."""
    return await patiently(lambda: SagaBook.open(bus, 86_400_000))


async def patiently(work: Callable[[], Awaitable[SagaBook]]) -> SagaBook:
    """Return what comes of something, tried again while there is no connection."""
    for _ in range(100):
        try:
            return await work()
        except AntiphonError:
            await asyncio.sleep(0.2)
    return await work()


async def started(part: Part) -> None:
    """Start a process; while the server is away one may need several tries."""
    for _ in range(5):
        try:
            await part.start()
        except (RuntimeError, TimeoutError):
            await part.kill()
            await asyncio.sleep(0.5)
        else:
            return
    await part.start()


async def chaos(
    data: Path, *, count: int, kills: int, seed: int, pause_s: float, tell: Callable[[str], None]
) -> Outcome:
    """Run it in a directory."""
    async with Fabric(data, NODES, MASTERS, SETTINGS, node="benchmarks.saga.part") as fabric:
        return await Chaos(fabric, count=count, kills=kills, seed=seed, pause_s=pause_s).run(tell)


def goals(out: Outcome, count: int, kills: int) -> list[Goal]:
    """Return what GOALS asks for."""
    return [
        Goal("sagas", out.submitted, None, f">= {count}"),
        Goal("kills of masters, nodes and the server", out.kills.total(), None, f">= {kills}"),
        Goal("sagas that have not ended", out.states["open"], None, "<= 0"),
        Goal("faults in histories and ledgers", len(out.faults), None, "<= 0"),
    ]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sagas", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between two blows, at most")
    parser.add_argument("--quick", action="store_true", help="300 sagas, 15 kills")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args()
    count, kills, pause_s = (300, 15, 1.2) if given.quick else (given.sagas, given.kills, given.pause)
    with tempfile.TemporaryDirectory() as data:
        tell = partial(report.note, as_json=given.json)
        work = chaos(Path(data), count=count, kills=kills, seed=given.seed, pause_s=pause_s, tell=tell)
        out = run(work)
    if not given.json:
        rows: list[tuple[str, float]] = [*out.kills.items(), ("frozen", out.freezes), *out.states.items()]
        rows += [("took, s", round(out.took_s)), ("settled after, s", round(out.settled_s, 1))]
        report.table("what happened", ("what", "how often"), rows)
        for fault in out.faults[:50]:
            print(fault)
    return report.finish("saga.chaos", report.environment("nats-py"), goals(out, count, kills), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
