"""The identity actor: tokens for credentials, and everything that the callout needs to know.

Each master has one; they share the identity bucket, so any of them can answer anybody, and losing one is not seen.
What is written decides: a token leaves only after its record is in the bucket.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from typing import Protocol

import structlog

from antiphon.actors.audit import Audit
from antiphon.actors.badges import DOUBTFUL
from antiphon.actors.first_use import FirstUse
from antiphon.actors.kicker import Whom
from antiphon.actors.ledger import Ledger
from antiphon.bus.bus import Bus, Call
from antiphon.bus.seldom import Seldom
from antiphon.decide import ring as rings
from antiphon.decide.book import DENIED
from antiphon.decide.headcount import HeadBounds
from antiphon.decide.identities import (
    ApiKeyRecord,
    FamilyRecord,
    IdentityRecord,
    InviteRecord,
    Reason,
    Record,
    Standing,
)
from antiphon.decide.knocks import KnockBounds
from antiphon.decide.limit import Limiter, Rate
from antiphon.decide.login import DelegatedClaims, Login, advice
from antiphon.decide.nonces import Nonces
from antiphon.decide.policy import Access
from antiphon.decide.ring import Ring
from antiphon.errors import AntiphonError, NotAllowed, NotAuthenticated, NotConnected, Overloaded
from antiphon.identity.authority import Authority, Bought, Lives, Refusal, Write
from antiphon.identity.jwks import make_ring, make_signing_key
from antiphon.identity.proof import is_proved
from antiphon.identity.seal import seal_ring, unseal_ring
from antiphon.identity.vault import Vault
from antiphon.messages.base import Kind
from antiphon.messages.identities import KeysRotate, RingView
from antiphon.messages.tokens import (
    BehalfAsk,
    BehalfGrant,
    Enrol,
    KeyDocument,
    KeysAsk,
    TokenAsk,
    TokenGrant,
    WhoAmI,
    WhoIs,
)
from antiphon.runtime.actor import Actor, ActorBounds, answers
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.identity")

UNTOLD_MS = 60_000
"""How often the number of refusals is told that were too many to tell."""
SWEEP_MS = 600_000
"""How often records that say nothing any more are removed."""
KEEP_MS = 86_400_000
"""How long they stay: what was refused lately can still be looked up."""
ASKED_AGAIN = "asked_again"
"""Why a token was granted to whoever had asked before: his answer was lost, or two have one credential."""
RETRY_MS = 1_000
AGAIN_MS = 2_500
"""When somebody is kicked for the second time: the server waits two seconds for a callout's answer."""


@dataclass(frozen=True, slots=True)
class IdentityBounds:
    """How long tokens live, and how often they may be asked for."""

    lives: Lives = field(default_factory=Lives)
    rate: Rate | None = field(default_factory=Rate)
    """Token asks of one identity; None is no limit."""
    failures: Rate | None = field(default_factory=Rate)
    """Refused attempts to get a token with one credential."""
    knocks: KnockBounds = field(default_factory=KnockBounds)
    """Refused connections."""
    heads: HeadBounds = field(default_factory=HeadBounds)
    """Connections at once."""


class Kicks(Protocol):
    """Whoever can end connections on the server."""

    def kick(self, whom: Whom, why: str) -> None:
        """End every connection that is meant."""

    def held(self) -> AbstractContextManager[None]:
        """End none meanwhile: whoever gives an order is answered before it ends his own connection."""
        ...


