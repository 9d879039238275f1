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
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.actors.audit import Audit
from antiphon.bus.protocol import Delivery, Subscription, Transport
from antiphon.clock import Clock
from antiphon.decide.login import Labelled
from antiphon.errors import AntiphonError

log = structlog.get_logger("antiphon.identity")

SERVERS = "$SYS.REQ.SERVER.PING.CONNZ"
PAGE = 1_024
"""Connections in one answer of a server."""
QUIET_MS = 150
"""Servers answer in a few milliseconds; nobody knows how many they are."""
WAIT_MS = 2_000
RETRY_MS = 500
ORDERS_MAX = 10_000
"""Identities and credentials that wait to be kicked; of the same one the last order counts."""


@dataclass(frozen=True, slots=True)
class Whom:
    """Whose connections are meant: an identity's, one of its instances', or those by one credential or token."""

    name: str | None = None
    instance: str | None = None
    credential: str | None = None


class _Connection(BaseModel):
    model_config = ConfigDict(extra="ignore")
    cid: int
    authorized_user: Annotated[str, Field(max_length=400)] = ""
    ip: Annotated[str, Field(max_length=200)] = ""


class _Page(BaseModel):
    model_config = ConfigDict(extra="ignore")
    total: int = 0
    offset: int = 0
    connections: list[_Connection] = Field(default_factory=list[_Connection])


class _Server(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: Annotated[str, Field(max_length=100)]
    name: Annotated[str, Field(max_length=200)] = ""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    server: _Server
    data: _Page = Field(default_factory=_Page)


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
        self._account = account
        self._audit = audit
        self._clock = clock
        self._orders: OrderedDict[Whom, str] = OrderedDict()
        self._ordered = asyncio.Event()
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1_000)
        self._subscription: Subscription | None = None

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

        async def receive(delivery: Delivery) -> None:
            with contextlib.suppress(asyncio.QueueFull):
                self._answers.put_nowait(delivery.data)

        self._subscription = await self._transport.subscribe(f"{self._inbox}.connz", receive)
        await self._transport.flush()

    async def run(self) -> None:
        """Carry out orders, for ever."""
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            await self._carry_out(dict(self._orders))

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Listen no more."""
        del is_crashed
        if self._subscription is not None:
            await self._subscription.drain()

    async def _carry_out(self, orders: dict[Whom, str]) -> None:
        try:
            more: list[tuple[str, int]] = [(SERVERS, 0)]
            while more:
                more += await self._page(*more.pop(), orders)
        except AntiphonError as error:
            log.warning("identity.not_kicked", code=error.code, orders=len(orders))
            await self._clock.sleep_ms(RETRY_MS)
            self._ordered.set()
            return
        for order, why in orders.items():
            if self._orders.get(order) == why:
                del self._orders[order]

    async def _page(self, subject: str, offset: int, orders: dict[Whom, str]) -> list[tuple[str, int]]:
        """Kick whoever is meant on one page of each server that answers, at once; return what is to be asked next."""
        while not self._answers.empty():
            self._answers.get_nowait()
        wanted: dict[str, Any] = {"auth": True, "acc": self._account, "limit": PAGE, "offset": offset, "state": 0}
        await self._transport.publish(subject, orjson.dumps(wanted), reply=f"{self._inbox}.connz")
        more: list[tuple[str, int]] = []
        patience_ms = WAIT_MS
        while (answer := await self._answer(patience_ms)) is not None:
            patience_ms = QUIET_MS
            page = answer.data
            for connection in page.connections:
                found = _meant(connection.authorized_user, orders)
                if found is not None:
                    await self._end(answer.server.id, connection, orders[found])
            after = page.offset + len(page.connections)
            if page.connections and after < page.total:
                more.append((f"$SYS.REQ.SERVER.{answer.server.id}.CONNZ", after))
        return more

    async def _answer(self, patience_ms: int) -> _Answer | None:
        """Return the next readable answer, None when there is none in time."""
        while True:
            try:
                data = await asyncio.wait_for(self._answers.get(), patience_ms / 1_000)
            except TimeoutError:
                return None
            try:
                return _Answer.model_validate_json(data)
            except ValidationError as error:
                log.warning("identity.connz_unreadable", errors=error.error_count())

    async def _end(self, server: str, connection: _Connection, why: str) -> None:
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
    )
    return next((one for one in could_be if one in orders), None)
