"""Whether somebody is let in: the verdict on a connection or a token exchange, from the records alone.

The signature, form and times of a token are checked before this (`identity/tokens.py`), and so is the proof that
whoever presents it owns the key. Here it is asked whether what was said when the credential was made is still so: the
identity is there, active and of that kind, and nothing that the credential hangs on has been revoked since.

A verdict is None for yes or the one `Reason` for no. Reasons are for audit; whoever is refused is told what to do
(`advice`), and the same whether an id is unknown or its secret wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from antiphon.decide import families
from antiphon.decide.grants import Grants, grants
from antiphon.decide.identities import ApiKeyRecord, FamilyRecord, IdentityRecord, InviteRecord, Reason, Standing
from antiphon.messages.base import Kind
from antiphon.messages.tokens import TokenAsk
from antiphon.subjects import INBOX, PREFIX, token

BOOTSTRAP_MS: Final = 60_000
"""How long a connection lasts that may only ask for tokens."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says; exactly one of `family` and `key` names what it was bought with."""

    name: str
    kind: Kind
    groups: tuple[str, ...]
    nkey: str
    """The key whose owner may use it (`cnf`, RFC 7800)."""
    jti: str
    issued_ms: int
    expires_ms: int
    instance: str | None = None
    family: str | None = None
    key: str | None = None
    kid: str = field(default="", compare=False)
    """Id of the key that signed it, where it was read; whoever makes one leaves it empty."""


@dataclass(frozen=True, slots=True)
class DelegatedClaims:
    """What an on-behalf-of token says: the delegate asks, and is treated as the principal (RFC 8693, `act`)."""

    principal: str
    kind: Kind
    groups: tuple[str, ...]
    delegate: str
    jti: str
    issued_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Login:
    """Who was let in, as what, with which rights, and until when."""

    kind: Kind
    name: str
    instance: str | None
    grants: Grants
    expires_ms: int
    source: str = ""
    """Id of what it hangs on: a family, an API key or an invite."""
    jti: str = ""
    """Id of the access token, empty for a connection that may only ask for one."""
    kid: str = ""
    """Id of the key that signed the access token."""

    @property
    def label(self) -> str:
        """The connection's user on the server, `node:docs:docs-1:<source>:<jti>:<kid>`, `publisher:web::...`.

        By it a connection is found when an identity, an instance, a credential or a single token is revoked, or a
        signing key expelled.
        """
        return ":".join((self.kind, self.name, self.instance or "", self.source, self.jti, self.kid))


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a connection's label says of its user; only the callout gives labels, so this is believed."""

    kind: Kind
    name: str
    instance: str | None
    source: str
    jti: str
    kid: str

    @classmethod
    def of(cls, label: str) -> Labelled | None:
        """Return what a label says, None for a user that the callout has not let in: a master."""
        parts = label.split(":")
        if len(parts) != 6 or parts[0] not in set(Kind):  # noqa: PLR2004 - as `Login.label` puts them together
            return None
        kind, name, instance, source, jti, kid = parts
        return cls(Kind(kind), name, instance or None, source, jti, kid)


def full(claims: AccessClaims, *, prefix: str = PREFIX) -> Login:
    """Return the login of an access token: all that its identity may do, until it expires."""
    rights = grants(claims.kind, claims.name, claims.instance, prefix=prefix)
    source = claims.family or claims.key or ""
    return Login(claims.kind, claims.name, claims.instance, rights, claims.expires_ms, source, claims.jti, claims.kid)


def bootstrap(
    kind: Kind, name: str, instance: str | None, now_ms: int, *, source: str = "", prefix: str = PREFIX
) -> Login:
    """Return the login of any other credential, whose id is `source`: the right to ask for tokens, for a minute."""
    asks = TokenAsk.route.template.subject(prefix=prefix, caller=name)
    rights = Grants(publish=(asks,), subscribe=(f"{INBOX}.{token(name)}.>",))
    return Login(kind, name, instance, rights, now_ms + BOOTSTRAP_MS, source)


