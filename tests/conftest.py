"""Shared fixtures: a real nats-server for the whole session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from antiphon.bus.server import EmbeddedServer


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real nats-server with JetStream; tests keep apart by subject prefix or by names of their own."""
    # A loop of its own, closed before the tests' loops open: the server belongs to a process, not to a loop.
    server = asyncio.run(EmbeddedServer.start(tmp_path_factory.mktemp("nats") / "data"))
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())
