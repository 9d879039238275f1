"""The key set: which public keys are believed, and the signed document (RFC 7517) that says so to others.

Masters have the ring; everybody else gets this document, signed by the fabric's issuer key, whose public name is in
their credential file. So whoever hands it on (a node, a cache, an HTTP gateway) cannot change it, and it says until
when it is good: an old one, from before a key was expelled, cannot be played back for ever. The form is that of a
signed JWK Set (`jwk-set+jwt`, OpenID Federation 1.0, section 5.2.1); a key's id is its thumbprint (RFC 7638, RFC
8037).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.decide.ring import RETIRING_MAX, KeyBytes, KeyId, Ring, SigningKey, verifying
from antiphon.errors import Malformed, NotAuthenticated
from antiphon.identity import jws
from antiphon.identity.keypair import KEY_BYTES, KeyPair, Role

DOCUMENT_MS: Final = 7_200_000
"""How long a document is good: its reader gets a new one with each access token, after 45 minutes."""
KEYS_MAX: Final = RETIRING_MAX + 2
_HEADER: Final = {"alg": "EdDSA", "typ": "jwk-set+jwt"}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that is believed, until then; None where nothing says when."""

    kid: str
    raw: bytes
    until_ms: int | None = None


class KeySet:
    """Public keys by their id."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = {key.kid: key for key in keys}

    @classmethod
    def of(cls, ring: Ring) -> KeySet:
        """Return the keys of a ring; one that is retiring is found until it is to be dropped."""
        return cls(
            PublicKey(key.kid, jws.decode64(key.public), key.drop_ms)
            for key in (ring.active, ring.next, *ring.retiring)
        )

    def find(self, kid: str, now_ms: int) -> bytes | None:
        """Return the 32 bytes of the key with this id, if it is believed now."""
        key = self._keys.get(kid)
        if key is None or (key.until_ms is not None and now_ms >= key.until_ms):
            return None
        return key.raw

    @property
    def until_ms(self) -> int:
        """When the last of them is believed no more, as far as something says so: by it the newer of two is known."""
        return max((key.until_ms or 0 for key in self._keys.values()), default=0)

    def __len__(self) -> int:
        return len(self._keys)


class _Jwk(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    alg: Literal["EdDSA"]
    use: Literal["sig"]
    kid: KeyId
    x: KeyBytes


class _Document(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    iss: Annotated[str, Field(max_length=64)]
    sub: Annotated[str, Field(max_length=64)]
    iat: Annotated[int, Field(ge=0, le=2**40)]
    exp: Annotated[int, Field(ge=0, le=2**40)]
    keys: Annotated[tuple[_Jwk, ...], Field(max_length=KEYS_MAX)]


def make_signing_key(now_ms: int) -> SigningKey:
    """Return a new Ed25519 key for the ring."""
    raw = os.urandom(KEY_BYTES)
    public = jws.encode64(Ed25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw())
    return SigningKey(kid=thumbprint(public), public=public, secret=jws.encode64(raw), created_ms=now_ms)


def make_ring(now_ms: int) -> Ring:
    """Return a ring for a fabric that has none."""
    return Ring(next=make_signing_key(now_ms), active=make_signing_key(now_ms))


def thumbprint(public: str) -> str:
    """Return the key id of an Ed25519 public key in base64url: SHA-256 over its members in order (RFC 8037, A.3)."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}'
    return jws.encode64(hashlib.sha256(members.encode("ascii")).digest())


def public_keys(ring: Ring, now_ms: int) -> dict[str, list[dict[str, str]]]:
    """Return the keys that are believed now as a JWK Set, `{"keys": [...]}`, unsigned, for whoever trusts the way."""
    keys = [
        {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid, "x": key.public}
        for key in verifying(ring, now_ms)
    ]
    return {"keys": keys}


def sign_document(ring: Ring, issuer: KeyPair, prefix: str, now_ms: int) -> str:
    """Return the key set of a fabric as a JWS that the issuer has signed, good for two hours."""
    assert issuer.role is Role.ACCOUNT
    now_s = now_ms // 1_000
    claims = {"iss": issuer.public, "sub": prefix, "iat": now_s, "exp": now_s + DOCUMENT_MS // 1_000}
    return jws.sign(_HEADER, claims | public_keys(ring, now_ms), issuer)


def read_document(text: str, issuer: str, prefix: str, now_ms: int) -> KeySet:
    """Return the keys of a document that this issuer (`A...`) signed for this fabric, each until the document ends.

    Raises `NotAuthenticated` for one that is not, is over, or holds a key under another's id, and `Malformed` where
    `issuer` is no account key.
    """
    try:
        document = _Document.model_validate_json(jws.read(text, _HEADER, Role.ACCOUNT, issuer=issuer))
    except (Malformed, ValidationError) as error:
        raise NotAuthenticated("this key set was not signed by the issuer in the credential file") from error
    if (document.iss, document.sub) != (issuer, prefix):
        raise NotAuthenticated("this key set is another fabric's")
    if now_ms >= document.exp * 1_000:
        raise NotAuthenticated("this key set is out of date: ask a master for the one of now")
    if any(thumbprint(key.x) != key.kid for key in document.keys):
        raise NotAuthenticated("this key set holds a key under an id that is not its own")
    return KeySet(PublicKey(key.kid, jws.decode64(key.x), document.exp * 1_000) for key in document.keys)