def judge_access(
    claims: AccessClaims,
    nkey: str,
    identity: IdentityRecord | None,
    source: FamilyRecord | ApiKeyRecord | None,
    now_ms: int,
    *,
    is_denied: bool = False,
) -> Reason | None:
    """Return why an access token whose signature is good is refused, or None.

    Args:
        claims: what it says.
        nkey: the public key whose owner presents it.
        identity: the record of `claims.name`.
        source: the record of `claims.family` or `claims.key`, whichever it names.
        now_ms: wall clock.
        is_denied: whether this one token was revoked.
    """
    if not compare_digest(claims.nkey, nkey):
        return Reason.WRONG_KEY
    if now_ms >= claims.expires_ms:
        return Reason.EXPIRED
    if is_denied:
        return Reason.REVOKED_TOKEN
    return _standing(identity, claims.issued_ms, claims.kind) or _source(claims, source, now_ms)


def judge_api_key(
    record: ApiKeyRecord | None, mac: str, nkey: str, identity: IdentityRecord | None, now_ms: int
) -> Reason | None:
    """Return why an API key with this HMAC is refused, or None."""
    if record is None:
        return Reason.UNKNOWN_CREDENTIAL
    if not compare_digest(record.mac, mac):
        return Reason.WRONG_SECRET
    if record.is_revoked:
        return Reason.REVOKED_KEY
    if record.expires_ms is not None and now_ms >= record.expires_ms:
        return Reason.EXPIRED
    if record.nkey is not None and not compare_digest(record.nkey, nkey):
        return Reason.WRONG_KEY
    return _named(identity, record.identity) or _standing(identity, record.created_ms) or _keyless(identity)


def judge_family(family: FamilyRecord, identity: IdentityRecord | None) -> Reason | None:
    """Return why no token of a family may be used whatever `families.judge` says of it, or None.

    Ask this first: the refresh token of somebody who is suspended must not be used up.
    """
    return _named(identity, family.identity) or _standing(identity, family.rotated_ms)


@dataclass(frozen=True, slots=True)
class Redemption:
    """What came of a join token: the reason for no, or the record that has to be written before a family is begun."""

    reason: Reason | None = None
    invite: InviteRecord | None = None


@dataclass(frozen=True, slots=True)
class Joining:
    """Who wants to be which instance of which node, and what is known of that place.

    Attributes:
        node: the name that it gave itself.
        instance: the instance that it wants to be.
        nkey: its public key.
        holder: the newest family of that instance, if there ever was one.
        others: how many other instances of the node have a family that lives.
    """

    node: str
    instance: str
    nkey: str
    holder: FamilyRecord | None = None
    others: int = 0


def judge_invite(
    record: InviteRecord | None, mac: str, joining: Joining, identity: IdentityRecord | None, now_ms: int
) -> Redemption:
    """Return whether a join token with this HMAC makes somebody an instance; `identity` is None for a new node.

    The same instance with the same key may come again with it, because its answer may have been lost, and is not
    counted twice. With another key it is refused while the first one's family lives: a join token displaces nobody.
    """
    reason = _invited(record, mac, joining.node, now_ms) or _may_join(joining, identity, now_ms)
    if reason is not None:
        return Redemption(reason)
    assert record is not None
    if _is_own(joining, now_ms):
        return Redemption(invite=record)
    if record.instances_left < 1:
        return Redemption(Reason.USED_UP)
    return Redemption(invite=record.model_copy(update={"instances_left": record.instances_left - 1}))


def judge_on_behalf(
    claims: DelegatedClaims,
    caller: str,
    delegate: IdentityRecord | None,
    principal: IdentityRecord | None,
    now_ms: int,
    *,
    is_denied: bool = False,
) -> Reason | None:
    """Return why a caller may not speak for the principal of an on-behalf-of token, or None."""
    if claims.delegate != caller:
        return Reason.WRONG_NAME
    if now_ms >= claims.expires_ms:
        return Reason.EXPIRED
    if is_denied:
        return Reason.REVOKED_TOKEN
    if delegate is None or delegate.name != caller or not delegate.is_delegate:
        return Reason.NOT_A_DELEGATE
    return (
        _standing(delegate, claims.issued_ms)
        or _named(principal, claims.principal)
        or _standing(principal, claims.issued_ms, claims.kind)
    )


def advice(reason: Reason) -> str:
    """Return what to tell whoever is refused: what to do, and nothing that a guesser could learn from."""
    return _ADVICE.get(reason, "the credential is not accepted: log in again, or ask an operator for a new one")


