"""Curve nkeys: sealing what the server and the callout tell each other, as nats-io/nkeys does it (`xkv1`).

A sealed message is `"xkv1"`, 24 bytes of nonce, and a NaCl box (X25519, XSalsa20, Poly1305) between the two keys, so it
can be read by its receiver alone and comes from the sender whose public key opens it. ADR-26 calls the key *xkey*.
"""

from __future__ import annotations

import os
from typing import Final

from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from antiphon.errors import Malformed
from antiphon.identity.keypair import KEY_BYTES, Role, decode_public, decode_seed, encode_public, encode_seed

VERSION: Final = b"xkv1"
NONCE_BYTES: Final = 24


class CurvePair:
    """A key that seals and opens. Its text form is the public key alone."""

    __slots__ = ("_private", "public")

    def __init__(self, raw: bytes) -> None:
        self._private = PrivateKey(raw)
        self.public = encode_public(Role.CURVE, bytes(self._private.public_key))

    @classmethod
    def make(cls) -> CurvePair:
        """Return a new key from the operating system's randomness."""
        return cls(os.urandom(KEY_BYTES))

    @classmethod
    def load(cls, seed: str) -> CurvePair:
        """Return the key of a seed (`SX...`); raise `Malformed` for anything else."""
        return cls(decode_seed(seed, Role.CURVE))

    def seed(self) -> str:
        """Return the secret."""
        return encode_seed(Role.CURVE, bytes(self._private))

    def seal(self, message: bytes, to: str) -> bytes:
        """Return the message so that only the owner of `to` (`X...`) can read it."""
        nonce = os.urandom(NONCE_BYTES)
        return VERSION + nonce + self._box(to).encrypt(message, nonce).ciphertext

    def open(self, sealed: bytes, sender: str) -> bytes:
        """Return what `sender` (`X...`) has sealed for this key; raise `Malformed` if it did not."""
        head = len(VERSION) + NONCE_BYTES
        if not sealed.startswith(VERSION) or len(sealed) < head:
            raise Malformed("this is not a sealed message: it does not begin with xkv1")
        try:
            return self._box(sender).decrypt(sealed[head:], sealed[len(VERSION) : head])
        except CryptoError as error:
            raise Malformed("a sealed message that was not made for this key by that sender, or was changed") from error

    def _box(self, other: str) -> Box:
        try:
            return Box(self._private, PublicKey(decode_public(other, Role.CURVE)))
        except CryptoError as error:  # a point of low order: every secret key would share the same secret with it
            raise Malformed("this curve key is not one that anybody could have") from error

    def __repr__(self) -> str:
        return f"CurvePair({self.public})"
