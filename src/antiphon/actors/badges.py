"""Badges at a process that has the fabric's secrets: the one that it shows, and whose it believes.

A master judges by the book of its identity actor. A recorder hands out no tokens, so it keeps a book for nothing else
than to judge by (`BadgeBook`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from antiphon.actors.audit import Audit
from antiphon.actors.first_use import FirstUse
from antiphon.actors.ledger import Ledger
from antiphon.bus.bus import Bus
from antiphon.decide.identities import Reason, Record
from antiphon.decide.knocks import Knocks
from antiphon.decide.login import AccessClaims
from antiphon.identity.authority import Authority, Lives
from antiphon.identity.badge import BadgedTransport, Reader
from antiphon.identity.seal import unseal_ring
from antiphon.identity.session import RENEW_SHARE
from antiphon.identity.vault import Vault
from antiphon.runtime.actor import Actor, ActorBounds

log = structlog.get_logger("antiphon.identity")

ANYWHERE: Final = "a server that asks nobody"
"""Where all senders of badges come from: such a server does not say it."""
DOUBTFUL: Final = frozenset(
    {
        Reason.UNKNOWN_CREDENTIAL,
        Reason.UNKNOWN_IDENTITY,
        Reason.UNKNOWN_KEY_ID,
        Reason.REUSED,
        Reason.SUSPENDED,
        Reason.WRONG_INSTANCE,
    }
)
"""Why somebody is refused for what another master may have changed this moment."""


class OwnBadge:
    """A master's own badge, made anew at three quarters of its life, and whenever the signing key has changed."""

    def __init__(self, authority: Callable[[], Authority], bus: Bus, nkey: str) -> None:
        self._authority = authority
        self._bus = bus
        self._nkey = nkey
        self._badge = ""
        self._kid = ""
        self._until_ms = 0

    def now(self) -> str | None:
        """Return it; None before there are signing keys."""
        authority, now_ms = self._authority(), self._bus.clock.wall_ms()
        if not authority.has_keys:
            return None
        if now_ms >= self._until_ms or authority.ring.active.kid != self._kid:
            self._badge = authority.own_badge(self._bus.name, self._nkey, now_ms)
            self._kid = authority.ring.active.kid
            self._until_ms = now_ms + int(authority.lives.access_ms * RENEW_SHARE)
        return self._badge


class Judge(Protocol):
    """What badges are judged by: an identity actor, or a `BadgeBook`."""

    authority: Authority

    async def freshen(self, credential: str) -> None:
        """Read what a token hangs on again."""


def put_on(bus: Bus, judging: Callable[[], Judge], nkey: str, *, audit: Audit, knocks: Knocks) -> None:
    """Show a badge, and look at everybody's: the server lets everybody in.

    Args:
        bus: a master's, whose messages carry it from now on.
        judging: returns who judges now.
        nkey: the masters' public key.
        audit: is told of who was refused.
        knocks: how many of them are told one by one.
    """
    log.warning("identity.badges", name=bus.name, why="the server asks nobody who he is")
    own = OwnBadge(lambda: judging().authority, bus, nkey)

    def judge(claims: AccessClaims, now_ms: int) -> Reason | None:
        return judging().authority.judge_badge(claims, now_ms)

    def refused(subject: str, reason: Reason) -> None:
        untold = knocks.told(ANYWHERE, bus.clock.now_ms())
        if untold:
            audit.tell("refused", "?", why=Reason.TOO_OFTEN, where=f"{untold} more times, {ANYWHERE}")
        if untold is not None:
            audit.tell("refused", subject.rpartition(".")[2], why=reason, where=subject)

    async def look(reason: Reason, token: str) -> bool:
        is_looked = reason in DOUBTFUL and knocks.may_look(ANYWHERE, bus.clock.now_ms())
        if is_looked:
            await judging().freshen(token)
        return is_looked

    reader = Reader(lambda: judging().authority.keys, bus.prefix, bus.clock.wall_ms, judge)
    bus.transport = BadgedTransport(bus.transport, own.now, reader, refused, look)


def _nobody_else(_key: str, _before: Record | None, _after: Record | None) -> None:
    """Leave it at the book: there is no connection to end here, and whoever is judged next is judged by the change."""


class BadgeBook(Actor):
    """The identities as a process knows them that judges badges and hands out none.

    Args:
        bus: a master's.
        vault: the fabric's secrets.
        lives: how long tokens live.
        opened: is called with this as soon as the book is complete.
        bounds: its limits.
    """

    name = "badges"

    def __init__(
        self,
        bus: Bus,
        vault: Vault,
        *,
        lives: Lives | None = None,
        opened: Callable[[BadgeBook], None],
        bounds: ActorBounds | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self._vault = vault
        self._opened = opened
        self.ledger = Ledger(bus, vault.pepper, changed=_nobody_else, ring=self._take_ring, tell=self.tell)
        self.authority = Authority(
            self.ledger.book, pepper=vault.pepper, issuer=vault.issuer, prefix=bus.prefix, lives=lives
        )
        self.authority.seen = FirstUse(self.authority, self.ledger, self.tell).note

    async def started(self) -> None:
        """Read the whole bucket before anybody is judged by it; masters make the signing keys."""
        await self.ledger.open()
        self._opened(self)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does, and watch no more."""
        await super().stop(is_crashed=is_crashed)
        await self.ledger.close()

    async def freshen(self, credential: str) -> None:
        """Read what a token hangs on again."""
        await self.ledger.freshen(self.authority.keys_of(credential, self.bus.clock.wall_ms()))

    def _take_ring(self, sealed: bytes) -> None:
        self.authority.take_ring(unseal_ring(sealed, self._vault.pepper, f"{self.bus.prefix}.ring"))
