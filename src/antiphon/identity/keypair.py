"""Nkeys: Ed25519 keys whose names say what they are for, as NATS writes them (ADR-14, nats-io/nkeys).

A public key is `base32(prefix byte, 32 bytes, CRC-16/XMODEM little endian)` without padding, so its first letter is
its role: `A...` an account, `U...` a user, `N...` a server, `X...` a curve key (`xkey.py`). A seed has two prefix bytes
(`S` and the role) before its 32 secret bytes. Reading is strict: length, alphabet, role, checksum and spare bits are
all checked, because two spellings of one key would be two names of one identity. Signatures are RFC 8032's; libsodium
makes them, which nats-py has loaded for the server's nonce anyway: `cryptography` would be 7 MiB more in each node.
"""

from __future__ import annotations

import base64
import binascii
import os
from enum import IntEnum
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from antiphon.errors import Malformed

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
PUBLIC_CHARS: Final = 56
SEED_CHARS: Final = 58
_SEED: Final = 18 << 3


class Role(IntEnum):
    """What a key is for: the prefix byte whose first five bits are the first letter of its name."""

    ACCOUNT = 0
    SERVER = 13 << 3
    USER = 20 << 3
    CURVE = 23 << 3

    @property
    def letter(self) -> str:
        """The first letter of a public key of this role."""
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[self >> 3]


class KeyPair:
    """A key that signs. Its text form is the public key alone; only `seed` gives the secret away."""

    __slots__ = ("_private", "_raw", "public", "role")

    def __init__(self, role: Role, raw: bytes) -> None:
        assert role is not Role.CURVE, "curve keys do not sign: see xkey.py"
        assert len(raw) == KEY_BYTES
        self.role = role
        self._raw = raw
        self._private = SigningKey(raw)
        self.public = encode_public(role, bytes(self._private.verify_key))

    @classmethod
    def make(cls, role: Role) -> KeyPair:
        """Return a new key from the operating system's randomness."""
        return cls(role, os.urandom(KEY_BYTES))

    @classmethod
    def load(cls, seed: str, role: Role) -> KeyPair:
        """Return the key of a seed (`SU...`, `SA...`); raise `Malformed` for one that is damaged or of another role."""
        return cls(role, decode_seed(seed, role))

    def seed(self) -> str:
        """Return the secret: whoever has this text is this key."""
        return encode_seed(self.role, self._raw)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature."""
        return self._private.sign(message).signature

    def __repr__(self) -> str:
        return f"KeyPair({self.public})"


def verify(public: str, role: Role, message: bytes, signature: bytes) -> bool:
    """Whether the owner of a public key of this role has signed this; a name that is no such key raises `Malformed`."""
    key = VerifyKey(decode_public(public, role))
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        key.verify(message, signature)
    except BadSignatureError:
        return False
    return True


def encode_public(role: Role, raw: bytes) -> str:
    """Return the name of a public key, 56 characters."""
    return _encoded(bytes([role]) + raw)


def decode_public(text: str, role: Role) -> bytes:
    """Return the 32 bytes of a public key; raise `Malformed` unless it is exactly one of this role."""
    payload = _decoded(text, PUBLIC_CHARS)
    if payload[0] != role:
        raise Malformed(f"this is not a public {role.name.lower()} key, which would begin with {role.letter}")
    return payload[1:]


def encode_seed(role: Role, raw: bytes) -> str:
    """Return the text of a secret key, 58 characters."""
    return _encoded(bytes([_SEED | role >> 5, (role & 31) << 3]) + raw)


def decode_seed(text: str, role: Role) -> bytes:
    """Return the 32 secret bytes of a seed; raise `Malformed` unless it is exactly one of this role."""
    payload = _decoded(text, SEED_CHARS)
    if payload[:2] != bytes([_SEED | role >> 5, (role & 31) << 3]):
        raise Malformed(f"this is not the seed of a {role.name.lower()} key, which would begin with S{role.letter}")
    return payload[2:]


def _encoded(payload: bytes) -> str:
    checked = payload + binascii.crc_hqx(payload, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode("ascii").rstrip("=")


def _decoded(text: str, chars: int) -> bytes:
    # Nothing of the text goes into the errors: it may be a seed, with one letter wrong.
    if len(text) != chars:
        raise Malformed(f"an nkey of this kind has {chars} characters, this one {len(text)}")
    try:
        checked = base64.b32decode(text + "=" * (-chars % 8))
    except ValueError as error:  # also what is not ASCII
        raise Malformed("an nkey is written in A-Z and 2-7") from error
    payload = checked[:-2]
    if _encoded(payload) != text:  # checksum and spare bits at once
        raise Malformed("an nkey with a wrong checksum: it was damaged or mistyped")
    return payload
