"""Compact JWS (RFC 7515) signed by nkeys: what NATS and Antiphon tell each other in signed JSON.

Three parts of base64url: header, claims, signature over the first two. NATS names its algorithm `ed25519-nkey`; for
the key set of `jwks.py` it is `EdDSA` (RFC 8037). Reading checks the signature before anything of the claims is
believed, by a key that the reader knows or, for a server's own request, by the one that it names.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.errors import Malformed, Oversize
from antiphon.identity.keypair import KeyPair, Role, verify

BYTES_MAX: Final = 256 * 1024
"""A client's certificate chain may travel in a request of the server."""


class _Issuer(BaseModel):
    model_config = ConfigDict(strict=True)
    iss: Annotated[str, Field(max_length=64)]


def encode64(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode64(text: str) -> bytes:
    """Return what base64url without padding says; raise `Malformed` for another spelling of it."""
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error) as error:
        raise Malformed("this is not base64url") from error
    if encode64(raw) != text:
        raise Malformed("this is not base64url in its one canonical spelling")
    return raw


def sign(header: dict[str, str], claims: dict[str, Any], key: KeyPair) -> str:
    """Return the claims, signed."""
    body = f"{encode64(orjson.dumps(header))}.{encode64(orjson.dumps(claims))}"
    return f"{body}.{encode64(key.sign(body.encode('ascii')))}"


def read(text: str, header: dict[str, str], role: Role, *, issuer: str | None = None) -> bytes:
    """Return the claims, as JSON, of a text with exactly this header, signed by the issuer.

    Raises `Malformed` for anything else and `Oversize` for a text of more than `BYTES_MAX`. Without an issuer it is the
    one that the claims name as `iss`, of this role: that proves who wrote them and not that he may.
    """
    if len(text) > BYTES_MAX:
        raise Oversize(f"a signed text of {len(text)} characters; {BYTES_MAX} are the most")
    parts = text.split(".")
    if len(parts) != 3 or not text.isascii():  # noqa: PLR2004 - header, claims, signature
        raise Malformed("this is not a compact JWS: it does not have three parts of base64url")
    if _header(decode64(parts[0])) != header:
        raise Malformed(f"the header of this JWS is not {header}")
    claims = decode64(parts[1])
    try:
        signer = _Issuer.model_validate_json(claims).iss if issuer is None else issuer
    except ValidationError as error:
        raise Malformed("the claims of this JWS name no issuer") from error
    if not verify(signer, role, f"{parts[0]}.{parts[1]}".encode("ascii"), decode64(parts[2])):
        raise Malformed("the signature of this JWS is not its issuer's")
    return claims


def _header(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Malformed("the header of this JWS is not JSON") from error
