"""A whole fabric in this process for tests: masters, nodes and clients, on either bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from antiphon import Client, Hit, Node
from antiphon.app import MasterRole
from antiphon.bus.bus import Bus
from antiphon.messages.base import Fact
from antiphon.settings import Settings
from fabrics import Buses, Fabric

F = TypeVar("F", bound=Fact)


def found(*titles: str) -> Callable[[Any], Any]:
    """Return a handler that finds the same documents whatever is asked."""

    async def search(_query: Any) -> list[Hit]:
        return [Hit(id=title, title=title, text=f"{title} is about whales") for title in titles]

    return search


class Fleet:
    """Masters, nodes and clients of one test, stopped in reverse order at its end."""

    def __init__(self, fabric: Fabric, settings: Settings | None = None) -> None:
        self.buses = Buses(fabric)
        self.settings = settings or Settings(prefix=fabric.prefix)
        self.nodes: list[Node] = []
        self._masters: list[tuple[MasterRole, asyncio.Task[None]]] = []

    async def bus(self, name: str) -> Bus:
        """Return a started bus of an identity."""
        return await self.buses.open(name, prefix=self.settings.prefix, bounds=self.settings.bus())

    async def master(self, name: str = "master", *, fallbacks: Sequence[Node] = ()) -> MasterRole:
        """Start a master."""
        role = MasterRole(await self.bus(name), self.settings, fallbacks=fallbacks)
        await role.start()
        self._masters.append((role, asyncio.ensure_future(role.run())))
        return role

    async def node(self, name: str, search: Callable[[Any], Any], *, instance: str = "one", **card: Any) -> Node:
        """Start an instance of a node, and return once it is asked."""
        node = Node(name, instance=instance, **card)
        node.search(search)
        await node.start(bus=await self.bus(name))
        self.nodes.append(node)
        async with asyncio.timeout(20):
            await node.joined()
        return node

    async def client(self, name: str = "web") -> Client:
        """Return a connected client."""
        return Client(bus=await self.bus(name), name=name)

    async def heard(self, kind: type[F]) -> list[F]:
        """Return a list that fills with the facts of a kind from now on."""
        facts: list[F] = []

        async def hear(fact: F, _keys: dict[str, str]) -> None:
            facts.append(fact)

        bus = await self.bus("watcher")
        await bus.hear(kind, hear)
        await bus.transport.flush()
        return facts

    async def stop(self) -> None:
        """Stop everything, last first; a crash of a master is raised here."""
        for node in reversed(self.nodes):
            await node.stop()
        for role, running in reversed(self._masters):
            role.supervisor.stop()
            await running
        await self.buses.close()


@asynccontextmanager
async def fleet_on(fabric: Fabric, **settings: Any) -> AsyncIterator[Fleet]:
    """A fleet that is stopped at the end."""
    fleet = Fleet(fabric, Settings(prefix=fabric.prefix, **({"caller_per_minute": 0} | settings)))
    try:
        yield fleet
    finally:
        await fleet.stop()
