"""The keys that sign tokens: next, active, retiring; which of them signs, and which are believed.

A key is in the ring before it signs, so that everybody who verifies has it when the first of its tokens arrives; and it
stays for the life of the longest token after its last signature, so that no token dies of a rotation. A master whose
view is a moment old may sign with the key that has just retired, which the margin covers. A key that has leaked is
expelled: it is believed no more from that moment, and its tokens die with it.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from antiphon.errors import Overloaded
from antiphon.messages.base import Count

LONGEST_MS: Final = 3_600_000
"""The longest life of a token that the ring signs: an access token's."""
MARGIN_MS: Final = 60_000
"""For a master that has not heard of a rotation yet, and for clocks that differ."""
RETIRING_MAX: Final = 8
"""Keys that wait for their last tokens to expire; more rotations than this within an hour are refused."""

KeyId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
"""The thumbprint of the public key (RFC 7638 over RFC 8037's members), so a key cannot take another's id."""
KeyBytes = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]
"""32 bytes in base64url."""


class SigningKey(BaseModel):
    """One Ed25519 key; the secret stays out of its text form."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kid: KeyId
    public: KeyBytes
    secret: KeyBytes = Field(repr=False)
    created_ms: Count
    drop_ms: Count | None = None
    """When it is believed no more; None for one that is not retiring."""


class Ring(BaseModel):
    """The signing keys, one key-value entry, sealed; a rotation writes it anew by compare-and-set."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    next: SigningKey
    active: SigningKey
    retiring: Annotated[tuple[SigningKey, ...], Field(max_length=RETIRING_MAX)] = ()


def verifying(ring: Ring, now_ms: int) -> tuple[SigningKey, ...]:
    """Return the keys whose signatures are believed now; the active one signs."""
    return (ring.active, ring.next, *_waiting(ring, now_ms))


def rotate(ring: Ring, fresh: SigningKey, now_ms: int, longest_ms: int = LONGEST_MS) -> Ring:
    """Return the ring one step on: next signs, active retires, fresh is next, and what nobody needs is dropped.

    Raises `Overloaded` with the time to wait when too many keys are still retiring.
    """
    waiting = _waiting(ring, now_ms)
    if len(waiting) >= RETIRING_MAX:
        first_ms = min(key.drop_ms or 0 for key in waiting)
        text = f"{RETIRING_MAX} signing keys are retiring; a key that has leaked can be expelled at once instead"
        raise Overloaded(text, retry_after_ms=first_ms - now_ms)
    retired = ring.active.model_copy(update={"drop_ms": now_ms + longest_ms + MARGIN_MS})
    return Ring(next=fresh, active=ring.next, retiring=(*waiting, retired))


def expel(ring: Ring, kid: str, fresh: SigningKey, now_ms: int) -> Ring:
    """Return the ring without a key that has leaked, whatever its place; `fresh` takes the place of one that is used.

    The tokens that it signed are refused from now on, so their owners renew by their refresh tokens.
    """
    waiting = tuple(key for key in _waiting(ring, now_ms) if key.kid != kid)
    if ring.active.kid == kid:
        return Ring(next=fresh, active=ring.next, retiring=waiting)
    if ring.next.kid == kid:
        return Ring(next=fresh, active=ring.active, retiring=waiting)
    return Ring(next=ring.next, active=ring.active, retiring=waiting)


def _waiting(ring: Ring, now_ms: int) -> tuple[SigningKey, ...]:
    return tuple(key for key in ring.retiring if key.drop_ms is not None and key.drop_ms > now_ms)
