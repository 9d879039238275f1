"""The callout: answers the server whenever somebody connects, from the book, without a round trip.

It listens in the account that holds nobody else, in one queue group with those of the other masters, so losing one is
not seen. A credential that is not known is read once more from the bucket, because another master may have made it this
moment; others are answered meanwhile. Everybody who was let in or kept out is told to the audit. Who fails again and
again is refused unseen for a while (`decide/knocks.py`), and who would take the last room is refused, too
(`decide/headcount.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from antiphon.actors.identity import IdentityActor, is_doubtful
from antiphon.bus.protocol import Delivery, Subscription, Transport
from antiphon.bus.seldom import Seldom
from antiphon.clock import Clock
from antiphon.decide.headcount import Headcount, Place
from antiphon.decide.identities import Reason
from antiphon.decide.knocks import Knock, Knocks
from antiphon.decide.login import Login
from antiphon.errors import AntiphonError
from antiphon.identity import opaque
from antiphon.identity.authority import Refusal
from antiphon.identity.callout import AuthRequest, Callout, is_client, possession
from antiphon.identity.server_config import ASK

log = structlog.get_logger("antiphon.identity")

QUEUE = "antiphon-callout"
BLAMELESS = frozenset(
    {Reason.MISSING, Reason.NO_PROOF, Reason.WRONG_CONNECTION, Reason.TOO_OFTEN, Reason.TOO_MANY_CONNECTIONS}
)
"""Reasons that say nothing of a credential: who fails so is not held, for he has proved to be nobody."""
UNREADABLE_MS = 60_000
"""How often one kind of request that cannot be read is logged: whoever causes it must not fill the log."""
LOOKING_MAX = 64
"""Look-ups at once; whoever comes beyond that is judged by the book as it is."""


class CalloutDesk:
    """Answers one server, or all of a cluster; a child of the supervisor.

    Args:
        transport: a connection as the user that may answer authorization requests.
        codec: reads and writes them.
        identity: returns the actor that holds the book now; it may have been restarted.
        clock: the time.
        knocks: who has failed so far.
        heads: who is connected.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Callout,
        identity: Callable[[], IdentityActor],
        clock: Clock,
        *,
        knocks: Knocks | None = None,
        heads: Headcount | None = None,
    ) -> None:
        self._transport = transport
        self._codec = codec
        self._of = identity
        self._clock = clock
        self._knocks = knocks or Knocks()
        self._heads = Headcount() if heads is None else heads  # an empty one is false
        self._subscription: Subscription | None = None
        self._looking: set[asyncio.Task[None]] = set()
        self._unreadable = Seldom()
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
        for looking in tuple(self._looking):
            looking.cancel()

    async def _receive(self, delivery: Delivery) -> None:
        try:
            request = self._codec.open(delivery.data, delivery.headers)
        except AntiphonError as error:
            if times := self._unreadable.due(error.code, self._clock.now_ms(), UNREADABLE_MS):
                log.warning("callout.unreadable", code=error.code, error=error.text, times=times)
            return
        verdict = self._judge(request)
        if self._is_worth_a_look(request, verdict):
            looking = asyncio.get_running_loop().create_task(self._look(request, delivery.reply), name="callout:look")
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)
        else:
            await self._answer(request, verdict, delivery.reply)

    def _is_worth_a_look(self, request: AuthRequest, verdict: Login | Refusal) -> bool:
        return (
            is_doubtful(verdict)
            and len(self._looking) < LOOKING_MAX
            and self._knocks.may_look(request.client.host, self._clock.now_ms())
        )

    async def _look(self, request: AuthRequest, reply: str) -> None:
        await self._identity.freshen(request.connect.auth_token)
        await self._answer(request, self._judge(request), reply)

    def _judge(self, request: AuthRequest) -> Login | Refusal:
        said = request.connect
        name = said.name or "?"
        if not is_client(request):
            return Refusal(Reason.WRONG_CONNECTION, name)
        if (reason := possession(request)) is not None:
            return Refusal(reason, name)
        if self._knocks.is_held(_knock(request), self._clock.now_ms()):
            return Refusal(Reason.TOO_OFTEN, name)
        try:
            return self._identity.authority.admit(said.auth_token, said.nkey, self._clock.wall_ms())
        except AntiphonError as error:  # a name that no identity may have, or no signing keys yet
            log.warning("callout.not_judged", code=error.code, error=error.text)
            return Refusal(Reason.MALFORMED, name)

    async def _answer(self, request: AuthRequest, verdict: Login | Refusal, reply: str) -> None:
        if isinstance(verdict, Login) and not self._has_room(request, verdict):
            verdict = Refusal(Reason.TOO_MANY_CONNECTIONS, verdict.name, verdict.jti or verdict.source)
        self.answered += 1
        wall_ms = self._clock.wall_ms()
        if isinstance(verdict, Refusal):
            await self._transport.publish(reply, self._codec.refuse(request, verdict.reason, wall_ms))
            self._refused(request, verdict)
            return
        await self._transport.publish(reply, self._codec.admit(request, verdict, wall_ms))
        self._knocks.came_in(_knock(request))
        untold = self._knocks.told(f"{verdict.name} {request.client.host}", self._clock.now_ms())
        if untold is None:  # who comes and goes without end fills no audit, either
            return
        where = _where(request)
        self._identity.audit.tell(
            "connected",
            verdict.name,
            kind=verdict.kind,
            instance=verdict.instance,
            where=f"{untold} more times, {where}" if untold else where,
            credential=verdict.jti or verdict.source,
        )

    def _has_room(self, request: AuthRequest, login: Login) -> bool:
        place = Place(request.server.id, request.client.id)
        return self._heads.admit(place, login.kind, login.name, self._clock.now_ms())

    def _refused(self, request: AuthRequest, refusal: Refusal) -> None:
        if refusal.writes:
            self._identity.revoke_reused(refusal, lambda: self._judge(request))
        now_ms, audit = self._clock.now_ms(), self._identity.audit
        if refusal.reason not in BLAMELESS:
            self._knocks.failed(_knock(request), now_ms)
        untold = self._knocks.told(request.client.host, now_ms)
        if untold is None:
            return
        if untold:
            audit.tell("refused", "?", why=Reason.TOO_OFTEN, where=f"{untold} more times, {request.client.host}")
        name = refusal.who if refusal.who != "?" else request.connect.name or "?"
        audit.tell("refused", name, why=refusal.reason, where=_where(request), credential=refusal.credential or None)


def _knock(request: AuthRequest) -> Knock:
    """Return who knocks, once he has proved that the key is his."""
    found = opaque.parse(request.connect.auth_token)
    return Knock(request.client.host, found.id if found else request.connect.nkey, request.connect.nkey)


def _where(request: AuthRequest) -> str:
    return f"{request.client.host} at {request.server.name or request.server.id}"
