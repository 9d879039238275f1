"""Authenticating what masters keep in the bucket: each record begins with an HMAC-SHA-256 of its place and itself.

Where the server asks nobody, whoever can connect can write the bucket, too. Without the pepper he cannot make a record
that masters believe: no family, no key, no identity of his own. What he can do is put back what stood there before
under the same key, or delete it (docs/security.md).
"""

from __future__ import annotations

import hmac
from typing import Final

MARK: Final = b"am1."
MAC_CHARS: Final = 64


def signed(record: bytes, pepper: bytes, place: str) -> bytes:
    """Return a record as it stands in the bucket at this place."""
    return MARK + _mac(record, pepper, place) + b"." + record


def opened(value: bytes, pepper: bytes, place: str) -> bytes | None:
    """Return the record, None for what nobody with this pepper has written at this place."""
    head = len(MARK) + MAC_CHARS
    if not value.startswith(MARK) or value[head : head + 1] != b".":
        return None
    record = value[head + 1 :]
    return record if hmac.compare_digest(value[len(MARK) : head], _mac(record, pepper, place)) else None


def _mac(record: bytes, pepper: bytes, place: str) -> bytes:
    # the purpose keeps the pepper's uses apart, and the place keeps a record where it was written
    said = b"antiphon record\0" + place.encode() + b"\0" + record
    return hmac.digest(pepper, said, "sha256").hex().encode("ascii")
