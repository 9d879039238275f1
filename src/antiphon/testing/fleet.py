"""A whole fabric in one process: masters, nodes and clients on a memory bus, with faults that repeat exactly.

```python
from antiphon.testing import TestFleet, found, virtual_run


async def main():
    async with TestFleet(seed=1) as fleet:
        await fleet.master()
        await fleet.node("blog", found("whale songs"), instance="i1")
        await fleet.node("blog", found("whale songs"), instance="i2")
        fleet.faults.delay("blog.i1", ms=200)
        answer = await fleet.search("whales")
        assert answer.complete


virtual_run(main())
```

In virtual time (`virtual_run`) it takes no time, and two runs with one seed are the same to the byte.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from random import Random
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from antiphon.app import MasterRole
from antiphon.bus.bounds import Bounds
from antiphon.bus.bus import Bus
from antiphon.bus.memory import MemoryServer, MemoryTransport
from antiphon.bus.protocol import Transport
from antiphon.client import Client
from antiphon.clock import Clock, LoopClock, VirtualClock
from antiphon.decide.policy import Verify
from antiphon.errors import UnknownNode
from antiphon.messages.base import Fact
from antiphon.messages.handler import Hit, Query
from antiphon.messages.search import SearchAnswer
from antiphon.node import Node
from antiphon.responder import SearchHandler
from antiphon.runtime.actor import Actor
from antiphon.settings import Settings
from antiphon.testing.faults import Faults, is_of
from antiphon.testing.virtual import VirtualLoop

F = TypeVar("F", bound=Fact)

JOIN_MS_MAX = 20_000
"""A node that has not joined by then never will: there is no master."""


def found(*titles: str) -> SearchHandler:
    """Return a handler that finds the same documents whatever is asked, each about whales."""

    async def search(_query: Query) -> list[Hit]:
        return [Hit(id=title, title=title, text=f"{title} is about whales") for title in titles]

    return search


class SeededBus(Bus):
    """A bus whose tokens repeat, so that two runs are the same to the byte; no other fleet is to be kept out."""

    dice: Random

    def draw(self) -> str:
        """Return 32 hexadecimal digits."""
        return f"{self.dice.getrandbits(128):032x}"


@dataclass(slots=True)
class Party:
    """A master or an instance that runs, and how to make it again."""

    bus: Bus
    stop: Callable[[], Awaitable[None]]
    again: Callable[[], Awaitable[Any]]
    work: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    """The tasks in which its handlers run."""


class TestFleet:
    """Masters, nodes and clients, stopped at the end, last first.

    Args:
        seed: of whatever is drawn: faults, choices of masters, tokens.
        settings: of all masters; default: the environment's and `changed`, and callers may ask as often as they like.
        changed: single settings, e.g. `heartbeat_ms=100`.
    """

    __test__: ClassVar[bool] = False
    """It is no test, whatever pytest thinks of its name."""

    def __init__(self, seed: int = 0, *, settings: Settings | None = None, **changed: Any) -> None:
        self.seed = seed
        changed.setdefault("caller_per_minute", 0)
        changed.setdefault("actions_per_minute", 0)
        self.settings = settings or Settings(**changed)
        self.server = MemoryServer(seed=seed, clock=_clock())
        self.faults = Faults(seed, self._transports_of)
        self.server.network = self.faults
        self.nodes: list[Node] = []
        """The instances that run, first one first."""
        self.masters: dict[str, MasterRole] = {}
        self._parties: dict[str, Party] = {}
        self._gone: dict[str, Party] = {}
        self._ending: list[asyncio.Future[None]] = []
        self._buses: list[Bus] = []
        self._clients: dict[str, Client] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- who takes part

    async def master(
        self, name: str = "master", *, fallbacks: Sequence[Node] = (), verify: Verify | None = None
    ) -> MasterRole:
        """Start a master, and return when it serves; `verify` reads on-behalf-of tokens."""
        dice = Random(f"{self.seed}/{name}")  # noqa: S311 - repeatable choices, no secret
        role = MasterRole(await self.bus(name), self.settings, fallbacks=fallbacks, verify=verify, dice=dice)
        await role.start()
        running = asyncio.ensure_future(role.run())

        async def stop() -> None:
            role.supervisor.stop()
            await running

        self.masters[name] = role
        self._parties[name] = Party(role.bus, stop, lambda: self.master(name, fallbacks=fallbacks, verify=verify))
        return role

    async def node(
        self,
        name: str,
        search: SearchHandler | None = None,
        *,
        instance: str = "one",
        verify: Verify | None = None,
        actions: Mapping[str, Callable[..., Any] | tuple[Callable[..., Any], dict[str, Any]]] | None = None,
        **card: Any,
    ) -> Node:
        """Start an instance of a node, and return once it is asked.

        Args:
            name: the node's.
            search: its handler, as for `Node.search`.
            instance: its own name; faults know it as `name.instance`.
            actions: handlers by name, each alone or with what `Node.action` takes besides.
            verify: reads on-behalf-of tokens, as for `Node.start`.
            card: what else `Node` takes.
        """
        party = f"{name}.{instance}"
        work: set[asyncio.Task[Any]] = set()
        node = Node(name, instance=instance, **card)
        if search is not None:
            node.search(_watched(search, work))
        for action, given in (actions or {}).items():
            handler, how = (given, dict[str, Any]()) if callable(given) else given
            node.action(action, **how)(_watched(handler, work))
        bus = await self.bus(name, party=party)
        await node.start(bus=bus, verify=verify)

        async def stop() -> None:
            if node in self.nodes:  # else a test has stopped it by hand
                self.nodes.remove(node)
                await node.stop()

        self.nodes.append(node)
        again = partial(self.node, name, search, instance=instance, verify=verify, actions=actions, **card)
        self._parties[party] = Party(bus, stop, again, work)
        async with asyncio.timeout(JOIN_MS_MAX / 1_000):
            await node.joined()
        return node

    async def client(self, name: str = "web") -> Client:
        """Return a connected client; one of each name."""
        if name not in self._clients:
            self._clients[name] = Client(bus=await self.bus(name), name=name)
        return self._clients[name]

    async def search(self, query: str, **how: Any) -> SearchAnswer:
        """Ask as `Client.search` does, as the client `web`."""
        return await (await self.client()).search(query, **how)

    async def heard(self, kind: type[F]) -> list[F]:
        """Return a list that fills with the facts of a kind from now on."""
        facts: list[F] = []

        def hear(fact: F, _keys: dict[str, str]) -> None:
            facts.append(fact)

        bus = await self.bus("watcher")
        await bus.hear(kind, hear)
        await bus.transport.flush()
        return facts

    async def bus(self, name: str, *, party: str | None = None) -> Bus:
        """Return a started bus of an identity."""
        bus = await self.connect(name, party or name, self.settings.bus())
        self._buses.append(bus)
        return bus

    async def connect(self, name: str, party: str, bounds: Bounds) -> Bus:
        """Make a bus and start it; for fleets on other transports."""
        bus = SeededBus(
            self.server.connect(party),
            name=name,
            session=f"s{len(self._buses)}",
            prefix=self.settings.prefix,
            clock=_clock(),
            bounds=bounds,
        )
        bus.dice = Random(f"{self.seed}/{party}/{len(self._buses)}")  # noqa: S311 - repeatable tokens, no secret
        await bus.start()
        await bus.transport.flush()
        return bus

    # -- what becomes of them

    async def stop(self, party: str) -> None:
        """Stop parties properly: an instance leaves and finishes what it has begun. `blog` is all of its instances."""
        for name in self._named(party):
            ended = self._gone[name] = self._parties.pop(name)
            self.masters.pop(name, None)
            await ended.stop()

    async def crash(self, party: str) -> None:
        """End parties as kill -9 does: nothing more leaves them, nobody is told, and what they did is cut off."""
        for name in self._named(party):
            ended = self._gone[name] = self._parties.pop(name)
            transport = ended.bus.transport
            assert isinstance(transport, MemoryTransport), "only what is in memory can be killed here"
            transport.kill()
            self.faults.lose(name)
            for task in ended.work:
                task.cancel()
            role = self.masters.pop(name, None)
            actors = [] if role is None else [one for one in role.supervisor.children if isinstance(one, Actor)]
            for actor in actors:
                await actor.conversations.stop(grace_ms=0)
            self._ending.append(asyncio.ensure_future(ended.stop()))

    async def restart(self, party: str) -> None:
        """Start parties again that have stopped or crashed; those that run crash first."""
        for name in [name for name in self._parties if is_of(name, party)]:
            await self.crash(name)
        names = [name for name in self._gone if is_of(name, party)]
        if not names:
            raise UnknownNode(f"no {party!r} was in this fleet")
        for name in names:
            await self._gone.pop(name).again()

    def now_ms(self) -> int:
        """Return the time, in milliseconds; in virtual time it begins at 0."""
        return _clock().now_ms()

    async def sleep_ms(self, ms: int) -> None:
        """Let time pass."""
        await asyncio.sleep(ms / 1_000)

    async def close(self) -> None:
        """Stop everything, last first, the masters after the nodes; a crash of a master is raised here."""
        self.faults.heal()
        last_first = reversed(self._parties)
        for name in sorted(last_first, key=self.masters.__contains__):
            await self._parties[name].stop()
        self._parties.clear()
        for ending in self._ending:
            await ending
        for bus in self._buses:
            await bus.close()

    def _named(self, party: str) -> list[str]:
        names = [name for name in self._parties if is_of(name, party)]
        if not names:
            raise UnknownNode(f"no {party!r} runs in this fleet")
        return names

    def _transports_of(self, party: str | None) -> list[MemoryTransport]:
        transports: list[Transport] = [bus.transport for bus in self._buses]
        return [one for one in transports if isinstance(one, MemoryTransport) and is_of(one.party, party)]


def _watched(handler: Callable[..., Any], work: set[asyncio.Task[Any]]) -> Callable[..., Any]:
    """Return the handler, its tasks noted, so that a crash can cut it off; threads cannot be."""
    if not inspect.iscoroutinefunction(handler):
        return handler

    @wraps(handler)
    async def watched(*given: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"
        work.add(task)
        try:
            return await handler(*given)
        finally:
            work.discard(task)

    return watched


def _clock() -> Clock:
    return VirtualClock() if isinstance(asyncio.get_running_loop(), VirtualLoop) else LoopClock()
