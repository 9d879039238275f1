"""The fixtures of laws that hold on both buses: each test that takes `buses` or `losable` runs twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fabrics import Buses, Fabric, MemoryFabric, NatsFabric, own_nats


@pytest.fixture(params=["memory", "nats"])
def fabric(request: pytest.FixtureRequest) -> Fabric:
    return MemoryFabric() if request.param == "memory" else NatsFabric(request.getfixturevalue("nats_server"))


@pytest.fixture
async def buses(fabric: Fabric) -> AsyncIterator[Buses]:
    opened = Buses(fabric)
    yield opened
    await opened.close()


@pytest.fixture(params=["memory", "nats"])
async def losable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Buses]:
    """Buses on a server that may be killed."""
    if request.param == "memory":
        opened = Buses(MemoryFabric())
        yield opened
        await opened.close()
        return
    async with own_nats(tmp_path / "own") as fabric:
        opened = Buses(fabric)
        yield opened
        await opened.close()
