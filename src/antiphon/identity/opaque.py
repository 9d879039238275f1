"""Opaque credentials: API keys, join tokens and refresh tokens, which mean nothing but to the masters.

`ak_<id>_<secret><crc32>`: the sort, a public id that finds the record, 256 secret bits, and a checksum, so that a
mistyped or invented one is refused without a look-up, and a scanner of sources can tell one from any other word. A
refresh token is kept as its SHA-256; the others as an HMAC under the masters' pepper, so that a leaked bucket lets
nobody in and cannot be added to by somebody who has no pepper. The successor of a refresh token is an HMAC of it, so
asking twice gives the same one (RFC 9700 asks for rotation; the lost answer is ours to survive).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import zlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

ID_BYTES: Final = 10
SECRET_BYTES: Final = 32
_FORM: Final = re.compile(r"((ak|jt|rt)_([a-z2-7]{16})_([a-z2-7]{52}))([0-9a-f]{8})")


class Sort(StrEnum):
    """What a credential is for."""

    API_KEY = "ak"
    JOIN = "jt"
    REFRESH = "rt"


@dataclass(frozen=True, slots=True)
class Opaque:
    """One credential; its text form does not show the secret, `reveal` does."""

    sort: Sort
    id: str
    secret: str = field(repr=False)

    def reveal(self) -> str:
        """Return the credential as its owner keeps it, 80 characters."""
        body = f"{self.sort}_{self.id}_{self.secret}"
        return f"{body}{_checksum(body)}"

    def digest(self) -> str:
        """Return its SHA-256 in hexadecimal: how a refresh token is kept."""
        return hashlib.sha256(self.reveal().encode("ascii")).hexdigest()

    def mac(self, pepper: bytes) -> str:
        """Return its HMAC-SHA-256 in hexadecimal: how an API key or a join token is kept."""
        return _hmac(pepper, "kept", self).hex()

    def successor(self, pepper: bytes) -> Opaque:
        """Return the refresh token that follows this one: the same family, and the same one every time."""
        assert self.sort is Sort.REFRESH
        return Opaque(self.sort, self.id, _letters(_hmac(pepper, "successor", self)))

    def __str__(self) -> str:
        return f"{self.sort}_{self.id}_..."


def make(sort: Sort) -> Opaque:
    """Return a new credential with a new id."""
    return Opaque(sort, _letters(os.urandom(ID_BYTES)), _letters(os.urandom(SECRET_BYTES)))


def parse(text: str) -> Opaque | None:
    """Return the credential that a text is, or None for one of another form or with a wrong checksum."""
    match = _FORM.fullmatch(text)
    if match is None or _checksum(match[1]) != match[5]:
        return None
    return Opaque(Sort(match[2]), match[3], match[4])


def _letters(raw: bytes) -> str:
    return base64.b32encode(raw).decode("ascii").rstrip("=").lower()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode('ascii')):08x}"


def _hmac(pepper: bytes, purpose: str, one: Opaque) -> bytes:
    # The purpose keeps the uses apart: what is kept of one must never be the secret of another.
    return hmac.digest(pepper, f"antiphon {purpose}\0{one.reveal()}".encode("ascii"), "sha256")
