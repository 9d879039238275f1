"""Forged access tokens, each with one thing wrong, and the reason that it has to be refused for."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from antiphon.decide.identities import Reason
from antiphon.decide.ring import Ring, SigningKey
from antiphon.identity.jwks import make_ring, make_signing_key
from antiphon.identity.jws import decode64, encode64

NOW_MS = 1_790_000_000_123


def signed(header: dict[str, Any], claims: Any, key: SigningKey) -> str:
    """A token with a good signature over whatever it says."""
    body = f"{part(header)}.{part(claims)}"
    signature = Ed25519PrivateKey.from_private_bytes(decode64(key.secret)).sign(body.encode())
    return f"{body}.{encode64(signature)}"


def part(value: Any) -> str:
    return encode64(value if isinstance(value, bytes) else json.dumps(value).encode())


@dataclass
class Forge:
    """Makes tokens as masters would, but for one thing."""

    nkey: str
    audience: str = "antiphon"
    now_ms: int = NOW_MS
    ring: Ring = field(default_factory=lambda: make_ring(NOW_MS))
    name: str = "web"
    kind: str = "publisher"

    def header(self, **changed: Any) -> dict[str, Any]:
        whole = {"alg": "EdDSA", "typ": "at+jwt", "kid": self.ring.active.kid, **changed}
        return {key: value for key, value in whole.items() if value is not None}

    def claims(self, **changed: Any) -> dict[str, Any]:
        whole = {
            "iss": "antiphon",
            "aud": self.audience,
            "sub": self.name,
            "kind": self.kind,
            "groups": [],
            "cnf": {"nkey": self.nkey},
            "fam": "a" * 16,
            "jti": "j" * 22,
            "iat": self.now_ms // 1_000,
            "iat_ms": self.now_ms,
            "exp": self.now_ms // 1_000 + 3_600,
            **changed,
        }
        return {key: value for key, value in whole.items() if value is not None}

    def token(self, **changed: Any) -> str:
        """A token with these claims changed, signed by the active key."""
        return signed(self.header(), self.claims(**changed), self.ring.active)

    def headed(self, **changed: Any) -> str:
        """A token with these members of the header changed, signed by the active key."""
        return signed(self.header(**changed), self.claims(), self.ring.active)

    def with_public_key_as_secret(self) -> str:
        """HS256 with the public key: what a verifier accepts that lets the token choose its algorithm."""
        body = f"{part(self.header(alg='HS256'))}.{part(self.claims())}"
        return f"{body}.{encode64(hmac.digest(decode64(self.ring.active.public), body.encode(), 'sha256'))}"

    def unsigned(self) -> str:
        return f"{part(self.header(alg='none'))}.{part(self.claims())}."

    def nested(self) -> str:
        return f"{part(b'[' * 2_000)}.{part(self.claims())}.{part(b's')}"

    def tampered(self) -> str:
        head, _, signature = self.token().split(".")
        return f"{head}.{part(self.claims(sub='admin'))}.{signature}"

    def by_a_stranger(self, **changed: Any) -> str:
        key = make_signing_key(self.now_ms)
        return signed(self.header(**{"kid": key.kid, **changed}), self.claims(), key)

    def embedded(self) -> str:
        """A key of the forger's own, carried in the header (CVE-2018-0114)."""
        key = make_signing_key(self.now_ms)
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": key.public}
        return signed(self.header(kid=key.kid, jwk=jwk), self.claims(), key)

    def padded(self) -> str:
        head, claims, signature = self.token().split(".")
        return f"{head}=.{claims}.{signature}"

    def in_bytes(self, raw: bytes) -> str:
        return signed(self.header(), raw, self.ring.active)


def exp(offset_s: int) -> int:
    return NOW_MS // 1_000 + offset_s


