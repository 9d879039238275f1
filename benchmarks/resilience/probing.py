"""Half-open probes in a fleet of many masters: an instance that fails is tried by one of them at a time."""

from __future__ import annotations

import asyncio

from antiphon import Hit, Query
from antiphon.actors.breaker import BreakerActor
from antiphon.testing import TestFleet, virtual_run

MASTERS = 20
PROBE_MS = 120
"""How long the sick instance takes to fail: probes that are not exclusive would overlap."""
SICK_MS = 20_000
LOOK_MS = 5
PACE_MS = 7


class Probing:
    """One run: a client asks all the time, the instance is sick for 20 s, and every probe is counted."""

    def __init__(self, seed: int, masters: int = MASTERS) -> None:
        self.masters = masters
        self.at_once = 0
        """Probes that ran at the same time, at most."""
        self.granted_at_once = 0
        """Masters that held the leave to probe at the same time, at most."""
        self.probes = 0
        self._working = 0
        self._is_sick = True
        self._opened_ms: int | None = None
        self._seed = seed
        self._fleet: TestFleet

    async def main(self) -> None:
        """Run it."""
        self._fleet = TestFleet(self._seed, breaker_wait_ms=1_000, retry_attempts_max=1)  # on the virtual loop
        async with self._fleet as fleet:
            for at in range(self.masters):
                await fleet.master(f"master-{at}")
            await fleet.node("sick", self._search)
            await fleet.sleep_ms(100)
            asking = asyncio.ensure_future(self._ask_on())
            while fleet.now_ms() < SICK_MS:
                self._look()
                await fleet.sleep_ms(LOOK_MS)
            self._is_sick = False
            while any(one.breakers.view.shut for one in self._breakers()):
                assert fleet.now_ms() < 2 * SICK_MS, "every breaker closes again"
                await fleet.sleep_ms(LOOK_MS)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _search(self, _query: Query) -> list[Hit]:
        self._working += 1
        if self._is_probed():
            self.probes += 1
            self.at_once = max(self.at_once, self._working)
        try:
            await asyncio.sleep(PROBE_MS / 1_000)
        finally:
            self._working -= 1
        if self._is_sick:
            raise RuntimeError("sick")
        return [Hit(id="1", title="a whale")]

    def _breakers(self) -> list[BreakerActor]:
        children = [child for role in self._fleet.masters.values() for child in role.supervisor.children]
        return [child for child in children if isinstance(child, BreakerActor)]

    def _look(self) -> None:
        if self._opened_ms is None and all(one.breakers.view.shut for one in self._breakers()):
            self._opened_ms = self._fleet.now_ms()
        self.granted_at_once = max(self.granted_at_once, sum(bool(one.breakers.probes) for one in self._breakers()))

    def _is_probed(self) -> bool:
        """Whether all masters have it open, and what they had begun before has ended: this is a probe."""
        if self._opened_ms is None or not all(one.breakers.view.shut for one in self._breakers()):
            return False
        return self._fleet.now_ms() - self._opened_ms > 2 * PROBE_MS

    async def _ask_on(self) -> None:
        asked: set[asyncio.Task[object]] = set()
        while True:
            task: asyncio.Task[object] = asyncio.ensure_future(self._fleet.search("whales", deadline_ms=2_000))
            asked.add(task)
            task.add_done_callback(asked.discard)
            await self._fleet.sleep_ms(PACE_MS)


def measure(seed: int) -> Probing:
    """Run it in virtual time."""
    run = Probing(seed)
    virtual_run(run.main())
    return run
