"""Two fabrics under one face: a memory server and a real nats-server, so that one suite of laws runs on both."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from antiphon import subjects
from antiphon.bus.bounds import Bounds
from antiphon.bus.bus import Bus, Call
from antiphon.bus.endpoint import resolve
from antiphon.bus.memory import MemoryServer, MemoryTransport
from antiphon.bus.nats import NatsTransport
from antiphon.bus.protocol import Transport
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.errors import AntiphonError


async def until(true: Callable[[], object], bound_s: float = 10) -> None:
    """Wait for something that sends no event; the bound is an error, never a pass."""
    async with asyncio.timeout(bound_s):
        while not true():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.002)


_tasks: set[asyncio.Task[None]] = set()


def in_a_task(serving: Callable[[Call[Any]], Coroutine[Any, Any, None]]) -> Callable[[Call[Any]], None]:
    """Have what takes its time run beside the connection's reader, as conversations do."""

    def begin(call: Call[Any]) -> None:
        task = asyncio.ensure_future(serving(call))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    return begin


class Slots:
    """What a gather heard, by slot."""

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}
        self.errors: dict[int, AntiphonError] = {}

    def __call__(self, slot: int, data: bytes, error: AntiphonError | None) -> None:
        assert slot not in self.data
        assert slot not in self.errors
        if error is None:
            self.data[slot] = data
        else:
            self.errors[slot] = error

    def __len__(self) -> int:
        return len(self.data) + len(self.errors)


class Fabric(Protocol):
    """A server, and connections to it."""

    prefix: str

    async def transport(self, name: str, session: str) -> Transport:
        """Return a new connection."""
        ...

    async def lose(self) -> None:
        """Kill the server; the connections are lost."""
        ...

    async def bring_back(self) -> None:
        """Start the server again, on its old data."""
        ...


class Buses:
    """The buses of one test, all closed at its end."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.opened: list[Bus] = []

    async def open(self, name: str, *, prefix: str | None = None, bounds: Bounds | None = None) -> Bus:
        """Return the started bus of an identity."""
        session = secrets.token_hex(4)
        transport = await self.fabric.transport(name, session)
        bus = Bus(transport, name=name, session=session, prefix=prefix or self.fabric.prefix, bounds=bounds)
        self.opened.append(bus)
        await bus.start()
        await transport.flush()
        return bus

    async def close(self) -> None:
        """Close all of them."""
        for bus in self.opened:
            await bus.close()


class MemoryFabric:
    """A `MemoryServer`."""

    def __init__(self) -> None:
        self.prefix = "t" + secrets.token_hex(4)
        self.server = MemoryServer()
        self._transports: list[MemoryTransport] = []

    async def transport(self, name: str, session: str) -> MemoryTransport:
        """Return a new connection."""
        self._transports.append(self.server.connect())
        return self._transports[-1]

    async def lose(self) -> None:
        """Sever every connection."""
        for transport in self._transports:
            transport.sever()

    async def bring_back(self) -> None:
        """Mend every connection."""
        for transport in self._transports:
            transport.mend()


class NatsFabric:
    """A real nats-server: the session's own one, or one that may be killed."""

    def __init__(self, url: str, server: EmbeddedServer | None = None) -> None:
        # tests share the session's server, so each has a prefix of its own
        self.prefix = "t" + secrets.token_hex(4)
        self.url = url
        self.server = server
        self._transports: list[NatsTransport] = []

    async def transport(self, name: str, session: str) -> NatsTransport:
        """Return a new connection."""
        inbox = subjects.inbox(name, session)
        transport = await NatsTransport.connect(resolve(self.url), name=name, inbox=inbox)
        self._transports.append(transport)
        return transport

    async def lose(self) -> None:
        """Kill the server with -9 and return when every connection has noticed."""
        assert self.server is not None, "the session's server is not to be killed"
        os.kill(self.server.pid, signal.SIGKILL)
        await self.server.exited()
        await self.server.stop()
        await until(lambda: not any(transport.is_connected for transport in self._transports))

    async def bring_back(self) -> None:
        """Start the server on its old port and data, and return when every connection is back."""
        assert self.server is not None, "the session's server is not to be killed"
        back = [asyncio.Event() for _ in self._transports]
        for transport, event in zip(self._transports, back, strict=True):
            transport.on_reconnect(event.set)
        self.server = await EmbeddedServer.start(
            self.server.data, Options(port=int(self.url.rpartition(":")[2]), tied=True)
        )
        async with asyncio.timeout(20):
            for event in back:
                await event.wait()


@asynccontextmanager
async def own_nats(data: Path) -> AsyncIterator[NatsFabric]:
    """A nats-server of one test's own, which it may kill."""
    server = await EmbeddedServer.start(data)
    fabric = NatsFabric(server.url, server)
    try:
        yield fabric
    finally:
        assert fabric.server is not None
        await fabric.server.stop()
