"""A nats-server with a callout at its door that a test commands, and parties that come in by tokens or by keys.

The masters' own desks are left out, so that a test says itself who is let in, for how long, and when not.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from antiphon import subjects
from antiphon.actors.connz import Connz
from antiphon.bus.bus import Bus
from antiphon.bus.endpoint import resolve
from antiphon.bus.nats import NatsTransport
from antiphon.bus.protocol import Delivery, Login, Logins
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.clock import LoopClock
from antiphon.decide.identities import Reason
from antiphon.decide.login import AccessClaims, Labelled, full
from antiphon.identity.callout import Callout, possession
from antiphon.identity.jwks import KeySet, make_ring
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.server_config import APP_ACCOUNT, ASK, configuration
from antiphon.identity.session import Fixed
from antiphon.identity.tokens import ACCESS_MS, mint_access, new_jti, verify_access
from antiphon.identity.vault import Vault
from antiphon.messages.base import Kind
from fabrics import until

PREFIX = "antiphon"


def wall_ms() -> int:
    return LoopClock().wall_ms()


@dataclass
class Minted:
    """Logins with a new token each time, as a session has them; a test says how long it lives, or what is wrong."""

    door: Door
    name: str
    kind: Kind
    instance: str | None = None
    life_ms: int = ACCESS_MS
    error: Exception | None = None
    held: asyncio.Event | None = None
    """Where it is given, a login waits for it."""
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    key: KeyPair = field(default_factory=lambda: KeyPair.make(Role.USER))
    asked: int = 0
    refusals: int = 0

    async def login(self) -> Login:
        self.asked += 1
        self.wanted.set()
        if self.held is not None:
            await self.held.wait()
        if self.error is not None:
            raise self.error
        now = wall_ms()
        claims = AccessClaims(
            name=self.name,
            kind=self.kind,
            groups=(),
            nkey=self.key.public,
            jti=new_jti(),
            issued_ms=now,
            expires_ms=now + self.life_ms,
            instance=self.instance,
            family="a" * 16,
        )
        return Login(self.key.seed(), mint_access(claims, self.door.ring.active, PREFIX))

    def refused(self) -> None:
        self.refusals += 1


class Door:
    """The server, its callout, and whoever came in; everything is closed at the end."""

    def __init__(self, server: EmbeddedServer, vault: Vault, options: Options) -> None:
        self.server = server
        self._options = options
        self.vault = vault
        self.ring = make_ring(wall_ms())
        self.shut: set[str] = set()
        """Names that are refused."""
        self.refusals: list[str] = []
        self.buses: list[Bus] = []
        self._codec = Callout(vault.issuer, vault.xkey)
        self._connz: Connz | None = None

    async def serve(self) -> None:
        """Let people in."""
        callout = await self.connect("callout", Fixed(self.vault.callout))

        async def answer(delivery: Delivery) -> None:
            request = self._codec.open(delivery.data, delivery.headers)
            claims = verify_access(request.connect.auth_token, KeySet.of(self.ring), PREFIX, wall_ms())
            assert possession(request) is None
            if isinstance(claims, Reason) or claims.name in self.shut:
                self.refusals.append(request.connect.name)
                said = self._codec.refuse(request, Reason.SUSPENDED, wall_ms())
            else:
                said = self._codec.admit(request, full(claims), wall_ms())
            await callout.transport.publish(delivery.reply, said)

        await callout.transport.subscribe(ASK, answer, queue="callout")
        await callout.transport.flush()

    async def connect(self, name: str, logins: Logins) -> Bus:
        """Return a started bus."""
        session = secrets.token_hex(8)
        inbox = subjects.inbox(name, session)
        transport = await NatsTransport.connect(resolve(self.server.url), name=name, inbox=inbox, logins=logins)
        bus = Bus(transport, name=name, session=session)
        self.buses.append(bus)
        if logins is not None and name not in ("callout", "system"):
            await bus.start()
            await transport.flush()
        return bus

    async def master(self, name: str = "master") -> Bus:
        """Return the bus of a master, who comes in by a key."""
        return await self.connect(name, Fixed(self.vault.master))

    def minted(self, name: str, kind: Kind = Kind.PUBLISHER, instance: str | None = None) -> Minted:
        """Return the logins of somebody who comes in by tokens."""
        return Minted(self, name, kind, instance)

    async def node(self, name: str = "docs", instance: str = "one") -> tuple[Bus, Minted]:
        """Return the bus of a node's instance, and what it logs in with."""
        logins = self.minted(name, Kind.NODE, instance)
        return await self.connect(name, logins), logins

    async def client(self, name: str = "web") -> tuple[Bus, Minted]:
        """Return the bus of a publisher, and what it logs in with."""
        logins = self.minted(name)
        return await self.connect(name, logins), logins

    # -- what the server knows

    async def connections(self) -> dict[int, str]:
        """Return the number and the name of each connection of the fabric's account; masters' is `master`."""
        found: dict[int, str] = {}
        connz = await self._servers()
        async for _, page in connz.pages():
            for one in page:
                label = Labelled.of(one.authorized_user)
                found[one.cid] = label.name if label is not None else subjects.MASTER
        return found

    async def kick(self, name: str) -> int:
        """End every connection of a name, and return how many there were."""
        connz, count = await self._servers(), 0
        system = self._system
        async for server, page in connz.pages():
            for one in page:
                label = Labelled.of(one.authorized_user)
                if (label.name if label is not None else subjects.MASTER) == name:
                    count += 1
                    order = orjson.dumps({"cid": one.cid})
                    await system.transport.publish(f"$SYS.REQ.SERVER.{server}.KICK", order, reply="_I.master-test.k")
        await system.transport.flush()
        return count

    async def _servers(self) -> Connz:
        if self._connz is None:
            self._system = await self.connect("system", Fixed(self.vault.system))
            self._connz = Connz(self._system.transport, subjects.inbox("master-test", "connz"), APP_ACCOUNT)
            await self._connz.start()
        return self._connz

    # -- a server that goes

    async def lose(self) -> None:
        """Kill the server with -9, and return when everybody has noticed."""
        os.kill(self.server.pid, signal.SIGKILL)
        await self.server.exited()
        await self.server.stop()
        await until(lambda: not any(bus.transport.is_connected for bus in self.buses))

    async def bring_back(self) -> None:
        """Start it again on its old port and data."""
        port = int(self.server.url.rpartition(":")[2])
        self.server = await EmbeddedServer.start(self.server.data, replace(self._options, port=port))


@asynccontextmanager
async def door_at(data: Path, more: str = "") -> AsyncIterator[Door]:
    """A server with its door, and everything that was opened closed at the end; `more` lines of configuration."""
    vault = Vault.open(data)
    options = Options(more=f"{configuration(vault.public)}\n{more}")
    server = await EmbeddedServer.start(data, options)
    door = Door(server, vault, options)
    try:
        await door.serve()
        yield door
    finally:
        async with asyncio.timeout(30):
            for bus in door.buses:
                await bus.close()
        await door.server.stop()
