"""The census: keeps the headcount true by the servers' own reports of who came and went, and by their lists.

Every server tells the system account of each connection (`$SYS.ACCOUNT.<account>.CONNECT` and `.DISCONNECT`), with the
label that the callout gave it. Once a minute all are listed, for what was not heard: while this master was not
connected, or from a server that died.
"""

from __future__ import annotations

from typing import Annotated

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.actors.audit import Audit
from antiphon.actors.connz import Connz
from antiphon.bus.protocol import Delivery, Subscription, Transport
from antiphon.clock import Clock
from antiphon.decide.doubles import Doubles
from antiphon.decide.headcount import Headcount, Place
from antiphon.decide.login import Labelled
from antiphon.errors import AntiphonError
from antiphon.messages.base import Kind

log = structlog.get_logger("antiphon.identity")

LIST_MS = 60_000
"""How often all connections are listed; 20,000 are 20 pages."""
RETRY_MS = 5_000


class _Server(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: Annotated[str, Field(max_length=100)]


class _Client(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: int
    user: Annotated[str, Field(max_length=400)] = ""


class _Report(BaseModel):
    model_config = ConfigDict(extra="ignore")
    server: _Server
    client: _Client


class Census:
    """Counts; a child of the supervisor.

    Args:
        transport: a connection to the system account.
        inbox: where the servers' lists go.
        account: the account whose connections are counted.
        heads: what is kept true.
        clock: the time.
        audit: is told of instances that two connections have.
    """

    def __init__(
        self, transport: Transport, inbox: str, account: str, heads: Headcount, clock: Clock, *, audit: Audit
    ) -> None:
        self._transport = transport
        self._account = account
        self._heads = heads
        self._clock = clock
        self._audit = audit
        self._doubles = Doubles()
        self._connz = Connz(transport, f"{inbox}.census", account)
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Hear who comes and goes from now on; the first list is asked for later, for it may take its time."""
        await self._connz.start()
        for what, hear in (("CONNECT", self._came), ("DISCONNECT", self._went)):
            subject = f"$SYS.ACCOUNT.{self._account}.{what}"
            self._subscriptions.append(await self._transport.subscribe(subject, hear))
        await self._transport.flush()

    async def run(self) -> None:
        """List everybody now and then, for ever."""
        while True:
            try:
                await self.list_all()
            except AntiphonError as error:
                log.info("identity.not_listed", code=error.code)
                await self._clock.sleep_ms(RETRY_MS)
            else:
                await self._clock.sleep_ms(LIST_MS)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Hear no more."""
        del is_crashed
        for subscription in self._subscriptions:
            await subscription.drain()
        await self._connz.stop()

    async def list_all(self) -> None:
        """Compare the count with what the servers list."""
        began_ms = self._clock.now_ms()
        listed: dict[Place, str] = {}
        instances: dict[Place, tuple[str, str]] = {}
        async for server, connections in self._connz.pages():
            listed.update({Place(server, one.cid): _name(one.authorized_user) for one in connections})
            for one in connections:
                user = Labelled.of(one.authorized_user)
                if user is not None and user.instance is not None and user.jti:  # else it only asks for a token
                    instances[Place(server, one.cid)] = (user.name, user.instance)
        if listed:  # this master's own connections are in every list: without them nobody has answered
            self._heads.compare(listed, began_ms)
            for name, instance in self._doubles.look(instances):
                self._audit.tell("doubled", name, kind=Kind.NODE, instance=instance, why="two connections")

    async def _came(self, delivery: Delivery) -> None:
        report = _read(delivery)
        if report is not None:
            place = Place(report.server.id, report.client.id)
            self._heads.came(place, _name(report.client.user), self._clock.now_ms())

    async def _went(self, delivery: Delivery) -> None:
        report = _read(delivery)
        if report is not None:
            self._heads.went(Place(report.server.id, report.client.id))


def _read(delivery: Delivery) -> _Report | None:
    try:
        return _Report.model_validate_json(delivery.data)
    except ValidationError as error:
        log.warning("identity.report_unreadable", errors=error.error_count())
        return None


def _name(label: str) -> str:
    """Return whose connection it is; masters' own come in by their key and have no label."""
    user = Labelled.of(label)
    return user.name if user else ""
