"""An arena: a fabric as `antiphon up` runs it, on a real nats-server, and ways to attack it.

The masters run in this process, so a test switches off exactly one defence by patching the decision behind it; there
is no switch in the product. Whoever connects after that is judged without it.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import pytest
from nats.aio.subscription import Subscription

from antiphon import Client, Hit, Node
from antiphon.app import MasterRole, embedded
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect as connect_with
from antiphon.bus.endpoint import resolve
from antiphon.bus.nats import NatsTransport
from antiphon.bus.server import EmbeddedServer
from antiphon.bus.strict import StrictClient
from antiphon.client import user_name
from antiphon.decide.grants import Grants, Respond
from antiphon.identity.connect import connect
from antiphon.identity.jws import decode64
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.proof import prove
from antiphon.identity.session import Fixed
from antiphon.identity.vault import Vault
from antiphon.messages.base import Fact, Kind
from antiphon.messages.identities import IdentityAudited
from antiphon.messages.tokens import Enrol, TokenAsk, TokenGrant
from antiphon.settings import Settings
from forged import Forge

both = pytest.mark.parametrize("is_defended", [True, False], ids=["defended", "open"])
"""Each attack is run twice: refused, and with exactly its defence switched off, where it succeeds."""
EVERYTHING = Grants(publish=(">",), subscribe=(">",), may_respond=Respond(messages_max=1_000))
_numbers = itertools.count(1)


def drawn(what: str) -> str:
    """A name that no other test of this process has."""
    return f"{what}-{next(_numbers)}"


@dataclass(frozen=True)
class Party:
    """Somebody with a key and a token of his own."""

    name: str
    instance: str | None
    key: KeyPair
    grant: TokenGrant


@dataclass
class Raw:
    """A connection without our library's manners; its flush waits for what was sent before, unlike nats-py's."""

    client: StrictClient
    errors: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, subject: str) -> Subscription:
        """Listen; what comes is in `pending_msgs`, exactly, once the connection has been flushed."""
        found: Subscription = await self.client.subscribe(subject)
        await self.client.flush()
        return found

    async def send(
        self, subject: str, data: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send, and return when the server has dealt with it."""
        await self.client.publish(subject, data, reply, headers)
        await self.client.flush()

    async def heard(self, subscription: Subscription) -> int:
        """How many messages have come."""
        await self.client.flush()
        return int(subscription.pending_msgs)


class Scene:
    """One test's part of an arena: all that it opens is closed at its end."""

    def __init__(self, arena: Arena, stack: AsyncExitStack) -> None:
        self.arena = arena
        self.role, self.server, self.home = arena.role, arena.server, arena.home
        self._stack = stack

    @property
    def vault(self) -> Vault:
        assert self.role.gate is not None
        return self.role.gate.vault

    @property
    def operator(self) -> Bus:
        return self.arena.operator

    async def party(self, kind: Kind = Kind.PUBLISHER, name: str | None = None, instance: str | None = None) -> Party:
        """An identity that an operator has vouched for, with a token."""
        key, name = KeyPair.make(Role.USER), name or drawn(kind.value)
        if kind is Kind.NODE:
            instance = instance or "one"
        grant = await self.operator.ask(Enrol(name=name, kind=kind, instance=instance, nkey=key.public))
        return Party(name, instance, key, grant)

    async def raw(self, who: Party | KeyPair, token: str | None = None, **options: Any) -> Raw:
        """Connect as somebody, or with a key alone as the fabric's own users do."""
        key = who.key if isinstance(who, Party) else who
        token = token or (who.grant.access if isinstance(who, Party) else None)
        raw = Raw(StrictClient())

        async def noted(error: Exception) -> None:
            raw.errors.append(str(error))

        async def closed() -> None:
            raw.ended.set()

        given = {"nkeys_seed_str": key.seed()} | ({} if token is None else {"token": token}) | options
        self._stack.push_async_callback(_closed, raw.client)  # a refused one, too: the library leaves its socket open
        await raw.client.connect(
            self.server.url, allow_reconnect=False, connect_timeout=5, error_cb=noted, closed_cb=closed, **given
        )
        return raw

    async def is_let_in(self, who: Party | KeyPair, token: str | None = None, **options: Any) -> bool:
        """Whether the door opens, and if not, for no other reason than that it is kept shut."""
        try:
            await self.raw(who, token, **options)
        except nats.errors.Error as error:
            if "authorization violation" not in str(error).lower():
                raise
            return False
        return True

    async def master(self) -> Raw:
        """A connection with the masters' own key: it may do everything in the account, and sees what they see."""
        return await self.raw(self.vault.master)

    async def bus(self, party: Party, token: str | None = None) -> Bus:
        """A bus of ours, on a token as it is."""
        logins = Fixed(party.key, token or party.grant.access)
        bus = await connect_with(party.name, endpoint=resolve(self.server.url), logins=logins)
        self._stack.push_async_callback(bus.close)
        return bus

    async def transport(self) -> NatsTransport:
        """A master's way to the account where everybody is."""
        inbox, logins = f"_I.master.{secrets.token_hex(4)}", Fixed(self.vault.master)
        made = await NatsTransport.connect(resolve(self.server.url), name="master", inbox=inbox, logins=logins)
        self._stack.push_async_callback(made.close)
        return made

    async def client(self, party: Party | None = None) -> Client:
        """A publisher that searches."""
        party = party or await self.party()
        return Client(bus=await self.bus(party), name=party.name)

    async def node(self, handler: Any = None, *, name: str | None = None, **actions: Any) -> Node:
        """A node of ours that has joined, and finds one document about whales unless it is told otherwise."""
        party = await self.party(Kind.NODE, name)
        node = Node(party.name, instance=party.instance)
        node.search(handler or (lambda _query: [Hit(id="whale", title=f"{party.name} whales", text="whales sing")]))
        for action, run in actions.items():
            node.action(action)(run)
        await node.start(bus=await self.bus(party))
        self._stack.push_async_callback(node.stop)
        async with asyncio.timeout(10):
            await node.joined()
        return node

    async def facts(self, kind: type[Fact] = IdentityAudited) -> list[Any]:
        """A list that fills with what is told from now on."""
        found: list[Any] = []

        def hear(fact: Fact, _keys: dict[str, str]) -> None:
            found.append(fact)

        subscription = await self.role.bus.hear(kind, hear)
        self._stack.push_async_callback(subscription.drain)
        await self.role.bus.transport.flush()
        return found

    def subject(self, text: str) -> str:
        """A subject of the fabric."""
        return f"{self.role.bus.prefix}.v1.{text}"


