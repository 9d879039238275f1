"""Proof of possession: whoever presents a credential signs with the key that it belongs to.

On a connection that is the server's nonce (`callout.py`). In a request it is the request's own nonce, the time and the
SHA-256 of the credential, so that a proof fits one credential in one request (`decide/nonces.py`), and the credential
itself is not needed to check it later.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from antiphon.errors import Malformed
from antiphon.identity.keypair import SIGNATURE_BYTES, KeyPair, Role, verify

SIGNATURE_CHARS_MAX: Final = 88


def prove(key: KeyPair, nonce: str, credential: str, at_ms: int) -> str:
    """Return the proof of one request, 86 characters of base64url."""
    return base64.urlsafe_b64encode(key.sign(_words(nonce, credential, at_ms))).decode("ascii").rstrip("=")


def is_proved(nkey: str, nonce: str, credential: str, at_ms: int, proof: str) -> bool:
    """Whether the owner of this user key made this proof; what is no key or no signature proves nothing."""
    return is_signed(nkey, _words(nonce, credential, at_ms), proof)


def is_signed(nkey: str, message: bytes, signature: str) -> bool:
    """Whether the owner of a user key has signed this; the signature is base64 in either alphabet, padded or not.

    nats-py sends the standard alphabet with padding, the Go client the one for URLs without; the server takes both.
    """
    raw = _signature(signature)
    try:
        return raw is not None and verify(nkey, Role.USER, message, raw)
    except Malformed:
        return False


def _words(nonce: str, credential: str, at_ms: int) -> bytes:
    return f"{nonce}.{at_ms}.{hashlib.sha256(credential.encode()).hexdigest()}".encode()


def _signature(text: str) -> bytes | None:
    if len(text) > SIGNATURE_CHARS_MAX:
        return None
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return None
    return raw if len(raw) == SIGNATURE_BYTES else None