ATTACKS: dict[str, tuple[Callable[[Forge], str], Reason]] = {
    "alg none": (Forge.unsigned, Reason.WRONG_ALGORITHM),
    "alg None": (lambda f: f.headed(alg="None"), Reason.WRONG_ALGORITHM),
    "alg HS256 with the public key": (Forge.with_public_key_as_secret, Reason.WRONG_ALGORITHM),
    "alg missing": (lambda f: f.headed(alg=None), Reason.MALFORMED),
    "alg of an nkey": (lambda f: f.headed(alg="ed25519-nkey"), Reason.WRONG_ALGORITHM),
    "kid unknown": (Forge.by_a_stranger, Reason.UNKNOWN_KEY_ID),
    "kid missing": (lambda f: f.headed(kid=None), Reason.MALFORMED),
    "kid a path": (lambda f: f.headed(kid="../../dev/null"), Reason.UNKNOWN_KEY_ID),
    "kid not text": (lambda f: f.headed(kid=["a"]), Reason.MALFORMED),
    "ours by name, a stranger's by signature": (
        lambda f: f.by_a_stranger(kid=f.ring.active.kid),
        Reason.BAD_SIGNATURE,
    ),
    "jwk in the header": (Forge.embedded, Reason.MALFORMED),
    "crit in the header": (lambda f: f.headed(crit=["exp"], exp=1), Reason.MALFORMED),
    "typ JWT": (lambda f: f.headed(typ="JWT"), Reason.WRONG_TYPE),
    "typ of a delegate": (lambda f: f.headed(typ="obo+jwt"), Reason.WRONG_TYPE),
    "typ missing": (lambda f: f.headed(typ=None), Reason.MALFORMED),
    "typ in capitals": (lambda f: f.headed(typ="AT+JWT"), Reason.WRONG_TYPE),
    "claims changed": (Forge.tampered, Reason.BAD_SIGNATURE),
    "expired": (lambda f: f.token(exp=f.now_ms // 1_000), Reason.EXPIRED),
    "exp missing": (lambda f: f.token(exp=None), Reason.MALFORMED),
    "exp a string": (lambda f: f.token(exp="99999999999"), Reason.MALFORMED),
    "exp a float": (lambda f: f.token(exp=99_999_999_999.5), Reason.MALFORMED),
    "exp a whole float": (lambda f: f.in_bytes(json.dumps(f.claims(exp=9e11)).encode()), Reason.MALFORMED),
    "exp true": (lambda f: f.token(exp=True), Reason.MALFORMED),
    "exp a list": (lambda f: f.token(exp=[99_999_999_999]), Reason.MALFORMED),
    "exp beyond numbers": (lambda f: f.token(exp=10**30), Reason.MALFORMED),
    "exp before iat": (lambda f: f.token(exp=f.now_ms // 1_000 - 1), Reason.MALFORMED),
    "iat in the future": (
        lambda f: f.token(iat=f.now_ms // 1_000 + 61, iat_ms=f.now_ms + 61_000),
        Reason.NOT_YET_VALID,
    ),
    "iat and iat_ms differ": (lambda f: f.token(iat_ms=f.now_ms + 5_000), Reason.MALFORMED),
    "iat missing": (lambda f: f.token(iat=None), Reason.MALFORMED),
    "aud of another fabric": (lambda f: f.token(aud="other"), Reason.WRONG_AUDIENCE),
    "aud a list with ours": (lambda f: f.token(aud=[f.audience]), Reason.MALFORMED),
    "aud missing": (lambda f: f.token(aud=None), Reason.MALFORMED),
    "aud a prefix of ours": (lambda f: f.token(aud=f.audience[:-1]), Reason.WRONG_AUDIENCE),
    "iss of another": (lambda f: f.token(iss="evil"), Reason.WRONG_ISSUER),
    "iss missing": (lambda f: f.token(iss=None), Reason.MALFORMED),
    "sub missing": (lambda f: f.token(sub=None), Reason.MALFORMED),
    "sub a wildcard": (lambda f: f.token(sub="*"), Reason.MALFORMED),
    "sub the rest": (lambda f: f.token(sub=">"), Reason.MALFORMED),
    "sub with a dot": (lambda f: f.token(sub="a.b"), Reason.MALFORMED),
    "sub with a line's end": (lambda f: f.token(sub="web\n"), Reason.MALFORMED),
    "kind unknown": (lambda f: f.token(kind="root"), Reason.MALFORMED),
    "kind missing": (lambda f: f.token(kind=None), Reason.MALFORMED),
    "instance a wildcard": (lambda f: f.token(instance="*"), Reason.MALFORMED),
    "groups missing": (lambda f: f.token(groups=None), Reason.MALFORMED),
    "groups too many": (lambda f: f.token(groups=[f"g{at}" for at in range(33)]), Reason.MALFORMED),
    "cnf missing": (lambda f: f.token(cnf=None), Reason.MALFORMED),
    "cnf empty": (lambda f: f.token(cnf={}), Reason.MALFORMED),
    "jti missing": (lambda f: f.token(jti=None), Reason.MALFORMED),
    "bought with nothing": (lambda f: f.token(fam=None), Reason.MALFORMED),
    "bought with two": (lambda f: f.token(key="b" * 16), Reason.MALFORMED),
    "claims no object": (lambda f: f.in_bytes(b"[]"), Reason.MALFORMED),
    "claims no JSON": (lambda f: f.in_bytes(b"{"), Reason.MALFORMED),
    "claims nested": (lambda f: f.in_bytes(b'{"a":' * 400 + b"1" + b"}" * 400), Reason.MALFORMED),
    "header nested": (Forge.nested, Reason.MALFORMED),
    "header padded": (Forge.padded, Reason.MALFORMED),
    "four parts": (lambda f: f.token() + ".x", Reason.MALFORMED),
    "two parts": (lambda f: f.token().rpartition(".")[0], Reason.MALFORMED),
    "no signature": (lambda f: f.token().rpartition(".")[0] + ".", Reason.BAD_SIGNATURE),
    "empty": (lambda f: "", Reason.MALFORMED),
    "not ASCII": (lambda f: f.token() + "é", Reason.MALFORMED),
    "oversize": (lambda f: f.token(more="x" * 4_000), Reason.OVERSIZE),
    "base64 of nothing": (lambda f: base64.b64encode(b"web:secret").decode(), Reason.MALFORMED),
}
