"""The authority: what masters answer to a credential, from their book of records and their secrets, without I/O.

`admit` is the verdict on a connection; `exchange`, `enrol` and `speak_for` make tokens. What has to be written before a
token may leave is returned as `Write`s, each a compare-and-set of one record: whoever loses the race judges again from
the newer record, so no credential is spent twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from antiphon.decide import families, login
from antiphon.decide.book import RING, Book
from antiphon.decide.identities import (
    ApiKeyRecord,
    IdentityRecord,
    InviteRecord,
    Reason,
    Record,
    Standing,
)
from antiphon.decide.login import AccessClaims, DelegatedClaims, Joining, Login
from antiphon.decide.ring import Ring
from antiphon.errors import NotAuthenticated
from antiphon.identity import opaque, tokens
from antiphon.identity.jwks import KeySet, sign_document
from antiphon.identity.keypair import KeyPair
from antiphon.identity.opaque import Opaque, Sort
from antiphon.messages.base import Kind
from antiphon.messages.tokens import TokenGrant
from antiphon.subjects import PREFIX, is_master

MASTERS_OWN: Final = "mastersownbadges"
"""Stands where a badge names what it was bought with: a master's was not bought."""
ENROLLED_LIVES: Final = 2
"""Lives of an access token after which the unused family of an enrolled process is over: it can enrol again."""
AREAS: Final = {Sort.API_KEY: "key", Sort.JOIN: "invite", Sort.REFRESH: "family"}


@dataclass(frozen=True, slots=True)
class Lives:
    """How long tokens are good, in milliseconds."""

    access_ms: int = tokens.ACCESS_MS
    on_behalf_ms: int = tokens.ON_BEHALF_MS
    family: families.Life = field(default_factory=families.Life)


