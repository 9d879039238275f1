"""Access and on-behalf-of tokens: JWTs that masters sign and everybody with the key set can check.

An access token (RFC 9068, `at+jwt`) says who somebody is for an hour and is bound to his nkey (`cnf`, RFC 7800): stolen
without that key it is worth nothing. An on-behalf-of token (`obo+jwt`) lets a delegate speak for its principal for five
minutes (`act`, RFC 8693). Signatures are EdDSA over Ed25519 (RFC 8037), so a verifier cannot forge.

Checking is strict, after RFC 8725: one algorithm, one `typ` for each use, exactly the three members of our header (so
no `jwk`, `jku` or `crit`), a key id that is looked up locally, every claim required and of its own type: PyJWT alone
would take a missing `exp`, and one that is a string. The time is an argument, in milliseconds. A refusal is a
`Reason`, not an exception: it is the expected outcome of a stranger's knock.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Final, TypeVar

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.api_jws import PyJWS
from jwt.exceptions import InvalidSignatureError, PyJWTError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.decide.identities import Reason
from antiphon.decide.login import AccessClaims, DelegatedClaims
from antiphon.decide.ring import LONGEST_MS, MARGIN_MS, SigningKey
from antiphon.errors import Malformed, Oversize
from antiphon.identity.jwks import KeySet
from antiphon.identity.jws import decode64
from antiphon.messages.base import Kind, Name
from antiphon.messages.tokens import Groups, Nkey, Serial

ISSUER: Final = "antiphon"
ALGORITHM: Final = "EdDSA"
ACCESS: Final = "at+jwt"
ON_BEHALF: Final = "obo+jwt"
ACCESS_MS: Final = LONGEST_MS
ON_BEHALF_MS: Final = 300_000
TOKEN_BYTES_MAX: Final = 3_650
"""The server's CONNECT line holds 4,096 bytes; beside key, signature and a name of 63 letters nats-py leaves 3,690."""
AHEAD_MS_MAX: Final = MARGIN_MS
"""How far the clock of the master that signed may be ahead of the one that checks."""

_jws: Final = PyJWS(algorithms=[ALGORITHM])
_Seconds = Annotated[int, Field(ge=0, le=2**40)]