@dataclass
class Arena:
    """One fabric, for the tests of one module."""

    server: EmbeddedServer
    role: MasterRole
    home: Path
    operator: Bus
    audited: list[IdentityAudited] = field(default_factory=list)
    """All that the masters have told of identities."""

    @asynccontextmanager
    async def scene(self) -> AsyncIterator[Scene]:
        """Begin one test's part."""
        async with AsyncExitStack() as stack:
            yield Scene(self, stack)


@asynccontextmanager
async def opened(home: Path, **settings: Any) -> AsyncIterator[Arena]:
    """An arena that is shut at the end."""
    async with embedded(home, Settings(**settings)) as (server, role):
        running = asyncio.ensure_future(role.run())
        operator = await connect(user_name(), kind=Kind.OPERATOR, data=home)
        arena = Arena(server, role, home, operator)

        def note(fact: IdentityAudited, _keys: dict[str, str]) -> None:
            arena.audited.append(fact)

        await role.bus.hear(IdentityAudited, note)
        try:
            yield arena
        finally:
            await operator.close()
            role.supervisor.stop()
            await running  # what is told at the end is heard, too: the bus is drained last


async def _closed(client: StrictClient) -> None:
    with suppress(nats.errors.Error, OSError):
        await client.close()


def let_all(patch: pytest.MonkeyPatch) -> None:
    """Have the server let everybody publish and subscribe everything."""
    patch.setattr("antiphon.decide.login.grants", lambda *_who, **_how: EVERYTHING)


def in_one_account(patch: pytest.MonkeyPatch) -> None:
    """Have masters that start from now on keep their buckets where everybody is."""
    patch.setattr(NatsTransport, "store", property(lambda _self: None, lambda _self, _store: None), raising=False)


def believe_any_record(patch: pytest.MonkeyPatch) -> None:
    """Have masters believe each record of the identities' bucket, whoever has written it."""
    patch.setattr("antiphon.actors.ledger.opened", lambda value, *_how: value[value.index(b"{") :])


def inbox(name: str) -> str:
    """An address of somebody's own."""
    return f"_I.{name}.{secrets.token_hex(4)}.x"


def yes(*_args: Any, **_more: Any) -> bool:
    """A check that has been switched off."""
    return True


def no(*_args: Any, **_more: Any) -> bool:
    """A check that never finds anything."""
    return False


async def happens(true: Callable[[], object], bound_s: float = 5) -> bool:
    """Whether something comes to be; for what an attack is to bring about, never for what it must not."""
    with suppress(TimeoutError):
        async with asyncio.timeout(bound_s):
            while not true():  # noqa: ASYNC110 - what is waited for sends no event
                await asyncio.sleep(0.005)
            return True
    return False


async def bought(bus: Bus, key: KeyPair, credential: str, instance: str | None = None) -> TokenGrant:
    """What a credential buys, with a proof as our own clients make it."""
    return await bus.ask(token_ask(bus, key, credential, instance))


def token_ask(bus: Bus, key: KeyPair, credential: str, instance: str | None = None) -> TokenAsk:
    """The question for a token, with its proof."""
    nonce, at_ms = secrets.token_hex(16), bus.clock.wall_ms()
    proof = prove(key, nonce, credential, at_ms)
    return TokenAsk(credential=credential, nkey=key.public, nonce=nonce, at_ms=at_ms, proof=proof, instance=instance)


async def first_word(url: str, token: str, nkey: str, sign: Callable[[bytes], bytes]) -> str:
    """Connect without a library, and return what the server says to that."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        signature = base64.urlsafe_b64encode(sign(info["nonce"].encode())).decode().rstrip("=")
        said = {"nkey": nkey, "sig": signature, "auth_token": token, "verbose": False, "version": "2.15.1", "proto": 1}
        writer.write(b"CONNECT " + json.dumps(said).encode() + b"\r\nPING\r\n")
        async with asyncio.timeout(5):
            while True:
                line = (await reader.readline()).decode()
                if not line.startswith("INFO"):
                    return line
    finally:
        writer.close()


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unchecked."""
    found: dict[str, Any] = json.loads(decode64(token.split(".")[1]))
    return found


class TrueForge(Forge):
    """Makes tokens for a party that is known, so that one thing alone is wrong with each."""

    def __init__(self, true: dict[str, Any], **how: Any) -> None:
        super().__init__(**how)
        self._true = true

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims with these changed; None leaves one out."""
        return {key: value for key, value in (self._true | changed).items() if value is not None}


def forge(scene: Scene, party: Party) -> TrueForge:
    """A forge that has the fabric's own signing keys and a party's true claims."""
    assert scene.role.gate is not None
    ring, now_ms = scene.role.gate.identity.authority.ring, scene.role.bus.clock.wall_ms()
    return TrueForge(claims_of(party.grant.access), nkey=party.key.public, now_ms=now_ms, ring=ring, name=party.name)
