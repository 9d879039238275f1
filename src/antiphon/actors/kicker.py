"""The kicker: ends live connections of an identity, on every server of the cluster.

From the system account it asks all servers for the connections of the application's account, page by page, and has each
one kicked by whichever server holds it (`$SYS.REQ.SERVER.<id>.KICK`). A connection is found by its user's label, which
says whose it is and by which credential and token he came in (`decide/login.py`). Orders wait in a bounded queue; one
that cannot be carried out now, because there is no connection, is tried again: somebody who was shut out must not stay
in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass

import orjson
import structlog

from antiphon.actors.audit import Audit
from antiphon.actors.connz import Connection, Connz
from antiphon.bus.protocol import Transport
from antiphon.clock import Clock
from antiphon.decide.login import Labelled
from antiphon.errors import AntiphonError

log = structlog.get_logger("antiphon.identity")

RETRY_MS = 500
ANSWER_MS = 200
"""Time for the answer to whoever ordered it: it may be he who is to be ended, and a revocation is several records."""
ORDERS_MAX = 10_000
"""Identities and credentials that wait to be kicked; of the same one the last order counts."""


@dataclass(frozen=True, slots=True)
class Whom:
    """Whose connections are meant: an identity's, one of its instances', or those by one credential.

    A credential is an API key, an invite, a family, a token, or the key that signed the token, each by its id.
    """

    name: str | None = None
    instance: str | None = None
    credential: str | None = None


class Kicker:
    """Ends connections; a child of the supervisor.

    Args:
        transport: a connection to the system account.
        inbox: where its answers go.
        account: the account whose connections are meant.
        audit: is told of everyone who was kicked.
        clock: the time.
    """

    def __init__(self, transport: Transport, inbox: str, account: str, audit: Audit, clock: Clock) -> None:
        self._transport = transport
        self._inbox = inbox
        self._connz = Connz(transport, f"{inbox}.connz", account)
        self._audit = audit
        self._clock = clock
        self._orders: OrderedDict[Whom, str] = OrderedDict()
        self._ordered = asyncio.Event()
        self._held = 0

    @contextlib.contextmanager
    def held(self) -> Generator[None, None, None]:
        """Carry out nothing meanwhile: an order that is several records is answered before it is carried out."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def kick(self, whom: Whom, why: str) -> None:
        """Order that every connection that is meant be ended."""
        self._orders[whom] = why
        self._orders.move_to_end(whom)
        if len(self._orders) > ORDERS_MAX:
            forgotten = self._orders.popitem(last=False)[0]
            log.error("identity.kick_forgotten", who=forgotten.name or forgotten.credential)
        self._ordered.set()

    async def start(self) -> None:
        """Listen for the servers' answers."""
        await self._connz.start()

    async def run(self) -> None:
        """Carry out orders, for ever."""
        while True:
            await self._ordered.wait()
            while self._held:
                await self._clock.sleep_ms(ANSWER_MS)
            await self._clock.sleep_ms(ANSWER_MS)
            self._ordered.clear()
            await self._carry_out(dict(self._orders))

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Listen no more."""
        del is_crashed
        await self._connz.stop()

    async def _carry_out(self, orders: dict[Whom, str]) -> None:
        is_answered = False
        try:
            async for server, connections in self._connz.pages():
                is_answered = True
                for connection in connections:
                    found = _meant(connection.authorized_user, orders)
                    if found is not None:
                        await self._end(server, connection, orders[found])
        except AntiphonError as error:
            log.warning("identity.not_kicked", code=error.code, orders=len(orders))
            is_answered = False
        if not is_answered:  # this master's own server would, if it were well
            await self._clock.sleep_ms(RETRY_MS)
            self._ordered.set()
            return
        for order, why in orders.items():
            if self._orders.get(order) == why:
                del self._orders[order]

    async def _end(self, server: str, connection: Connection, why: str) -> None:
        await self._transport.publish(
            f"$SYS.REQ.SERVER.{server}.KICK", orjson.dumps({"cid": connection.cid}), reply=f"{self._inbox}.kicked"
        )
        user = Labelled.of(connection.authorized_user)
        assert user is not None, "its label was read to find it"
        self._audit.tell(
            "kicked",
            user.name,
            kind=user.kind,
            instance=user.instance,
            why=why,
            where=connection.ip,
            credential=user.jti or user.source or None,
        )


def _meant(label: str, orders: dict[Whom, str]) -> Whom | None:
    """Return the order that a user's label falls under, if any."""
    user = Labelled.of(label)
    if user is None:
        return None
    could_be = (
        Whom(user.name),
        Whom(user.name, user.instance),
        Whom(credential=user.source or None),
        Whom(credential=user.jti or None),
        Whom(credential=user.kid or None),
    )
    return next((one for one in could_be if one in orders), None)
