"""Sealing what masters keep in the bucket but nobody else may read: AES-256-GCM under a key derived from the pepper.

The derived key is HKDF-SHA-256 of the pepper for one purpose (RFC 5869), and the place of the value is authenticated
with it, so that a sealed ring cannot be moved to another fabric or another key of the bucket. The bucket alone, a
backup of it for instance, is then worth nothing. A nonce of 96 random bits is good for 2^32 seals (NIST SP 800-38D);
a ring is sealed once a rotation.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import ValidationError

from antiphon.decide.ring import Ring
from antiphon.errors import SecretsUnusable

VERSION: Final = b"as1"
NONCE_BYTES: Final = 12
KEY_BYTES: Final = 32


def seal(secret: bytes, pepper: bytes, place: str) -> bytes:
    """Return a secret so that only who has the pepper can read it, and only as the value of this place."""
    nonce = os.urandom(NONCE_BYTES)
    return VERSION + nonce + _cipher(pepper).encrypt(nonce, secret, place.encode())


def unseal(sealed: bytes, pepper: bytes, place: str) -> bytes:
    """Return what was sealed for this place; raise `SecretsUnusable` where this pepper did not seal it there."""
    head = len(VERSION) + NONCE_BYTES
    if not sealed.startswith(VERSION) or len(sealed) < head:
        raise SecretsUnusable(f"{place} does not hold a sealed secret")
    try:
        return _cipher(pepper).decrypt(sealed[len(VERSION) : head], sealed[head:], place.encode())
    except InvalidTag as error:
        text = f"{place} was sealed under another pepper, or changed: all masters of a fabric need the same keys folder"
        raise SecretsUnusable(text) from error


def seal_ring(ring: Ring, pepper: bytes, place: str) -> bytes:
    """Return the signing keys, sealed."""
    return seal(ring.model_dump_json().encode(), pepper, place)


def unseal_ring(sealed: bytes, pepper: bytes, place: str) -> Ring:
    """Return the signing keys; raise `SecretsUnusable` for what is none, or was sealed elsewhere."""
    try:
        return Ring.model_validate_json(unseal(sealed, pepper, place))
    except ValidationError as error:
        raise SecretsUnusable(f"{place} holds no ring of signing keys that this version can read") from error


def _cipher(pepper: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=b"antiphon seal v1").derive(pepper))
