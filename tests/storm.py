"""A storm over a fleet in virtual time, drawn from a seed, and the laws that every answer and the calm keep."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

from antiphon import Hit, SearchAnswer
from antiphon.actors.breaker import BreakerActor
from antiphon.actors.master import Master
from antiphon.app import MasterRole
from antiphon.errors import AntiphonError, Overloaded
from antiphon.messages.search import Outcome
from antiphon.testing import Fault, TestFleet

NODES = {"blog": 3, "shop": 2, "wiki": 2, "crm": 1}
MASTERS = ("master", "master-2")
SETTINGS: dict[str, Any] = {
    "heartbeat_ms": 500,
    "breaker_wait_ms": 1_500,
    "node_parallel_max": 4,
    "node_queue_max": 4,
    "node_floor_ms": 100,
    "node_ceiling_ms": 2_000,
    "hedge_permille": 100,
}
"""Tight, so that compartments fill, bounds pass and hedges are sent."""


def oracle(node: str) -> frozenset[str]:
    """What a node holds."""
    return frozenset(f"{node} whale {at}" for at in range(4))


def handler(node: str, dice: Random) -> Any:
    """A handler that is mostly quick, sometimes slow, sometimes wrong, and hangs now and then."""

    async def search(_query: Any) -> list[Hit]:
        luck = dice.random()
        await asyncio.sleep(3_600 if luck < 0.01 else 0.8 if luck < 0.03 else dice.expovariate(1 / 0.02))
        if 0.03 < luck < 0.06:
            raise LookupError(node)
        if 0.06 < luck < 0.08:
            raise Overloaded("busy", retry_after_ms=20)
        return [Hit(id=title, title=title, text=title) for title in sorted(oracle(node))]

    return search


def check(answer: SearchAnswer) -> None:
    """Raise unless an answer is honest."""
    outcomes = Counter(line.outcome for line in answer.nodes)
    coverage = answer.coverage
    assert [line.node for line in answer.nodes] == sorted(NODES), answer.nodes
    assert coverage.expected == len(NODES) == sum(outcomes.values())
    assert coverage.answered == outcomes[Outcome.ANSWERED] + outcomes[Outcome.EMPTY]
    assert coverage.failed == outcomes[Outcome.FAILED]
    assert coverage.timed_out == outcomes[Outcome.TIMED_OUT]
    assert coverage.skipped_open == outcomes[Outcome.SKIPPED]
    assert answer.complete is (coverage.answered == coverage.expected)
    answered = {line.node for line in answer.nodes if line.outcome is Outcome.ANSWERED}
    for hit in answer.hits:
        assert hit.id in oracle(hit.node)
        assert hit.node in answered
    assert len({(hit.node, hit.id) for hit in answer.hits}) == len(answer.hits), "a hit counts once"
    assert all(line.attempts <= 8 for line in answer.nodes), "nobody is asked without end"


class Storm:
    """One storm."""

    def __init__(self, fleet: TestFleet, seed: int) -> None:
        self.fleet = fleet
        self.dice = Random(f"storm/{seed}")
        self.outcomes: Counter[str] = Counter()
        self.searches = 0

    async def begin(self) -> None:
        """Start two masters and all instances, and return when both masters know them."""
        for name in MASTERS:
            await self.fleet.master(name)
        for node, instances in NODES.items():
            for at in range(instances):
                dice = Random(f"{self.fleet.seed}/{node}/{at}")
                await self.fleet.node(node, handler(node, dice), instance=f"i{at}")
        await self.fleet.sleep_ms(100)

    async def rage(self, rounds: int) -> None:
        """Let faults come and go under load."""
        for _ in range(rounds):
            faults = [self._fault() for _ in range(self.dice.randint(0, 3))]
            crashed = self._crashes()
            for party in crashed:
                await self.fleet.crash(party)
            await self._load()
            for fault in faults:
                fault.heal()
            for party in crashed:
                await self.fleet.restart(party)

    async def calm(self, within_ms: int = 60_000) -> None:
        """Return when all is well again: every node answers and every breaker is closed."""
        self.fleet.faults.heal()
        began_ms, well = self.fleet.now_ms(), 0
        while well < 20:
            assert self.fleet.now_ms() - began_ms < within_ms, (self._open(), self.outcomes)
            answer = await self._search(2_000, "calm")
            lines = () if answer is None else answer.nodes
            is_well = bool(lines) and all(line.outcome is not Outcome.SKIPPED for line in lines) and not self._open()
            well = well + 1 if is_well else 0
            await self.fleet.sleep_ms(100)
        await self.fleet.sleep_ms(70_000)  # every deadline there was is over

    def _open(self) -> list[str]:
        return [str(key) for role in self.fleet.masters.values() for key in breakers(role).breakers.view.shut]

    def _fault(self) -> Fault:
        dice, faults = self.dice, self.fleet.faults
        node = dice.choice(list(NODES))
        party = dice.choice([node, f"{node}.i0", *MASTERS])
        late_ms = dice.choice((5, 50, 500))
        return dice.choice(
            (
                lambda: faults.delay(party, ms=lambda link: link.expovariate(1 / late_ms)),
                lambda: faults.drop(party, share=dice.random()),
                lambda: faults.duplicate(party, share=dice.random()),
                lambda: faults.garble(node, share=dice.random()),
                lambda: faults.partition(node, dice.choice(MASTERS)),
                lambda: faults.freeze(party),
                lambda: faults.disconnect(party),
                lambda: faults.delay("web", ms=late_ms),
            )
        )()

    def _crashes(self) -> list[str]:
        if self.dice.random() < 0.6:
            return []
        return [self.dice.choice(("blog.i0", "shop.i1", "crm", "master-2"))]

    async def _load(self) -> None:
        """Ask in a burst or one after the other; some leave before they are answered."""
        asked: list[asyncio.Task[Any]] = []
        for _ in range(self.dice.randint(1, 40)):
            deadline_ms = self.dice.choice((1, 30, 200, 1_000, 3_000))
            task = asyncio.ensure_future(self._search(deadline_ms, "whales"))
            asked.append(task)
            if self.dice.random() < 0.1:
                asyncio.get_running_loop().call_later(self.dice.random() * deadline_ms / 1_000, task.cancel)
            await self.fleet.sleep_ms(self.dice.choice((0, 0, 1, 20, 100)))
        await asyncio.gather(*asked, return_exceptions=True)
        for task in asked:
            with suppress(asyncio.CancelledError):
                task.result()

    async def _search(self, deadline_ms: int, query: str) -> SearchAnswer | None:
        self.searches += 1
        began_ms = self.fleet.now_ms()
        answer: SearchAnswer | None = None
        try:
            answer = await self.fleet.search(query, deadline_ms=deadline_ms, limit=100)
        except AntiphonError as error:
            self.outcomes[error.code] += 1
        else:
            check(answer)
            self.outcomes.update(f"{line.outcome.value} {line.code}" for line in answer.nodes)
        assert self.fleet.now_ms() - began_ms <= deadline_ms, "nothing hangs past its deadline"
        assert not self.outcomes.keys() & {"internal", "malformed", "invalid_reply"}, self.outcomes
        return answer


def leaks(fleet: TestFleet) -> list[str]:
    """Return every count of a fleet's masters that is not back at zero."""
    found: list[str] = []
    for name, role in fleet.masters.items():
        (master,) = (one for one in role.supervisor.children if isinstance(one, Master))
        counts = {"conversations": len(master.conversations), "waiting": len(role.bus._waiting)}
        for node in role.view.current.nodes:
            book = master.ground.dispatch.book(node)
            if book is not None:
                counts |= {f"{node} ran": book.bulkhead.in_flight, f"{node} waits": book.bulkhead.waiting}
                counts |= {f"{node}.{one}": load.in_flight for one, load in book.loads.items()}
        found += [f"{name}: {what} {count}" for what, count in counts.items() if count]
    return found


def breakers(role: MasterRole) -> BreakerActor:
    """Return a master's breakers."""
    (actor,) = (one for one in role.supervisor.children if isinstance(one, BreakerActor))
    return actor