class IdentityActor(Actor):
    """One master's desk for tokens."""

    name = "identity"

    def __init__(
        self,
        bus: Bus,
        access: View[Access],
        audit: Audit,
        vault: Vault,
        *,
        kicks: Kicks | None = None,
        limits: IdentityBounds | None = None,
        bounds: ActorBounds | None = None,
        opened: Callable[[IdentityActor], None] | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self._opened = opened
        self.access = access
        self.audit = audit
        self.kicks = kicks
        self.limits = limits or IdentityBounds()
        self._vault = vault
        self.ledger = Ledger(bus, vault.pepper, changed=self._changed, ring=self._take_ring, tell=self.tell)
        self.authority = Authority(
            self.ledger.book, pepper=vault.pepper, issuer=vault.issuer, prefix=bus.prefix, lives=self.limits.lives
        )
        self.authority.seen = FirstUse(self.authority, self.ledger, self.tell).note
        self._asks: Limiter[str] = Limiter()
        self._failures: Limiter[tuple[str, str]] = Limiter()
        self._untold = Seldom()
        self._nonces = Nonces()
        self._is_open = False

    # -- life

    async def started(self) -> None:
        """Read the whole bucket before anybody is judged by it, and make the signing keys where there are none."""
        await self.ledger.open()
        if self.ledger.book.ring is None:
            fresh = make_ring(self.bus.clock.wall_ms())
            if await self.ledger.write_ring(seal_ring(fresh, self._vault.pepper, self._place)):
                self.audit.tell("rotated", self.bus.name, why="first keys", credential=fresh.active.kid)
        self._is_open = True
        if self._opened is not None:
            self._opened(self)
        self._show()
        self.tell_after(SWEEP_MS, self._sweep)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does, and watch no more."""
        await super().stop(is_crashed=is_crashed)
        await self.ledger.close()

    @property
    def _place(self) -> str:
        return f"{self.bus.prefix}.ring"

    def _take_ring(self, sealed: bytes) -> None:
        now_ms = self.bus.clock.wall_ms()
        before = rings.verifying(self.authority.ring, now_ms) if self.authority.has_keys else ()
        self.authority.take_ring(unseal_ring(sealed, self._vault.pepper, self._place))
        believed = {key.kid for key in rings.verifying(self.authority.ring, now_ms)}
        for key in before:
            if key.kid not in believed:
                self._cut_off(Whom(credential=key.kid), "expelled")

    def _changed(self, key: str, before: Record | None, record: Record | None) -> None:
        """Take a change of the bucket: whoever is out by it is cut off, by every master that hears of it."""
        if not self._is_open:
            return
        if isinstance(record, IdentityRecord):
            self._show()
            self._identity_changed(before if isinstance(before, IdentityRecord) else None, record)
        elif isinstance(record, FamilyRecord) and record.revoked is not None:
            self._cut_off(Whom(credential=record.id), record.revoked)
        elif isinstance(record, (ApiKeyRecord, InviteRecord)) and record.is_revoked:
            self._cut_off(Whom(credential=record.id), "revoked")
        elif key.startswith(f"{DENIED}.") and self.ledger.book.is_denied(jti := key.partition(".")[2]):
            self._cut_off(Whom(credential=jti), "revoked")

    def _identity_changed(self, before: IdentityRecord | None, record: IdentityRecord) -> None:
        if record.status is Standing.SUSPENDED and (before is None or before.status is not Standing.SUSPENDED):
            self._cut_off(Whom(record.name), "suspended")
        if record.not_before_ms > (before.not_before_ms if before else 0):
            # not by its name: who comes by what was made after this is welcome
            book = self.ledger.book
            owned: list[FamilyRecord | ApiKeyRecord]
            owned = [*book.owned(FamilyRecord, record.name), *book.owned(ApiKeyRecord, record.name)]
            for held in owned:
                if held.created_ms < record.not_before_ms:
                    self._cut_off(Whom(credential=held.id), "revoked")

    def held(self) -> AbstractContextManager[None]:
        """End no connection meanwhile."""
        return nullcontext() if self.kicks is None else self.kicks.held()

    def _cut_off(self, whom: Whom, why: str) -> None:
        """End connections now, and those that a callout let in while it had not heard of this yet."""
        if self.kicks is None:
            return
        self.kicks.kick(whom, why)

        async def again() -> None:
            found = self.ledger.book.identity(whom.name) if whom.name else None
            if self.kicks is not None and (found is None or found.status is Standing.SUSPENDED):
                self.kicks.kick(whom, why)

        self.tell_after(AGAIN_MS, again)

    def _show(self) -> None:
        found = {one.name: one for one in self.ledger.book.identities()}
        self.access.replace(self.access.current.with_identities(found))

    # -- tokens

    @answers(TokenAsk)
    async def token(self, call: Call[TokenAsk]) -> TokenGrant:
        """Hand out tokens for a credential whose owner proves that the nkey is his."""
        asked = call.message
        self._limit(call.caller)
        if not is_proved(asked.nkey, asked.nonce, asked.credential, asked.at_ms, asked.proof):
            raise self.refused(Refusal(Reason.NO_PROOF, call.caller), call.caller, where="identity.token")
        if (reason := self._nonces.use(asked.nonce, asked.at_ms, self.bus.clock.wall_ms())) is not None:
            raise self.refused(Refusal(reason, call.caller), call.caller, where="identity.token")

        def decide() -> Bought | Refusal:
            return self.authority.exchange(
                asked.credential, asked.nkey, asked.instance, call.caller, self.bus.clock.wall_ms()
            )

        try:
            if is_doubtful(decide()):
                await self.freshen(asked.credential)
            return await self._buy(call.caller, decide)
        except AntiphonError:
            self._nonces.forget(asked.nonce)
            raise

    @answers(Enrol)
    async def enrol(self, call: Call[Enrol]) -> TokenGrant:
        """Hand out tokens to a process that an operator vouches for."""
        self.access.current.check_operator(call.caller)
        asked = call.message
        if asked.kind in (Kind.MASTER, Kind.OPERATOR):
            raise NotAllowed(f"a {asked.kind} is not enrolled: make it with `antiphon identity create` and a key")
        return await self._buy(
            call.caller,
            lambda: self.authority.enrol(asked.name, asked.kind, asked.instance, asked.nkey, self.bus.clock.wall_ms()),
        )

    async def _buy(self, by: str, decide: Callable[[], Bought | Refusal]) -> TokenGrant:
        bought: list[Bought] = []

        def writes() -> tuple[Write, ...]:
            verdict = decide()
            if isinstance(verdict, Refusal):
                raise _Refused(verdict)
            bought[:] = [verdict]
            return verdict.writes

        try:
            await self.ledger.change(writes)
        except _Refused as refused:
            if refused.refusal.writes:
                self.revoke_reused(refused.refusal, decide)
            raise self.refused(refused.refusal, by, where="identity.token") from None
        claims = bought[0].claims
        self.audit.tell(
            "granted",
            claims.name,
            kind=claims.kind,
            instance=claims.instance,
            why=ASKED_AGAIN if bought[0].is_again else str(bought[0].sort or ""),
            by=by if by != claims.name else None,
            credential=claims.jti,
        )
        return self.authority.grant(bought[0], self.bus.clock.wall_ms())

    def refused(self, refusal: Refusal, by: str, *, where: str) -> NotAuthenticated | Overloaded:
        """Tell of a refusal and return the error for whoever is refused, who is told when he may try again."""
        who = by if refusal.who == "?" else refusal.who
        asked = by if by != who else None
        after_ms = self.failed(where, refusal.credential or by)
        if after_ms:  # told once in a while: whoever fails on and on must not fill the audit
            times = self._untold.due(where, self.bus.clock.now_ms(), UNTOLD_MS)
            if times:
                self.audit.tell("refused", who, why=Reason.TOO_OFTEN, where=f"{times} more times, {where}", by=asked)
            return Overloaded("too many refused attempts with this credential", retry_after_ms=after_ms)
        self.audit.tell(
            "refused", who, why=refusal.reason, where=where, by=asked, credential=refusal.credential or None
        )
        return NotAuthenticated(advice(refusal.reason))

    def failed(self, where: str, credential: str) -> int:
        """Count a refused attempt; return for how long further ones are refused unseen, 0 for not at all."""
        rate = self.limits.failures
        if rate is None:
            return 0
        return self._failures.judge((where, credential), rate, self.bus.clock.now_ms()).retry_after_ms

    def _limit(self, caller: str) -> None:
        if self.limits.rate is None:
            return
        after_ms = self._asks.judge(caller, self.limits.rate, self.bus.clock.now_ms()).retry_after_ms
        if after_ms:
            raise Overloaded(f"{caller} asks for tokens too often", retry_after_ms=after_ms)

    async def freshen(self, credential: str) -> None:
        """Read what a credential hangs on again: another master may have made or changed it this moment."""
        await self.ledger.freshen(self.authority.keys_of(credential, self.bus.clock.wall_ms()))

    def revoke_reused(self, refusal: Refusal, decide: Callable[[], Bought | Login | Refusal]) -> None:
        """Write down that a family is revoked, because a token of it came twice; `decide` says so again, or not."""
        written: list[bool] = []

        def writes() -> tuple[Write, ...]:
            verdict = decide()
            written[:] = [isinstance(verdict, Refusal) and bool(verdict.writes)]
            return verdict.writes if isinstance(verdict, Refusal) else ()

        async def write() -> None:
            try:
                await self.ledger.change(writes)
            except AntiphonError as error:
                log.warning("identity.not_revoked", credential=refusal.credential, code=error.code)
                self.tell_after(RETRY_MS, write)
                return
            if written == [True]:
                by = self.bus.name
                self.audit.tell("revoked", refusal.who, why=refusal.reason, by=by, credential=refusal.credential)

        self.tell(write)

    @answers(KeysAsk)
    async def keys(self, call: Call[KeysAsk]) -> KeyDocument:  # noqa: ARG002 - everybody gets the same
        """Hand out the keys that verify tokens."""
        return KeyDocument(document=self.authority.document(self.bus.clock.wall_ms()))

    @answers(KeysRotate)
    async def rotate(self, call: Call[KeysRotate]) -> RingView:
        """Let the next key sign, or expel one that has leaked."""
        self.access.current.check_operator(call.caller)
        expelled = call.message.expel
        for _ in range(8):
            now_ms = self.bus.clock.wall_ms()
            before, fresh = self.authority.ring, make_signing_key(now_ms)
            if expelled is not None:
                if expelled not in {key.kid for key in rings.verifying(before, now_ms)}:
                    raise NotAllowed("no signing key has this id")
                after = rings.expel(before, expelled, fresh, now_ms)
            else:
                after = rings.rotate(before, fresh, now_ms)
            if await self.ledger.write_ring(seal_ring(after, self._vault.pepper, self._place)):
                why = "expelled" if expelled else "rotated"
                self.audit.tell("rotated", call.caller, why=why, by=call.caller, credential=after.active.kid)
                return view_of(after)
        raise Overloaded("other masters keep rotating", retry_after_ms=100)

    @answers(WhoAmI)
    async def whoami(self, call: Call[WhoAmI]) -> WhoIs:
        """Tell whom the masters take the caller for."""
        found = self.ledger.book.identity(call.caller)
        return WhoIs(
            name=call.caller,
            kind=found.kind if found else None,
            groups=found.groups if found else (),
            is_delegate=found.is_delegate if found else False,
            is_suspended=found is not None and found.status is Standing.SUSPENDED,
            mode="callout" if self.kicks is not None else "header",
            master=self.bus.name,
            wall_ms=self.bus.clock.wall_ms(),
            version=installed("antiphon"),
        )

    @answers(BehalfAsk)
    async def behalf(self, call: Call[BehalfAsk]) -> BehalfGrant:
        """Hand out a token with which a delegate asks for a principal."""
        now_ms = self.bus.clock.wall_ms()
        claims = self.authority.speak_for(call.caller, call.message.principal, now_ms)
        if isinstance(claims, Refusal):
            raise self.refused(claims, call.caller, where="identity.behalf")
        self.audit.tell(
            "granted", claims.principal, kind=claims.kind, why="behalf", by=call.caller, credential=claims.jti
        )
        return BehalfGrant(token=self.authority.sign_behalf(claims), expires_in_ms=claims.expires_ms - now_ms)

    def verify(self, token: str, caller: str) -> DelegatedClaims:
        """Return whom a caller speaks for; raises `NotAllowed` for a token that does not say so."""
        claims = self.authority.verify_behalf(token, caller, self.bus.clock.wall_ms())
        if isinstance(claims, Refusal):
            self.audit.tell("refused", caller, why=claims.reason, where="behalf", credential=claims.credential or None)
            raise NotAllowed(advice(claims.reason))
        return claims

    # -- housekeeping

    async def _sweep(self) -> None:
        try:
            for key in self.ledger.book.overdue(self.bus.clock.wall_ms(), KEEP_MS):
                await self.ledger.drop(key)
        except NotConnected:
            pass
        finally:
            self.tell_after(SWEEP_MS, self._sweep)

    async def deny(self, jti: str, until_ms: int) -> None:
        """Revoke one access token."""
        await self.ledger.deny(f"{DENIED}.{jti}", until_ms)


def is_doubtful(verdict: Bought | Login | Refusal) -> bool:
    """Whether a newer book may say something else: another master may have made or changed it this moment."""
    return isinstance(verdict, Refusal) and verdict.reason in DOUBTFUL


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def view_of(ring: Ring) -> RingView:
    """Return the ids of a ring's keys."""
    return RingView(next=ring.next.kid, active=ring.active.kid, retiring=tuple(key.kid for key in ring.retiring))


__all__ = ["IdentityActor", "IdentityBounds", "Kicks"]
