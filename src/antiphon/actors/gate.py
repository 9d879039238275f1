"""The gate: everything that decides who comes in, and the two connections that it takes.

A master that has the fabric's secrets runs it: the identity actor and the operators' desk on the master's own
connection, the kicker on one in the system account, the callout on one in the account that may do nothing else. It
starts before everything else of a role, because a node can only join once somebody lets it in.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import structlog

from antiphon import subjects
from antiphon.actors import badges
from antiphon.actors.audit import Audit
from antiphon.actors.callout import CalloutDesk
from antiphon.actors.census import Census
from antiphon.actors.identity import IdentityActor, IdentityBounds
from antiphon.actors.identity_desk import IdentityDesk
from antiphon.actors.kicker import Kicker, Whom
from antiphon.bus.bus import Bus
from antiphon.bus.endpoint import Endpoint
from antiphon.bus.nats import NatsTransport
from antiphon.decide.headcount import Headcount
from antiphon.decide.identities import IdentityRecord, Standing
from antiphon.decide.knocks import KnockBounds, Knocks
from antiphon.decide.login import DelegatedClaims, judge_api_key
from antiphon.decide.policy import Access
from antiphon.errors import NotAllowed
from antiphon.identity import credential, opaque
from antiphon.identity.authority import Write
from antiphon.identity.callout import Callout
from antiphon.identity.credential import Credential
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.server_config import APP_ACCOUNT
from antiphon.identity.session import Fixed
from antiphon.identity.vault import Vault
from antiphon.messages.base import Kind
from antiphon.runtime.actor import ActorBounds
from antiphon.runtime.facts import Facts
from antiphon.runtime.supervisor import Supervisor
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.identity")


class Gate:
    """Who comes in, at one master.

    Args:
        vault: the fabric's secrets.
        endpoint: the server.
    """

    def __init__(self, vault: Vault, endpoint: Endpoint) -> None:
        self.vault = vault
        self.endpoint = endpoint
        self.actor: IdentityActor | None = None
        self.audit: Audit | None = None
        self._kicker: Kicker | None = None
        self._transports: list[NatsTransport] = []

    @property
    def identity(self) -> IdentityActor:
        """The identity actor that runs now."""
        assert self.actor is not None, "start() comes first"
        return self.actor

    async def start(
        self,
        supervisor: Supervisor,
        bus: Bus,
        facts: Facts,
        access: View[Access],
        *,
        limits: IdentityBounds | None = None,
        bounds: ActorBounds | None = None,
    ) -> None:
        """Start everything; return when people are let in."""
        limits = limits or IdentityBounds()
        audit = self.audit = Audit(bus, facts)
        heads = Headcount(limits.heads)
        is_asked = bus.transport.asks_for_login
        if is_asked:
            assert isinstance(bus.transport, NatsTransport), "a bus in memory asks nobody"
            bus.transport.store, _ = await self._connect("store", self.vault.store)
            await self._start_system(supervisor, bus, audit, heads)
        else:
            nkey, knocks = self.vault.master.public, Knocks(limits.knocks)
            badges.put_on(bus, lambda: self.identity, nkey, audit=audit, knocks=knocks)

        def identity() -> IdentityActor:
            kicks = self if is_asked else None
            return IdentityActor(
                bus, access, audit, self.vault, kicks=kicks, limits=limits, bounds=bounds, opened=self._take
            )

        await supervisor.start("identity", identity)
        await supervisor.start("identity-desk", lambda: IdentityDesk(bus, lambda: self.identity, bounds=bounds))
        if is_asked:
            await self._start_callout(supervisor, bus, limits.knocks, heads)

    def _take(self, actor: IdentityActor) -> None:
        """Judge by a new actor as soon as its book is complete; one that has crashed serves until then."""
        self.actor = actor

    @contextmanager
    def held(self) -> Generator[None, None, None]:
        """Let the kicker carry out nothing meanwhile."""
        assert self._kicker is not None, "it started before whoever orders this"
        with self._kicker.held():
            yield

    def kick(self, whom: Whom, why: str) -> None:
        """End every connection that is meant."""
        assert self._kicker is not None, "it started before whoever orders this"
        self._kicker.kick(whom, why)

    async def _start_system(self, supervisor: Supervisor, bus: Bus, audit: Audit, heads: Headcount) -> None:
        system, inbox = await self._connect("system", self.vault.system)

        def kicker() -> Kicker:
            self._kicker = Kicker(system, inbox, APP_ACCOUNT, audit, bus.clock)
            return self._kicker

        await supervisor.start("kicker", kicker)
        await supervisor.start("census", lambda: Census(system, inbox, APP_ACCOUNT, heads, bus.clock, audit=audit))

    async def _start_callout(self, supervisor: Supervisor, bus: Bus, bounds: KnockBounds, heads: Headcount) -> None:
        callout, _ = await self._connect("callout", self.vault.callout)
        codec, knocks = Callout(self.vault.issuer, self.vault.xkey), Knocks(bounds)

        def desk() -> CalloutDesk:
            return CalloutDesk(callout, codec, lambda: self.identity, bus.clock, knocks=knocks, heads=heads)

        await supervisor.start("callout", desk)

    async def introduce(self, path: Path, name: str) -> None:
        """Make the user of this machine its operator, with a credential that lies in the data directory.

        What is there and still good is left; a bucket that has lost its key gets a new one. Where his name is that of
        another kind, the fabric is served all the same: another operator can log in.
        """
        name = f"user-{name}"[:63] if subjects.is_master(name) else name
        found = credential.find(path)
        there = self.identity.ledger.book.identity(name)
        await self._let_in_again(name if found is None else found.name)
        is_open = not self.identity.bus.transport.asks_for_login
        if found is not None and found.is_open == is_open and self._is_good(found):
            return
        if there is not None and there.kind is not Kind.OPERATOR:
            why = f"there is a {there.kind} of this name: log in as an operator, or start it as another user"
            log.warning("identity.not_introduced", name=name, why=why)
            return
        ledger, now_ms = self.identity.ledger, self.identity.bus.clock.wall_ms()
        record = IdentityRecord(name=name, kind=Kind.OPERATOR, created_ms=now_ms)
        pair = found.keypair if found is not None else KeyPair.make(Role.USER)
        made, key = self.identity.authority.new_key(
            name, label="this machine", keep_ms=None, nkey=pair.public, now_ms=now_ms
        )
        await ledger.change(lambda: [*([] if there else [Write(record, 0)]), Write(key, 0)])
        written = Credential(
            name=name,
            kind=Kind.OPERATOR,
            seed=pair.seed(),
            api_key=made.reveal(),
            issuer=self.vault.issuer.public,
            is_open=is_open,
        )
        credential.write(path, written)
        self.identity.audit.tell("granted", name, kind=Kind.OPERATOR, why="this machine", credential=key.id)

    async def _let_in_again(self, name: str) -> None:
        """Resume an operator who is suspended: he has the keys folder, and who else should resume the last one."""
        ledger = self.identity.ledger
        resumed: list[str] = []

        def decide() -> list[Write]:
            there = ledger.book.identity(name)
            if there is None or there.kind is not Kind.OPERATOR or there.status is Standing.ACTIVE:
                return []
            resumed[:] = [name]
            return [Write(there.model_copy(update={"status": Standing.ACTIVE}), ledger.book.revision(there.key))]

        await ledger.change(decide)
        if resumed:
            self.identity.audit.tell("resumed", name, kind=Kind.OPERATOR, why="this machine")

    def _is_good(self, found: Credential) -> bool:
        opened = opaque.parse(found.api_key or "")
        if opened is None:
            return False
        book, now_ms = self.identity.ledger.book, self.identity.bus.clock.wall_ms()
        key, mac = book.api_key(opened.id), opened.mac(self.vault.pepper)
        return judge_api_key(key, mac, found.keypair.public, book.identity(found.name), now_ms) is None

    def verify(self, token: str, caller: str) -> DelegatedClaims:
        """Return whom a caller speaks for; raises `NotAllowed` for a token that does not say so."""
        if self.actor is None:
            raise NotAllowed("nobody can be spoken for yet")
        return self.actor.verify(token, caller)

    async def close(self) -> None:
        """Disconnect; after the supervisor has stopped."""
        for transport in self._transports:
            await transport.close()

    async def _connect(self, what: str, key: KeyPair) -> tuple[NatsTransport, str]:
        inbox = subjects.inbox(f"{subjects.MASTER}-{what}", secrets.token_hex(8))
        transport = await NatsTransport.connect(self.endpoint, name=what, inbox=inbox, logins=Fixed(key))
        self._transports.append(transport)
        return transport, inbox
