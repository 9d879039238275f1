"""When tokens are renewed: after three quarters of their life, and each process a little later than another."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from antiphon.bus.bus import Bus
from antiphon.errors import InvalidSetting
from antiphon.identity.credential import Credential
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.session import JITTER_SHARE, RENEW_SHARE, Answered, Held, Session
from antiphon.identity.sources import with_grant
from antiphon.messages.base import Kind
from antiphon.messages.tokens import TokenGrant

LIFE_MS = 3_600_000
ISSUER = KeyPair.make(Role.ACCOUNT).public
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


def test_a_pinned_fabric_is_not_overwritten() -> None:
    found = Credential(name="shop", kind=Kind.NODE, instance="a", seed=KEY.seed(), issuer=ISSUER)
    assert with_grant(found, Answered(GRANT.model_copy(update={"issuer": ISSUER}), is_open=True)).issuer == ISSUER
    with pytest.raises(InvalidSetting, match="another fabric"):
        with_grant(found, Answered(GRANT, is_open=True))
