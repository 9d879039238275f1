"""When tokens are renewed: after three quarters of their life, and each process a little later than another."""

from __future__ import annotations

from random import Random
from typing import Any

from antiphon.bus.bus import Bus
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.session import JITTER_SHARE, RENEW_SHARE, Held, Session
from antiphon.messages.base import Kind
from antiphon.messages.tokens import TokenGrant

LIFE_MS = 3_600_000
KEY = KeyPair.make(Role.USER)
GRANT = TokenGrant(access="a", expires_in_ms=LIFE_MS, name="shop", kind=Kind.NODE, issuer=KEY.public, keys="k")


class Given:
    """A source that has one token."""

    async def obtain(self, live: Bus | None, now_ms: int, *, but: str | None = None) -> Held:
        del live, but
        return Held(KEY, GRANT, now_ms)


async def renewal(dice: Random | None) -> int:
    session: Any = Session(Given(), lambda: 0, dice)
    await session.login()
    return int(session._held.renew_ms)


async def test_copies_of_a_credential_renew_at_different_times() -> None:
    times = {await renewal(Random(seed)) for seed in range(20)}
    assert len(times) == 20
    assert min(times) >= LIFE_MS * RENEW_SHARE
    assert max(times) <= LIFE_MS * (RENEW_SHARE + JITTER_SHARE)
    assert await renewal(None) != await renewal(None), "without seeds, too"
