"""The callout: answers the server whenever somebody connects, from the book, without a round trip.

It listens in the account that holds nobody else, in one queue group with those of the other masters, so losing one is
not seen. A credential that is not known is read once more from the bucket, because another master may have made it this
moment. Everybody who was let in or kept out is told to the audit; someone who is refused again and again with the same
credential from the same place is refused unseen for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from antiphon.actors.identity import IdentityActor
from antiphon.bus.protocol import Delivery, Subscription, Transport
from antiphon.clock import Clock
from antiphon.decide.identities import Reason
from antiphon.decide.login import Login
from antiphon.errors import AntiphonError
from antiphon.identity import opaque
from antiphon.identity.authority import Refusal
from antiphon.identity.callout import AuthRequest, Callout, possession
from antiphon.identity.server_config import ASK

log = structlog.get_logger("antiphon.identity")

QUEUE = "antiphon-callout"
UNKNOWN = frozenset({Reason.UNKNOWN_CREDENTIAL, Reason.UNKNOWN_IDENTITY, Reason.UNKNOWN_KEY_ID, Reason.REVOKED_FAMILY})
"""Reasons that a newer book may not give."""


class CalloutDesk:
    """Answers one server, or all of a cluster; a child of the supervisor.

    Args:
        transport: a connection as the user that may answer authorization requests.
        codec: reads and writes them.
        identity: returns the actor that holds the book now; it may have been restarted.
        clock: the time.
    """

    def __init__(
        self, transport: Transport, codec: Callout, identity: Callable[[], IdentityActor], clock: Clock
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._of = identity
        self._clock = clock
        self._subscription: Subscription | None = None
        self._held: dict[tuple[str, str], int] = {}
        """(place, credential) -> until when it is refused unseen, in milliseconds of the clock."""
        self.answered = 0

    @property
    def _identity(self) -> IdentityActor:
        return self._of()

    async def start(self) -> None:
        """Answer from now on."""
        self._subscription = await self._transport.subscribe(ASK, self._receive, queue=QUEUE)
        await self._transport.flush()

    async def run(self) -> None:
        """Have nothing to do besides."""
        await asyncio.Event().wait()

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Answer no more; another master's callout goes on."""
        del is_crashed
        if self._subscription is not None:
            await self._subscription.drain()

    async def _receive(self, delivery: Delivery) -> None:
        try:
            request = self._codec.open(delivery.data, delivery.headers)
        except AntiphonError as error:
            log.warning("callout.unreadable", code=error.code, error=error.text)
            return
        wall_ms = self._clock.wall_ms()
        verdict = await self._judge(request, wall_ms)
        self.answered += 1
        if isinstance(verdict, Refusal):
            await self._transport.publish(delivery.reply, self._codec.refuse(request, verdict.reason, wall_ms))
            return
        await self._transport.publish(delivery.reply, self._codec.admit(request, verdict, wall_ms))
        self._identity.audit.tell(
            "connected", verdict.name, kind=verdict.kind, instance=verdict.instance, where=_where(request)
        )

    async def _judge(self, request: AuthRequest, wall_ms: int) -> Login | Refusal:
        reason = possession(request)
        said = request.connect
        if reason is not None:
            return self._refused(Refusal(reason, said.name or "?"), request)
        found = opaque.parse(said.auth_token)
        which = (request.client.host, found.id if found else said.nkey)
        if self._held.get(which, 0) > self._clock.now_ms():
            return Refusal(Reason.TOO_OFTEN, said.name or "?")
        verdict = self._identity.authority.admit(said.auth_token, said.nkey, wall_ms)
        if isinstance(verdict, Refusal) and verdict.reason in UNKNOWN:
            await self._identity.freshen(said.auth_token)
            verdict = self._identity.authority.admit(said.auth_token, said.nkey, wall_ms)
        if isinstance(verdict, Refusal):
            if verdict.writes:
                self._identity.revoke_reused(verdict)
            return self._refused(verdict, request, which)
        return verdict

    def _refused(self, refusal: Refusal, request: AuthRequest, which: tuple[str, str] | None = None) -> Refusal:
        name = refusal.who if refusal.who != "?" else request.connect.name or "?"
        self._identity.audit.tell(
            "refused", name, why=refusal.reason, where=_where(request), credential=refusal.credential or None
        )
        which = which or (request.client.host, request.connect.nkey)
        after_ms = self._identity.failed(*which)
        now_ms = self._clock.now_ms()
        if after_ms:
            self._held = {one: until for one, until in self._held.items() if until > now_ms}
            self._held[which] = now_ms + after_ms
        return refusal


def _where(request: AuthRequest) -> str:
    return f"{request.client.host} at {request.server.name or request.server.id}"