_RENEW: Final = "the access token is not accepted: renew it, or log in again with `antiphon login`"
_INVITE: Final = "this join token admits no further instance: ask an operator for `antiphon node invite`"
_OTHER_KEY: Final = "the credential belongs to another key: use the file that it came in, or log in again"
_ADVICE: Final = {
    Reason.MISSING: "a credential is needed: `antiphon login`; on the server's own machine `antiphon up` makes one",
    Reason.EXPIRED: _RENEW,
    Reason.ISSUED_BEFORE: _RENEW,
    Reason.SUSPENDED: "this identity is suspended: an operator can let it in again, `antiphon identity resume`",
    Reason.WRONG_CLOCK: "this machine's clock is more than five minutes from the masters': set it (NTP)",
    Reason.REVOKED_TOKEN: _RENEW,
    Reason.UNKNOWN_KEY_ID: _RENEW,
    Reason.BAD_SIGNATURE: _RENEW,
    Reason.NOT_YET_VALID: _RENEW,
    Reason.NO_PROOF: _OTHER_KEY,
    Reason.WRONG_KEY: _OTHER_KEY,
    Reason.SUSPENDED: "this identity is suspended: an operator can let it in again with `antiphon identity resume`",
    Reason.USED_UP: _INVITE,
    Reason.REVOKED_INVITE: _INVITE,
    Reason.TOO_MANY_INSTANCES: _INVITE,
    Reason.INSTANCE_TAKEN: "another key is this instance: choose another, or ask an operator to revoke that one",
    Reason.WRONG_KIND: "this name is that of another kind of identity: a name is of one kind only, choose another",
    Reason.NOT_A_DELEGATE: "this identity may not speak for others: an operator can make it a delegate",
}


def _named(identity: IdentityRecord | None, name: str) -> Reason | None:
    return Reason.UNKNOWN_IDENTITY if identity is None or identity.name != name else None


def _standing(identity: IdentityRecord | None, issued_ms: int, kind: Kind | None = None) -> Reason | None:
    if identity is None:
        return Reason.UNKNOWN_IDENTITY
    if kind is not None and identity.kind is not kind:
        return Reason.WRONG_KIND
    if identity.status is not Standing.ACTIVE:
        return Reason.SUSPENDED
    return Reason.ISSUED_BEFORE if issued_ms < identity.not_before_ms else None


def _keyless(identity: IdentityRecord | None) -> Reason | None:
    """Return why an identity is to have no API key: a node's instances are counted and told apart by how they join."""
    return Reason.WRONG_KIND if identity is not None and identity.kind is Kind.NODE else None


def _source(claims: AccessClaims, source: FamilyRecord | ApiKeyRecord | None, now_ms: int) -> Reason | None:
    """Return why what a token was bought with does not carry it any more."""
    if source is None or source.id != (claims.family or claims.key) or source.identity != claims.name:
        return Reason.UNKNOWN_CREDENTIAL
    if isinstance(source, ApiKeyRecord):
        is_over = source.expires_ms is not None and now_ms >= source.expires_ms
        return Reason.REVOKED_KEY if source.is_revoked else Reason.EXPIRED if is_over else None
    if source.revoked is not None:
        return Reason.REVOKED_FAMILY
    if source.nkey != claims.nkey:
        return Reason.WRONG_KEY
    return Reason.WRONG_INSTANCE if source.instance != claims.instance else None


def _invited(record: InviteRecord | None, mac: str, node: str, now_ms: int) -> Reason | None:
    if record is None:
        return Reason.UNKNOWN_CREDENTIAL
    if not compare_digest(record.mac, mac):
        return Reason.WRONG_SECRET
    if record.is_revoked:
        return Reason.REVOKED_INVITE
    if now_ms >= record.expires_ms:
        return Reason.EXPIRED
    return Reason.WRONG_NAME if record.node != node else None


def _may_join(joining: Joining, identity: IdentityRecord | None, now_ms: int) -> Reason | None:
    if identity is not None:
        if identity.name != joining.node:
            return Reason.WRONG_NAME
        if (refused := _standing(identity, now_ms, Kind.NODE)) is not None:
            return refused
        if joining.others >= identity.instances_max:
            return Reason.TOO_MANY_INSTANCES
    holder = joining.holder
    if holder is not None and families.is_alive(holder, now_ms) and not _is_own(joining, now_ms):
        return Reason.INSTANCE_TAKEN
    return None


def _is_own(joining: Joining, now_ms: int) -> bool:
    """Whether this very instance, with this very key, has joined before."""
    holder = joining.holder
    return (
        holder is not None
        and families.is_alive(holder, now_ms)
        and (holder.identity, holder.instance) == (joining.node, joining.instance)
        and compare_digest(holder.nkey, joining.nkey)
    )