class _Header(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    alg: Annotated[str, Field(max_length=32)]
    typ: Annotated[str, Field(max_length=32)]
    kid: Annotated[str, Field(max_length=64)]


class _Claims(BaseModel):
    """What every token of ours says; further claims of a later version are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    iss: Annotated[str, Field(max_length=64)]
    aud: Annotated[str, Field(max_length=64)]
    sub: Name
    kind: Kind
    groups: Groups
    jti: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{22}$")]
    iat: _Seconds
    iat_ms: Annotated[int, Field(ge=0, le=2**53)]
    exp: _Seconds


class _Confirmation(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    nkey: Nkey


class _Actor(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    sub: Name


class _Access(_Claims):
    instance: Name | None = None
    cnf: _Confirmation
    fam: Serial | None = None
    key: Serial | None = None


class _OnBehalf(_Claims):
    act: _Actor


C = TypeVar("C", bound=_Claims)


def new_jti() -> str:
    """Return the id of a new token: 128 random bits."""
    return secrets.token_urlsafe(16)


def mint_access(claims: AccessClaims, key: SigningKey, audience: str) -> str:
    """Return the signed access token.

    Args:
        claims: what it says; times in milliseconds, of which `exp` keeps whole seconds.
        key: the active one of the ring.
        audience: the fabric, which is the prefix of its subjects.

    Raises `Oversize` for one that no CONNECT line would hold.
    """
    assert (claims.family is None) != (claims.key is None), "a token hangs on what it was bought with"
    assert 0 < claims.expires_ms - claims.issued_ms <= ACCESS_MS, "longer tokens would outlive their keys"
    return _mint(
        ACCESS,
        {
            **_common(claims.name, claims),
            **({"instance": claims.instance} if claims.instance else {}),
            "cnf": {"nkey": claims.nkey},
            **({"fam": claims.family} if claims.family else {"key": claims.key}),
        },
        key,
        audience,
    )


def mint_on_behalf(claims: DelegatedClaims, key: SigningKey, audience: str) -> str:
    """Return the signed on-behalf-of token; as `mint_access`, for at most five minutes."""
    assert 0 < claims.expires_ms - claims.issued_ms <= ON_BEHALF_MS
    return _mint(
        ON_BEHALF,
        {
            **_common(claims.principal, claims),
            "act": {"sub": claims.delegate},
        },
        key,
        audience,
    )


def verify_access(token: str, keys: KeySet, audience: str, now_ms: int) -> AccessClaims | Reason:
    """Return what an access token says, or why it is refused; whether it was revoked, `decide.login` says."""
    found = _verified(token, ACCESS, _Access, keys=keys, audience=audience, now_ms=now_ms)
    if isinstance(found, Reason):
        return found
    if (found.fam is None) == (found.key is None):
        return Reason.MALFORMED
    return AccessClaims(
        name=found.sub,
        kind=found.kind,
        groups=found.groups,
        nkey=found.cnf.nkey,
        jti=found.jti,
        issued_ms=found.iat_ms,
        expires_ms=found.exp * 1_000,
        instance=found.instance,
        family=found.fam,
        key=found.key,
        kid=_header(token).kid,
    )


def verify_on_behalf(token: str, keys: KeySet, audience: str, now_ms: int) -> DelegatedClaims | Reason:
    """Return what an on-behalf-of token says, or why it is refused; who may present it, `decide.login` says."""
    found = _verified(token, ON_BEHALF, _OnBehalf, keys=keys, audience=audience, now_ms=now_ms)
    if isinstance(found, Reason):
        return found
    return DelegatedClaims(
        principal=found.sub,
        kind=found.kind,
        groups=found.groups,
        delegate=found.act.sub,
        jti=found.jti,
        issued_ms=found.iat_ms,
        expires_ms=found.exp * 1_000,
    )


def _common(subject: str, claims: AccessClaims | DelegatedClaims) -> dict[str, object]:
    return {
        "iss": ISSUER,
        "sub": subject,
        "kind": str(claims.kind),
        "groups": list(claims.groups),
        "jti": claims.jti,
        "iat": claims.issued_ms // 1_000,
        "iat_ms": claims.issued_ms,  # a revocation must not refuse what was made later in the same second
        "exp": claims.expires_ms // 1_000,
    }


def _mint(typ: str, claims: dict[str, object], key: SigningKey, audience: str) -> str:
    private = Ed25519PrivateKey.from_private_bytes(decode64(key.secret))
    payload = orjson.dumps({**claims, "aud": audience})
    token = _jws.encode(payload, private, algorithm=ALGORITHM, headers={"typ": typ, "kid": key.kid})
    if len(token) > TOKEN_BYTES_MAX:
        raise Oversize(f"a token of {len(token)} bytes; {TOKEN_BYTES_MAX} fit into a connection's first line")
    return token


def _verified(token: str, typ: str, model: type[C], *, keys: KeySet, audience: str, now_ms: int) -> C | Reason:
    if len(token) > TOKEN_BYTES_MAX:
        return Reason.OVERSIZE
    public = _key(token, typ, keys, now_ms)
    if isinstance(public, Reason):
        return public
    try:
        claims = model.model_validate_json(_jws.decode(token, public, algorithms=[ALGORITHM]))
    except InvalidSignatureError:
        return Reason.BAD_SIGNATURE
    except (PyJWTError, ValidationError):
        return Reason.MALFORMED
    return _untimely(claims, audience, now_ms) or claims


def _key(token: str, typ: str, keys: KeySet, now_ms: int) -> Ed25519PublicKey | Reason:
    """Return the key that a token with our header names, or what is wrong with the header."""
    try:
        header = _header(token)
    except (Malformed, ValidationError):
        return Reason.MALFORMED
    if header.alg != ALGORITHM:
        return Reason.WRONG_ALGORITHM
    if header.typ != typ:
        return Reason.WRONG_TYPE
    public = keys.find(header.kid, now_ms)
    return Reason.UNKNOWN_KEY_ID if public is None else Ed25519PublicKey.from_public_bytes(public)


def _header(token: str) -> _Header:
    """Return the header; not read by PyJWT first, whose parser would follow one of a thousand nested lists."""
    return _Header.model_validate_json(decode64(token.partition(".")[0]))


def _untimely(claims: _Claims, audience: str, now_ms: int) -> Reason | None:
    if claims.iss != ISSUER:
        return Reason.WRONG_ISSUER
    if claims.aud != audience:
        return Reason.WRONG_AUDIENCE
    if claims.iat != claims.iat_ms // 1_000 or claims.exp < claims.iat:
        return Reason.MALFORMED
    if claims.iat_ms > now_ms + AHEAD_MS_MAX:
        return Reason.NOT_YET_VALID
    return Reason.EXPIRED if now_ms >= claims.exp * 1_000 else None
