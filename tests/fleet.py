"""A whole fabric in this process for tests: `TestFleet`, on either bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from antiphon.bus.bounds import Bounds
from antiphon.bus.bus import Bus
from antiphon.settings import Settings
from antiphon.testing import TestFleet, found
from fabrics import Buses, Fabric

__all__ = ["Fleet", "fleet_on", "found"]


class Fleet(TestFleet):
    """A fleet on one of the fabrics."""

    def __init__(self, fabric: Fabric, settings: Settings | None = None) -> None:
        super().__init__(settings=settings or Settings(prefix=fabric.prefix))
        self.buses = Buses(fabric)

    async def connect(self, name: str, party: str, bounds: Bounds) -> Bus:
        """Return a started bus on the fabric."""
        return await self.buses.open(name, prefix=self.settings.prefix, bounds=bounds)


@asynccontextmanager
async def fleet_on(fabric: Fabric, **settings: Any) -> AsyncIterator[Fleet]:
    """A fleet that is stopped at the end."""
    changed = {"caller_per_minute": 0} | settings
    async with Fleet(fabric, Settings(prefix=fabric.prefix, **changed)) as fleet:
        yield fleet
