"""The book of identities: every record of the identity bucket as one master has heard it, and who is where in it.

The bucket's watch fills it; connections and tokens are judged from it without a round trip. Its owner changes it in
place, a record at a time; what it cannot read it leaves as it was and says so, because a record that nobody can read
must not let anybody in who was revoked by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

from pydantic import ValidationError

from antiphon.decide import families
from antiphon.decide.identities import ApiKeyRecord, FamilyRecord, IdentityRecord, InviteRecord, Record

KINDS: Final[dict[str, type[Record]]] = {
    one.area: one for one in (IdentityRecord, FamilyRecord, ApiKeyRecord, InviteRecord)
}
DENIED: Final = "denied"
"""Area of revoked access tokens: `denied.<jti>`; the value is the wall clock at which the token expires."""
RING: Final = "ring"
POLICY: Final = "policy"

R = TypeVar("R", bound=Record)


class Book:
    """Records by their key in the bucket, with the revision that each was heard at."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.denied: dict[str, int] = {}
        """Revoked access tokens, and when each would have expired."""
        self.ring: bytes | None = None
        """The signing keys, sealed."""
        self.revisions: dict[str, int] = {}
        self._places: dict[tuple[str, str | None], set[str]] = {}
        """(identity, instance) -> keys of its families."""
        self._own: dict[str, set[str]] = {}
        """identity -> keys of its families, API keys and invites."""

    def take(self, key: str, value: bytes | None, revision: int) -> bool:
        """Take what the bucket holds under a key now; return whether it was understood."""
        if revision < self.revisions.get(key, 0) and value is not None:
            return True  # late word
        area, _, name = key.partition(".")
        if key == RING:
            self.ring = value
        elif area == DENIED:
            self._deny(name, value)
        elif area in KINDS:
            try:
                record = None if value is None else KINDS[area].model_validate_json(value)
            except ValidationError:
                return False
            self._put(key, record)
        else:
            return key == POLICY
        self.revisions[key] = revision
        return True

    def revision(self, key: str) -> int:
        """Return the revision that a record was heard at, 0 for one that is not there."""
        return self.revisions.get(key, 0)

    def identity(self, name: str) -> IdentityRecord | None:
        """Return an identity's record."""
        return self._get(IdentityRecord, name)

    def family(self, serial: str) -> FamilyRecord | None:
        """Return a family's record."""
        return self._get(FamilyRecord, serial)

    def api_key(self, serial: str) -> ApiKeyRecord | None:
        """Return an API key's record."""
        return self._get(ApiKeyRecord, serial)

    def invite(self, serial: str) -> InviteRecord | None:
        """Return an invite's record."""
        return self._get(InviteRecord, serial)

    def identities(self) -> Iterator[IdentityRecord]:
        """Yield all identities by name."""
        return iter(sorted((r for r in self.records.values() if isinstance(r, IdentityRecord)), key=lambda r: r.name))

    def owned(self, kind: type[R], name: str) -> list[R]:
        """Return the families, API keys or invites of an identity, oldest first."""
        found = [self.records[key] for key in sorted(self._own.get(name, ()))]
        return sorted((r for r in found if isinstance(r, kind)), key=lambda r: getattr(r, "created_ms", 0))

    def holder(self, name: str, instance: str | None) -> FamilyRecord | None:
        """Return the newest family of one instance, if there ever was one."""
        found = [self.records[key] for key in self._places.get((name, instance), ())]
        return max((r for r in found if isinstance(r, FamilyRecord)), key=lambda r: r.created_ms, default=None)

    def others(self, name: str, instance: str | None, now_ms: int) -> int:
        """Return how many other instances of an identity have a family that lives."""
        alive = (r for r in self.owned(FamilyRecord, name) if families.is_alive(r, now_ms))
        return len({record.instance for record in alive} - {instance})

    def idlest(self, name: str, instance: str | None, now_ms: int) -> FamilyRecord | None:
        """Return that one of the other instances' living families which was used longest ago."""
        alive = [
            record
            for record in self.owned(FamilyRecord, name)
            if families.is_alive(record, now_ms) and record.instance != instance
        ]
        return min(alive, key=lambda record: record.rotated_ms, default=None)

    def is_denied(self, jti: str) -> bool:
        """Whether this one access token was revoked."""
        return jti in self.denied

    def overdue(self, now_ms: int, keep_ms: int) -> list[str]:
        """Return keys of records that say nothing any more: of tokens and families that expired so long ago."""
        before = now_ms - keep_ms
        old = [
            key for key, record in self.records.items() if _ended_ms(record) < (now_ms if _is_plain(record) else before)
        ]
        return old + [f"{DENIED}.{jti}" for jti, expires_ms in self.denied.items() if expires_ms < before]

    def _get(self, kind: type[R], name: str) -> R | None:
        record = self.records.get(f"{kind.area}.{name}")
        return record if isinstance(record, kind) else None

    def _deny(self, jti: str, value: bytes | None) -> None:
        if value is None:
            self.denied.pop(jti, None)
        else:
            self.denied[jti] = int(value) if value.isdigit() else 2**53  # unreadable: revoked for good

    def _put(self, key: str, record: Record | None) -> None:
        before = self.records.pop(key, None)
        if before is not None:
            self._own.get(owner(before), set()).discard(key)
            if isinstance(before, FamilyRecord):
                self._places.get((before.identity, before.instance), set()).discard(key)
        if record is None:
            return
        self.records[key] = record
        self._own.setdefault(owner(record), set()).add(key)
        if isinstance(record, FamilyRecord):
            self._places.setdefault((record.identity, record.instance), set()).add(key)


def owner(record: Record) -> str:
    """Return the name of the identity that a record is about."""
    if isinstance(record, IdentityRecord):
        return record.name
    return record.node if isinstance(record, InviteRecord) else getattr(record, "identity", "")


def _is_plain(record: Record) -> bool:
    """Whether nobody will ask for a record when it is over: that of a process which an operator has vouched for."""
    return isinstance(record, FamilyRecord) and record.idle_ms is not None and record.revoked is None


def _ended_ms(record: Record) -> int:
    """Return when a record stopped to mean anything, 2^53 for one that has not."""
    if isinstance(record, (FamilyRecord, InviteRecord)):
        return record.expires_ms
    if isinstance(record, ApiKeyRecord) and record.expires_ms is not None:
        return record.expires_ms
    return 2**53
