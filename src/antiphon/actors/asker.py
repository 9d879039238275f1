"""Who asks: the principal of a request, and the fabric as that principal sees it.

It reads the views and remembers what follows from them, so that a search costs two looks into dictionaries. A request
that brings an on-behalf-of token is its principal's from here on: his rate, his policy, his name in facts. Without a
token it is the asker's own, also where the asker is a delegate.
"""

from __future__ import annotations

from antiphon.clock import Clock
from antiphon.decide.limit import Limiter, Rate
from antiphon.decide.login import DelegatedClaims
from antiphon.decide.policy import Access, Principal, Sight, Verify, is_limited, may_search
from antiphon.decide.registry import RegistryView
from antiphon.errors import NotAllowed, Overloaded
from antiphon.runtime.views import View


class Askers:
    """Who asks of one actor.

    Args:
        clock: the time.
        access: the policy and the identities.
        registry: who is there.
        verify: reads on-behalf-of tokens; without one they are refused.
        rate: how often one caller may ask for what is counted, and how often he may come with a token that is none:
            reading a signature costs more than a search.
    """

    def __init__(
        self,
        clock: Clock,
        access: View[Access],
        registry: View[RegistryView],
        verify: Verify | None = None,
        rate: Rate | None = None,
    ) -> None:
        self.clock = clock
        self.access = access
        self.registry = registry
        self._verify = verify
        self._rate = rate
        self._sight = Sight()
        self._failed: Limiter[str] = Limiter()
        self._counted: Limiter[str] = Limiter()

    def who(self, caller: str, behalf: str | None = None) -> Principal:
        """Return who counts in a request.

        Raises `NotAllowed` for a suspended identity and for a token that is not taken, `Overloaded` for too many of
        those.
        """
        if behalf is None:
            return self._sight.caller(self.access.current, caller)
        now_ms = self.clock.now_ms()
        after_ms = 0 if self._rate is None else self._failed.after_ms(caller, self._rate, now_ms)
        if after_ms:
            raise Overloaded(f"{caller} has come with too many tokens that are none", retry_after_ms=after_ms)
        try:
            claims = self._claims(behalf, caller)
        except NotAllowed:
            if self._rate is not None:
                self._failed.judge(caller, self._rate, now_ms)
            raise
        return self.access.current.represented(claims)

    def _claims(self, behalf: str, caller: str) -> DelegatedClaims:
        if self._verify is None:
            raise NotAllowed("nobody can ask on behalf of others here: this master verifies no tokens")
        claims = self._verify(behalf, caller)
        if claims.delegate != caller:
            raise NotAllowed("the on-behalf-of token is somebody else's")
        return claims

    def count(self, who: Principal, what: str) -> None:
        """Count what somebody asks for; raises `Overloaded` for more of it than the rate lets in."""
        if self._rate is None:
            return
        after_ms = self._counted.judge(who.name, self._rate, self.clock.now_ms()).retry_after_ms
        if after_ms:
            text = f"{who.name} may {what} {self._rate.count} times in {self._rate.period_ms // 1_000} s"
            raise Overloaded(text, retry_after_ms=after_ms)

    def shown(self, who: Principal) -> RegistryView:
        """Return the registry as somebody sees it; the registry's own view where that is all of it."""
        return self._sight.nodes(self.access.current, who, self.registry.current)

    def is_limited(self, who: Principal) -> bool:
        """Whether rules say what somebody may search."""
        return is_limited(self.access.current, who)

    def may_search(self, who: Principal, node: str) -> bool:
        """Whether somebody may search a node, registered or not."""
        return may_search(self.access.current, who, node)
