"""The operators' desk: who there is, their keys and invites, and taking them away.

It shares the identity actor's ledger; every change is a compare-and-set of one record, so two operators at two masters
cannot overwrite each other. A secret is in exactly one answer and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from antiphon.actors.audit import What
from antiphon.actors.identity import IdentityActor
from antiphon.actors.ledger import Ledger
from antiphon.bus.bus import Bus, Call
from antiphon.decide import families
from antiphon.decide.book import Book, owner
from antiphon.decide.identities import ApiKeyRecord, FamilyRecord, IdentityRecord, InviteRecord, Record, Standing
from antiphon.errors import AlreadyRegistered, Malformed, NotAllowed, UnknownIdentity
from antiphon.identity.authority import Write
from antiphon.messages.base import Acknowledged, Kind
from antiphon.messages.identities import (
    CREDENTIALS_MAX,
    PAGE_MAX,
    CredentialRevoke,
    FamilyLine,
    IdentityCreate,
    IdentityDetail,
    IdentityEntry,
    IdentityGet,
    IdentityList,
    IdentityListing,
    IdentityOrder,
    IdentityUpdate,
    InviteLine,
    KeyCreate,
    KeyCreated,
    KeyLine,
    NodeInvite,
    NodeInvited,
)
from antiphon.runtime.actor import Actor, ActorBounds, answers
from antiphon.subjects import is_master

_JTI: Final = re.compile(r"[A-Za-z0-9_-]{22}")


class IdentityDesk(Actor):
    """What operators ask of one master about identities."""

    name = "identity-desk"

    def __init__(self, bus: Bus, identity: Callable[[], IdentityActor], *, bounds: ActorBounds | None = None) -> None:
        super().__init__(bus, bounds=bounds)
        self._identity = identity

    # -- reading

    @answers(IdentityList)
    async def list_identities(self, call: Call[IdentityList]) -> IdentityListing:
        """List identities, a page at a time."""
        self._check(call)
        asked = call.message
        found = [
            one
            for one in self._book.identities()
            if asked.kind in (None, one.kind) and (asked.after is None or one.name > asked.after)
        ]
        page = tuple(self._entry(one) for one in found[:PAGE_MAX])
        return IdentityListing(identities=page, next=page[-1].name if len(found) > PAGE_MAX else None)

    @answers(IdentityGet)
    async def get(self, call: Call[IdentityGet]) -> IdentityDetail:
        """Return one identity with its credentials, without their secrets; the newest where there are many."""
        self._check(call)
        name = call.message.name
        book = self._book
        # a node may be invited before it has ever been there
        found = book.identity(name)
        invites = book.owned(InviteRecord, name)
        if found is None and not invites:
            raise self._unknown(name)
        entry = self._entry(found) if found else IdentityEntry(name=name, kind=Kind.NODE)
        return IdentityDetail(
            identity=entry,
            families=tuple(_shown(FamilyLine, one) for one in book.owned(FamilyRecord, name)[-CREDENTIALS_MAX:]),
            keys=tuple(_shown(KeyLine, one) for one in book.owned(ApiKeyRecord, name)[-CREDENTIALS_MAX:]),
            invites=tuple(_shown(InviteLine, one) for one in invites[-CREDENTIALS_MAX:]),
        )

    # -- identities

    @answers(IdentityCreate)
    async def create(self, call: Call[IdentityCreate]) -> IdentityEntry:
        """Make an identity."""
        self._check(call)
        asked = call.message
        if is_master(asked.name) or asked.kind is Kind.MASTER:
            raise NotAllowed("masters are no identities of this book: their key is in the keys folder")
        now_ms = self.bus.clock.wall_ms()
        made = IdentityRecord(
            name=asked.name,
            kind=asked.kind,
            groups=asked.groups,
            is_delegate=asked.is_delegate,
            instances_max=asked.instances_max,
            created_ms=now_ms,
        )

        def decide() -> tuple[Write, ...]:
            there = self._book.identity(asked.name)
            if there is None:
                return (Write(made, self._book.revision(made.key)),)
            if there.model_copy(update={"created_ms": now_ms, "not_before_ms": 0}) != made:
                raise AlreadyRegistered(f"there is another identity {asked.name!r} already: a {there.kind}")
            return ()

        await self._ledger.change(decide)
        self._audit("created", asked.name, call, kind=asked.kind)
        return self._entry(self._known(asked.name))

    @answers(IdentityUpdate)
    async def update(self, call: Call[IdentityUpdate]) -> IdentityEntry:
        """Change an identity."""
        self._check(call)
        asked = call.message
        given = asked.model_dump(exclude_none=True, exclude={"name"})
        await self._set(asked.name, lambda _: given)
        self._audit("changed", asked.name, call, why=", ".join(sorted(given)))
        return self._entry(self._known(asked.name))

    @answers(IdentityOrder)
    async def order(self, call: Call[IdentityOrder]) -> IdentityEntry:
        """Suspend an identity, let it in again, or revoke everything that it holds."""
        self._check(call)
        name, order = call.message.name, call.message.order
        now_ms = self.bus.clock.wall_ms()
        if order == "revoke":
            with self._identity().held():
                # first the moment before which nothing counts: by it alone everything is refused
                await self._set(name, lambda _: {"not_before_ms": now_ms + 1})
                for kind in (FamilyRecord, ApiKeyRecord, InviteRecord):
                    for record in self._book.owned(kind, name):
                        await self._revoke(record)
            self._audit("revoked", name, call, why="identity")
        else:
            status = Standing.SUSPENDED if order == "suspend" else Standing.ACTIVE
            await self._set(name, lambda _: {"status": status})
            self._audit("suspended" if order == "suspend" else "resumed", name, call)
        return self._entry(self._known(name))

    async def _set(self, name: str, fields: Callable[[IdentityRecord], dict[str, Any]]) -> None:
        def decide() -> tuple[Write, ...]:
            there = self._known(name)
            changed = IdentityRecord.model_validate(there.model_dump() | fields(there))
            return () if changed == there else (Write(changed, self._book.revision(there.key)),)

        await self._ledger.change(decide)

    # -- credentials

    @answers(CredentialRevoke)
    async def revoke(self, call: Call[CredentialRevoke]) -> Acknowledged:
        """Revoke one token, family, key or invite."""
        self._check(call)
        what, serial = call.message.what, call.message.id
        who = "?"
        if what == "token":
            if _JTI.fullmatch(serial) is None:
                raise Malformed(
                    "the id of a token is its `jti`, 22 characters; the audit names it where it was granted"
                )
            lives = self._identity().limits.lives
            await self._identity().deny(serial, self.bus.clock.wall_ms() + lives.access_ms)
        else:
            record = self._book.records.get(f"{what}.{serial}")
            if record is None:
                raise self._unknown(serial)
            who = owner(record)
            await self._revoke(record)
        self._audit("revoked", who, call, why=what, credential=serial)
        return Acknowledged()

    async def _revoke(self, record: Record) -> None:
        key = f"{record.area}.{getattr(record, 'id', '')}"

        def decide() -> tuple[Write, ...]:
            there = self._book.records.get(key)
            if isinstance(there, FamilyRecord):
                changed: Record = families.revoke(there, "revoked")
            elif isinstance(there, (ApiKeyRecord, InviteRecord)):
                changed = there.model_copy(update={"is_revoked": True})
            else:
                return ()
            return () if changed == there else (Write(changed, self._book.revision(key)),)

        await self._ledger.change(decide)

    @answers(KeyCreate)
    async def create_key(self, call: Call[KeyCreate]) -> KeyCreated:
        """Make an API key."""
        self._check(call)
        asked = call.message
        if self._known(asked.identity).kind is Kind.NODE:
            raise NotAllowed(f"{asked.identity!r} is a node, and joins: make a join token with `antiphon node invite`")
        made, record = self._identity().authority.new_key(
            asked.identity,
            label=asked.label,
            keep_ms=asked.keep_ms,
            nkey=asked.nkey,
            now_ms=self.bus.clock.wall_ms(),
        )
        await self._ledger.change(lambda: (Write(record, 0),))
        self._audit("granted", asked.identity, call, why="api key", credential=record.id)
        return KeyCreated(id=record.id, key=made.reveal(), identity=asked.identity, expires_ms=record.expires_ms)

    @answers(NodeInvite)
    async def invite(self, call: Call[NodeInvite]) -> NodeInvited:
        """Make a join token."""
        self._check(call)
        asked = call.message
        there = self._book.identity(asked.node)
        if is_master(asked.node) or (there is not None and there.kind is not Kind.NODE):
            raise NotAllowed(f"{asked.node!r} is no node")
        made, record = self._identity().authority.new_invite(
            asked.node, instances=asked.instances, keep_ms=asked.keep_ms, now_ms=self.bus.clock.wall_ms()
        )
        await self._ledger.change(lambda: (Write(record, 0),))
        self._audit("invited", asked.node, call, credential=record.id)
        return NodeInvited(
            id=record.id,
            token=made.reveal(),
            node=asked.node,
            instances=asked.instances,
            expires_ms=record.expires_ms,
        )

    # -- what it stands on

    @property
    def _ledger(self) -> Ledger:
        return self._identity().ledger

    @property
    def _book(self) -> Book:
        return self._identity().ledger.book

    def _check(self, call: Call[Any]) -> None:
        """Raise `NotAllowed` for whoever is no operator, also where the server has let him ask."""
        self._identity().access.current.check_operator(call.caller)

    def _audit(self, what: What, who: str, call: Call[Any], **more: Any) -> None:
        self._identity().audit.tell(what, who, by=call.caller, **more)

    def _known(self, name: str) -> IdentityRecord:
        found = self._book.identity(name)
        if found is None:
            raise self._unknown(name)
        return found

    def _unknown(self, name: str) -> UnknownIdentity:
        return UnknownIdentity(f"there is no {name[:80]!r}; `antiphon identity ls` lists identities")

    def _entry(self, found: IdentityRecord) -> IdentityEntry:
        now_ms = self.bus.clock.wall_ms()
        book = self._book
        fields = found.model_dump(exclude={"status"})
        return IdentityEntry.model_validate(
            fields
            | {
                "status": found.status.value,
                "families": sum(families.is_alive(one, now_ms) for one in book.owned(FamilyRecord, found.name)),
                "keys": sum(
                    not one.is_revoked and (one.expires_ms is None or now_ms < one.expires_ms)
                    for one in book.owned(ApiKeyRecord, found.name)
                ),
            }
        )


def _shown(kind: Any, record: Record) -> Any:
    """Return what may be shown of a record: the fields that its line has."""
    return kind.model_validate(record.model_dump(include=set(kind.model_fields)))
