"""Refresh token rotation: one line of descent for each instance, and what a token from the past means.

Every use of a refresh token makes its successor, and only the newest is good (RFC 9700, section 4.14.2). If a token
that has already been used comes again, two parties hold the line and nobody can tell which is the thief, so the family
is revoked. There is one honest way to use a token twice: the answer was lost. For a short grace the token just before
the newest one is therefore answered again, with the *same* successor, which is a function of the token and the masters'
secret: asking again gives nobody a second line. Nor does it while nothing was lost: once an access token of the newest
grant was used, somebody has that grant, and who asks for it again is somebody else.

A family is bound to a key. Whoever holds a token without that key is refused and changes nothing, otherwise a token
that leaked from an old backup would be enough to lock its owner out.
"""

from __future__ import annotations

from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from antiphon.decide.identities import FamilyRecord, Reason

IDLE_MS: Final = 30 * 86_400_000
"""A family that is not used for so long is over."""
GRACE_MS: Final = 10_000
"""How long after a rotation the answer may be asked for again: a few attempts of a client whose connection broke."""


@dataclass(frozen=True, slots=True)
class Life:
    """How long things are good, in milliseconds."""

    idle_ms: int = IDLE_MS
    grace_ms: int = GRACE_MS


@dataclass(frozen=True, slots=True)
class Presented:
    """A refresh token as it is judged: its SHA-256, and that of the successor which it would get."""

    digest: str
    successor: str


@dataclass(frozen=True, slots=True)
class Issue:
    """The successor may be handed out, once the record is written; `is_again` when it was handed out before."""

    family: FamilyRecord
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing is handed out. Where a family is given, it has to be written: it is revoked now."""

    reason: Reason
    family: FamilyRecord | None = None


def begin(
    serial: str,
    digest: str,
    *,
    identity: str,
    instance: str | None,
    nkey: str,
    now_ms: int,
    life: Life | None = None,
    idle_ms: int | None = None,
) -> FamilyRecord:
    """Return a new family whose first refresh token has this SHA-256; `idle_ms` where it is to live shorter."""
    return FamilyRecord(
        id=serial,
        identity=identity,
        instance=instance,
        nkey=nkey,
        current=digest,
        created_ms=now_ms,
        rotated_ms=now_ms,
        expires_ms=now_ms + (idle_ms or (life or Life()).idle_ms),
        idle_ms=idle_ms,
    )


def judge(
    family: FamilyRecord | None, presented: Presented, nkey: str, now_ms: int, life: Life | None = None
) -> Issue | Refuse:
    """Return what a refresh token is worth to the owner of a key, who has proved that it is his.

    Args:
        family: the record, None where there is none.
        presented: the token.
        nkey: the public key whose owner presents it.
        now_ms: wall clock.
        life: how long things are good.
    """
    life = life or Life()
    if family is None:
        return Refuse(Reason.UNKNOWN_CREDENTIAL)
    if (closed := _closed(family, nkey, now_ms)) is not None:
        return Refuse(closed)
    if compare_digest(family.current, presented.digest):
        return Issue(_rotated(family, presented.successor, now_ms, life))
    if _is_asked_again(family, presented) and _is_lost(family) and now_ms - family.rotated_ms <= life.grace_ms:
        return Issue(family, is_again=True)
    return Refuse(Reason.REUSED, revoke(family, Reason.REUSED))


def revoke(family: FamilyRecord, why: str) -> FamilyRecord:
    """Return the family revoked; the first reason stays."""
    return family if family.revoked is not None else family.model_copy(update={"revoked": why})


def used(family: FamilyRecord, issued_ms: int) -> FamilyRecord | None:
    """Return the record once a token of this age is used; None where that changes nothing."""
    if family.is_used or family.revoked is not None or issued_ms < family.rotated_ms:
        return None
    return family.model_copy(update={"is_used": True})


def is_alive(family: FamilyRecord, now_ms: int) -> bool:
    """Whether anything may still come of this family."""
    return family.revoked is None and now_ms < family.expires_ms


def _closed(family: FamilyRecord, nkey: str, now_ms: int) -> Reason | None:
    """Return why no token of this family is good for the owner of this key, or None."""
    if not compare_digest(family.nkey, nkey):
        return Reason.WRONG_KEY
    if family.revoked is not None:
        return Reason.REVOKED_FAMILY
    return Reason.EXPIRED if now_ms >= family.expires_ms else None


def _rotated(family: FamilyRecord, successor: str, now_ms: int, life: Life) -> FamilyRecord:
    changed = {
        "current": successor,
        "previous": family.current,
        "rotated_ms": now_ms,
        "is_used": False,
        "expires_ms": now_ms + (family.idle_ms or life.idle_ms),
    }
    return family.model_copy(update=changed)


def _is_lost(family: FamilyRecord) -> bool:
    """Whether the newest grant may never have arrived."""
    return not family.is_used


def _is_asked_again(family: FamilyRecord, presented: Presented) -> bool:
    """Whether it is the token before the newest one, and would get exactly the newest one."""
    if family.previous is None or not compare_digest(family.previous, presented.digest):
        return False
    return compare_digest(family.current, presented.successor)
