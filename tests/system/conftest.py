"""Fixtures of the system tests: a fleet on the memory bus, and the same fleet on a real nats-server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fabrics import MemoryFabric, NatsFabric, own_nats
from fleet import Fleet, fleet_on


@pytest.fixture(params=["memory", "nats"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    if request.param == "memory":
        async with fleet_on(MemoryFabric()) as started:
            yield started
    else:
        async with own_nats(tmp_path / "nats") as fabric, fleet_on(fabric) as started:
            yield started


@pytest.fixture
async def nats_fabric(tmp_path: Path) -> AsyncIterator[NatsFabric]:
    async with own_nats(tmp_path / "nats") as fabric:
        yield fabric
