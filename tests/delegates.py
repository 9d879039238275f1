"""On-behalf-of tokens for tests: signed as masters sign them, and verified as masters and nodes verify them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from antiphon.decide.identities import Reason
from antiphon.decide.login import DelegatedClaims
from antiphon.decide.ring import Ring
from antiphon.errors import NotAllowed
from antiphon.identity.jwks import KeySet, make_ring
from antiphon.identity.tokens import ON_BEHALF_MS, mint_on_behalf, new_jti, verify_on_behalf
from antiphon.messages.base import Kind

AUDIENCE = "antiphon"


def now_ms() -> int:
    return int(time.time() * 1_000)


@dataclass
class Delegates:
    """A ring of keys, the tokens that it signs, and how it verifies them."""

    ring: Ring = field(default_factory=lambda: make_ring(now_ms()))
    verified: list[str] = field(default_factory=list[str])
    """Every token that was to be verified."""

    def token(
        self,
        principal: str,
        delegate: str = "http",
        *,
        groups: tuple[str, ...] = (),
        kind: Kind = Kind.PUBLISHER,
        age_ms: int = 0,
    ) -> str:
        """Return a token with which a delegate asks for a principal."""
        issued_ms = now_ms() - age_ms
        until_ms = issued_ms + ON_BEHALF_MS
        claims = DelegatedClaims(principal, kind, groups, delegate, new_jti(), issued_ms, until_ms)
        return mint_on_behalf(claims, self.ring.active, AUDIENCE)

    def verify(self, token: str, caller: str) -> DelegatedClaims:
        """Return what a token says that a caller presents; raises `NotAllowed`."""
        self.verified.append(token)
        claims = verify_on_behalf(token, KeySet.of(self.ring), AUDIENCE, now_ms())
        if isinstance(claims, Reason):
            raise NotAllowed(f"the on-behalf-of token is not accepted: {claims}")
        if claims.delegate != caller:
            raise NotAllowed("the on-behalf-of token is somebody else's")
        return claims