@dataclass(frozen=True, slots=True)
class Write:
    """A record to be written if its key is still at this revision (0: not there yet)."""

    record: Record
    revision: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing is handed out; what has to be written all the same (a family that is revoked now) comes with it."""

    reason: Reason
    who: str = "?"
    credential: str = ""
    writes: tuple[Write, ...] = ()


@dataclass(frozen=True, slots=True)
class Bought:
    """A token, once the writes are done; `refresh` is the next refresh token."""

    claims: AccessClaims
    writes: tuple[Write, ...] = ()
    refresh: Opaque | None = None
    sort: Sort | None = None
    is_again: bool = False
    """Whether the same was handed out before, and the answer may have been lost."""


class Authority:
    """What one master answers to credentials."""

    def __init__(
        self, book: Book, *, pepper: bytes, issuer: KeyPair, prefix: str = PREFIX, lives: Lives | None = None
    ) -> None:
        self.book = book
        self.issuer = issuer
        self.prefix = prefix
        self.lives = lives or Lives()
        self._pepper = pepper
        self._ring: Ring | None = None
        self.seen: Callable[[AccessClaims], None] = lambda _claims: None
        """Is told of every access token that is good, whenever it is judged."""
        self.keys = KeySet(())

    @property
    def ring(self) -> Ring:
        """The signing keys; `NotAuthenticated` before there are any."""
        if self._ring is None:
            raise NotAuthenticated("this fabric has no signing keys yet")
        return self._ring

    @property
    def has_keys(self) -> bool:
        """Whether there are signing keys."""
        return self._ring is not None

    def take_ring(self, ring: Ring) -> None:
        """Sign and verify with these keys from now on."""
        self._ring = ring
        self.keys = KeySet.of(ring)

    # -- connections

    def admit(self, credential: str | None, nkey: str, now_ms: int) -> Login | Refusal:
        """Return the login of whoever presents a credential on a connection, having proved that the nkey is his.

        Args:
            credential: an access token, or an API key, join token or refresh token to get one with.
            nkey: the public key.
            now_ms: wall clock.
        """
        if not credential:
            return Refusal(Reason.MISSING)
        found = opaque.parse(credential)
        if found is not None:
            return self._bootstrap(found, nkey, now_ms)
        claims = tokens.verify_access(credential, self.keys, self.prefix, now_ms)
        if isinstance(claims, Reason):
            return Refusal(claims)
        reason = self._judge_access(claims, nkey, now_ms)
        if reason is not None:
            return Refusal(reason, claims.name, claims.jti)
        self.seen(claims)
        return login.full(claims, prefix=self.prefix)

    def judge_badge(self, claims: AccessClaims, now_ms: int) -> Reason | None:
        """Return why a token whose signature is good is refused as a badge; masters' own hang on nothing."""
        if claims.kind is Kind.MASTER:
            return None
        reason = self._judge_access(claims, claims.nkey, now_ms)
        if reason is None:
            self.seen(claims)
        return reason

    def first_use(self, claims: AccessClaims) -> tuple[Write, ...]:
        """Return what has to be written because a token is used."""
        family = self.book.family(claims.family) if claims.family else None
        used = families.used(family, claims.issued_ms) if family is not None else None
        return () if used is None else (Write(used, self.book.revision(used.key)),)

    def own_badge(self, name: str, nkey: str, now_ms: int) -> str:
        """Return a master's own badge, where the server does not ask who it is."""
        claims = AccessClaims(
            name=name,
            kind=Kind.MASTER,
            groups=(),
            nkey=nkey,
            jti=tokens.new_jti(),
            issued_ms=now_ms,
            expires_ms=_whole_seconds(now_ms + self.lives.access_ms),
            key=MASTERS_OWN,
        )
        return tokens.mint_access(claims, self.ring.active, self.prefix)

    def _judge_access(self, claims: AccessClaims, nkey: str, now_ms: int) -> Reason | None:
        book = self.book
        source = book.family(claims.family) if claims.family else book.api_key(claims.key or "")
        return login.judge_access(
            claims, nkey, book.identity(claims.name), source, now_ms, is_denied=book.is_denied(claims.jti)
        )

    def _bootstrap(self, found: Opaque, nkey: str, now_ms: int) -> Login | Refusal:
        """Return the right to ask for tokens, for a credential that would get one now."""
        if found.sort is Sort.JOIN:
            invite = self.book.invite(found.id)
            joining = Joining(invite.node if invite else "?", "?", nkey)
            identity = self.book.identity(joining.node)
            # whether that instance may join is judged when it says which one it is
            reason = login.judge_invite(_unspent(invite), found.mac(self._pepper), joining, identity, now_ms).reason
            name, kind, instance = joining.node, Kind.NODE, None
        elif found.sort is Sort.API_KEY:
            key = self.book.api_key(found.id)
            record = self.book.identity(key.identity) if key else None
            reason = login.judge_api_key(key, found.mac(self._pepper), nkey, record, now_ms)
            name, kind, instance = (record.name, record.kind, None) if record else ("?", Kind.PUBLISHER, None)
        else:
            bought = self._refresh(found, nkey, now_ms)
            if isinstance(bought, Refusal):
                return bought
            reason, name, kind, instance = None, bought.claims.name, bought.claims.kind, bought.claims.instance
        if reason is not None:
            return Refusal(reason, name, str(found))
        return login.bootstrap(kind, name, instance, now_ms, source=found.id, prefix=self.prefix)

    def keys_of(self, credential: str, now_ms: int) -> tuple[str, ...]:
        """Return the keys of the records that a credential hangs on, as far as it says; it need not be a good one."""
        found = opaque.parse(credential)
        if found is not None:
            return (f"{AREAS[found.sort]}.{found.id}",)
        claims = tokens.verify_access(credential, self.keys, self.prefix, now_ms)
        if isinstance(claims, Reason):
            return (RING,) if claims is Reason.UNKNOWN_KEY_ID else ()
        source = f"family.{claims.family}" if claims.family else f"key.{claims.key}"
        return (f"id.{claims.name}", source)

    # -- tokens

    def exchange(self, credential: str, nkey: str, instance: str | None, caller: str, now_ms: int) -> Bought | Refusal:
        """Return what an API key, a join token or a refresh token buys for the owner of a key, who has proved it.

        Args:
            credential: the opaque credential.
            nkey: the public key.
            instance: with a join token: which instance it is to be.
            caller: the name that the request came under.
            now_ms: wall clock.
        """
        found = opaque.parse(credential)
        if found is None:
            return Refusal(Reason.MALFORMED, caller)
        if found.sort is Sort.JOIN:
            return self._join(found, nkey, instance, caller, now_ms)
        bought = (
            self._with_key(found, nkey, now_ms) if found.sort is Sort.API_KEY else self._refresh(found, nkey, now_ms)
        )
        if isinstance(bought, Bought) and bought.claims.name != caller:
            return Refusal(Reason.WRONG_NAME, caller, str(found))
        return bought

    def enrol(self, name: str, kind: Kind, instance: str | None, nkey: str, now_ms: int) -> Bought | Refusal:
        """Return what a process gets that an operator vouches for: an identity where there is none, and a family."""
        if is_master(name):
            return Refusal(Reason.WRONG_NAME, name)
        identity = self.book.identity(name)
        writes: list[Write] = []
        if identity is None:
            identity = IdentityRecord(name=name, kind=kind, created_ms=now_ms)
            writes.append(Write(identity, 0))
        elif identity.kind is not kind:
            return Refusal(Reason.WRONG_KIND, name)
        elif identity.status is not Standing.ACTIVE:
            return Refusal(Reason.SUSPENDED, name)
        if kind is Kind.NODE and self.book.others(name, instance, now_ms) >= identity.instances_max:
            # a process that was killed has not given its place back, and the operator's word is enough for another
            idlest = self.book.idlest(name, instance, now_ms)
            if idlest is not None:
                writes.append(Write(families.revoke(idlest, "superseded"), self.book.revision(idlest.key)))
        idle_ms = min(self.lives.family.idle_ms, ENROLLED_LIVES * self.lives.access_ms)
        return self._begin(identity, instance, nkey, now_ms, writes, idle_ms=idle_ms)

    def speak_for(self, delegate: str, principal: str, now_ms: int) -> DelegatedClaims | Refusal:
        """Return what an on-behalf-of token is to say."""
        asking, found = self.book.identity(delegate), self.book.identity(principal)
        claims = DelegatedClaims(
            principal=principal,
            kind=found.kind if found else Kind.PUBLISHER,
            groups=found.groups if found else (),
            delegate=delegate,
            jti=tokens.new_jti(),
            issued_ms=now_ms,
            expires_ms=_whole_seconds(now_ms + self.lives.on_behalf_ms),
        )
        reason = login.judge_on_behalf(claims, delegate, asking, found, now_ms)
        if reason is None and claims.kind in (Kind.OPERATOR, Kind.MASTER):
            reason = Reason.WRONG_KIND  # a face for the many must not lend anybody the rights of operators
        return claims if reason is None else Refusal(reason, delegate)

    def verify_behalf(self, token: str, caller: str, now_ms: int) -> DelegatedClaims | Refusal:
        """Return whom a caller speaks for."""
        claims = tokens.verify_on_behalf(token, self.keys, self.prefix, now_ms)
        if isinstance(claims, Reason):
            return Refusal(claims, caller)
        book = self.book
        reason = login.judge_on_behalf(
            claims,
            caller,
            book.identity(caller),
            book.identity(claims.principal),
            now_ms,
            is_denied=book.is_denied(claims.jti),
        )
        return claims if reason is None else Refusal(reason, caller, claims.jti)

    def grant(self, bought: Bought, now_ms: int) -> TokenGrant:
        """Return the answer that hands the tokens out; only after the writes."""
        claims = bought.claims
        return TokenGrant(
            access=tokens.mint_access(claims, self.ring.active, self.prefix),
            expires_in_ms=claims.expires_ms - now_ms,
            refresh=bought.refresh.reveal() if bought.refresh else None,
            name=claims.name,
            kind=claims.kind,
            instance=claims.instance,
            groups=claims.groups,
            issuer=self.issuer.public,
            keys=self.document(now_ms),
        )

    def sign_behalf(self, claims: DelegatedClaims) -> str:
        """Return the on-behalf-of token."""
        return tokens.mint_on_behalf(claims, self.ring.active, self.prefix)

    def document(self, now_ms: int) -> str:
        """Return the key set, signed by the issuer."""
        return sign_document(self.ring, self.issuer, self.prefix, now_ms)

    def _with_key(self, found: Opaque, nkey: str, now_ms: int) -> Bought | Refusal:
        key = self.book.api_key(found.id)
        identity = self.book.identity(key.identity) if key else None
        reason = login.judge_api_key(key, found.mac(self._pepper), nkey, identity, now_ms)
        if reason is not None or identity is None or key is None:
            return Refusal(reason or Reason.UNKNOWN_IDENTITY, identity.name if identity else "?", str(found))
        claims = self._claims(identity, None, nkey, now_ms, key=key.id, until_ms=key.expires_ms)
        if claims.expires_ms <= now_ms:
            return Refusal(Reason.EXPIRED, identity.name, str(found))
        return Bought(claims, sort=found.sort)

    def _refresh(self, found: Opaque, nkey: str, now_ms: int) -> Bought | Refusal:
        family = self.book.family(found.id)
        if family is None:
            return Refusal(Reason.UNKNOWN_CREDENTIAL, credential=str(found))
        identity = self.book.identity(family.identity)
        if (reason := login.judge_family(family, identity)) is not None:
            return Refusal(reason, family.identity, family.id)
        successor = found.successor(self._pepper)
        presented = families.Presented(found.digest(), successor.digest())
        verdict = families.judge(family, presented, nkey, now_ms, self.lives.family)
        revision = self.book.revision(family.key)
        if isinstance(verdict, families.Refuse):
            writes = (Write(verdict.family, revision),) if verdict.family is not None else ()
            return Refusal(verdict.reason, family.identity, family.id, writes)
        assert identity is not None, "judge_family has refused a family without one"
        claims = self._claims(identity, family.instance, nkey, now_ms, family=family.id)
        writes = () if verdict.is_again else (Write(verdict.family, revision),)
        return Bought(claims, writes, successor, found.sort, verdict.is_again)

    def _join(self, found: Opaque, nkey: str, instance: str | None, caller: str, now_ms: int) -> Bought | Refusal:
        if instance is None:
            return Refusal(Reason.WRONG_INSTANCE, caller, str(found))
        book = self.book
        holder = book.holder(caller, instance)
        joining = Joining(caller, instance, nkey, holder, book.others(caller, instance, now_ms))
        invite, identity = book.invite(found.id), book.identity(caller)
        redeemed = login.judge_invite(invite, found.mac(self._pepper), joining, identity, now_ms)
        if redeemed.reason is not None or redeemed.invite is None:
            return Refusal(redeemed.reason or Reason.UNKNOWN_CREDENTIAL, caller, str(found))
        writes: list[Write] = []
        if redeemed.invite != invite:
            writes.append(Write(redeemed.invite, book.revision(redeemed.invite.key)))
        if identity is None:
            identity = IdentityRecord(name=caller, kind=Kind.NODE, created_ms=now_ms)
            writes.append(Write(identity, 0))
        return self._begin(identity, instance, nkey, now_ms, writes)

    def _begin(
        self,
        identity: IdentityRecord,
        instance: str | None,
        nkey: str,
        now_ms: int,
        writes: list[Write],
        *,
        idle_ms: int | None = None,
    ) -> Bought:
        """Begin a family; one that the place had before is over, so that no two lines are one instance."""
        before = self.book.holder(identity.name, instance)
        if before is not None and families.is_alive(before, now_ms) and (identity.kind is Kind.NODE):
            writes.append(Write(families.revoke(before, "superseded"), self.book.revision(before.key)))
        refresh = opaque.make(Sort.REFRESH)
        family = families.begin(
            refresh.id,
            refresh.digest(),
            identity=identity.name,
            instance=instance,
            nkey=nkey,
            now_ms=now_ms,
            life=self.lives.family,
            idle_ms=idle_ms,
        )
        claims = self._claims(identity, instance, nkey, now_ms, family=family.id)
        return Bought(claims, (*writes, Write(family, 0)), refresh, Sort.JOIN)

    def _claims(
        self,
        identity: IdentityRecord,
        instance: str | None,
        nkey: str,
        now_ms: int,
        *,
        family: str | None = None,
        key: str | None = None,
        until_ms: int | None = None,
    ) -> AccessClaims:
        expires_ms = now_ms + self.lives.access_ms
        return AccessClaims(
            name=identity.name,
            kind=identity.kind,
            groups=identity.groups,
            nkey=nkey,
            jti=tokens.new_jti(),
            issued_ms=now_ms,
            expires_ms=_whole_seconds(expires_ms if until_ms is None else min(expires_ms, until_ms)),
            instance=instance,
            family=family,
            key=key,
        )

    # -- new credentials, by operators

    def new_key(
        self, identity: str, *, label: str, keep_ms: int | None, nkey: str | None, now_ms: int
    ) -> tuple[Opaque, ApiKeyRecord]:
        """Return a new API key and its record."""
        made = opaque.make(Sort.API_KEY)
        record = ApiKeyRecord(
            id=made.id,
            identity=identity,
            mac=made.mac(self._pepper),
            label=label,
            nkey=nkey,
            created_ms=now_ms,
            expires_ms=None if keep_ms is None else now_ms + keep_ms,
        )
        return made, record

    def new_invite(self, node: str, *, instances: int, keep_ms: int, now_ms: int) -> tuple[Opaque, InviteRecord]:
        """Return a new join token and its record."""
        made = opaque.make(Sort.JOIN)
        mac = made.mac(self._pepper)
        record = InviteRecord(
            id=made.id, node=node, mac=mac, instances_left=instances, created_ms=now_ms, expires_ms=now_ms + keep_ms
        )
        return made, record


def _whole_seconds(ms: int) -> int:
    """Return the end of a token as the token says it, in seconds: who is told more renews when it has expired."""
    return ms // 1_000 * 1_000


def _unspent(invite: InviteRecord | None) -> InviteRecord | None:
    """Return an invite as if an instance were left: one that lost its answer may come again with the one it has."""
    if invite is None or invite.instances_left:
        return invite
    return invite.model_copy(update={"instances_left": 1})
