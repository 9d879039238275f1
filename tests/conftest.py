"""Shared fixtures: a real nats-server for the whole session, and a fleet on either bus for one test."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings

from antiphon.bus.server import EmbeddedServer
from fabrics import Buses, Fabric, MemoryFabric, NatsFabric, own_nats
from fleet import Fleet, fleet_on

if TYPE_CHECKING:
    from arena import Arena, Scene

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # how long an example takes says how busy the machine is

UNTROUBLED = {
    "caller_per_minute": 0,
    "node_parallel_max": 1_000,
    "breaker_failures_max": 10**6,
    "breaker_rate_calls_min": 10**6,
    "reserve_ms": 400,
}
"""Neither breakers nor compartments, where something else is tried; they have tests of their own.

And time for a partial answer's way back, of which a busy machine needs more than 50 ms.
"""


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test configures of logging ends with it: a logger that is used meanwhile keeps nothing of it."""
    configure, root = structlog.configure, logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def uncached(**options: Any) -> None:
        configure(**{**options, "cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", uncached)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real nats-server with JetStream; tests keep apart by subject prefix or by names of their own."""
    # A loop of its own, closed before the tests' loops open: the server belongs to a process, not to a loop.
    server = asyncio.run(EmbeddedServer.start(tmp_path_factory.mktemp("nats") / "data"))
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())


@pytest.fixture(params=["memory", "nats"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    """A fleet on the memory bus, and the same on a real nats-server."""
    if request.param == "memory":
        async with fleet_on(MemoryFabric(), **UNTROUBLED) as started:
            yield started
    else:
        async with own_nats(tmp_path / "nats") as fabric, fleet_on(fabric, **UNTROUBLED) as started:
            yield started


@pytest.fixture(params=["memory", "nats"])
def fabric(request: pytest.FixtureRequest) -> Fabric:
    """Where buses are made: in memory, and the same on a real nats-server."""
    return MemoryFabric() if request.param == "memory" else NatsFabric(request.getfixturevalue("nats_server"))


@pytest.fixture
async def buses(fabric: Fabric) -> AsyncIterator[Buses]:
    """Buses of one test, closed after it."""
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


@pytest.fixture
async def nats_fabric(tmp_path: Path) -> AsyncIterator[NatsFabric]:
    """A real nats-server of one test's own, which it may kill."""
    async with own_nats(tmp_path / "nats") as fabric:
        yield fabric


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def arena(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Arena]:
    """A secured fabric for the attacks of one module, which run on the module's loop."""
    from arena import opened  # noqa: PLC0415 - other tests need no masters

    async with opened(tmp_path_factory.mktemp("arena") / "data") as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def scene(arena: Arena) -> AsyncIterator[Scene]:
    """One attack's part of it."""
    async with arena.scene() as one:
        yield one
