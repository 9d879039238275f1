"""The servers' own lists of who is connected to one account, asked for from the system account, page by page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.bus.protocol import Delivery, Subscription, Transport

log = structlog.get_logger("antiphon.identity")

SERVERS = "$SYS.REQ.SERVER.PING.CONNZ"
PAGE = 1_024
"""Connections in one answer of a server."""
QUIET_MS = 150
"""Servers answer in a few milliseconds; nobody knows how many they are."""
WAIT_MS = 2_000
ANSWERS_MAX = 1_000
"""Answers that wait to be read: servers of a cluster; more are dropped."""


class Connection(BaseModel):
    """One connection, as its server lists it."""

    model_config = ConfigDict(extra="ignore")
    cid: int
    authorized_user: Annotated[str, Field(max_length=400)] = ""
    ip: Annotated[str, Field(max_length=200)] = ""


class _Page(BaseModel):
    model_config = ConfigDict(extra="ignore")
    total: int = 0
    offset: int = 0
    connections: list[Connection] = Field(default_factory=list[Connection])


class _Server(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: Annotated[str, Field(max_length=100)]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore")
    server: _Server
    data: _Page = Field(default_factory=_Page)


class Connz:
    """Asks who is connected.

    Args:
        transport: a connection to the system account.
        inbox: where the answers go; nobody else's answers may.
        account: the account whose connections are meant.
    """

    def __init__(self, transport: Transport, inbox: str, account: str) -> None:
        self._transport = transport
        self._inbox = inbox
        self._account = account
        self._answers: asyncio.Queue[bytes] = asyncio.Queue(maxsize=ANSWERS_MAX)
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Listen for answers."""

        async def receive(delivery: Delivery) -> None:
            with contextlib.suppress(asyncio.QueueFull):
                self._answers.put_nowait(delivery.data)

        self._subscription = await self._transport.subscribe(self._inbox, receive)
        await self._transport.flush()

    async def stop(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            await self._subscription.drain()

    async def pages(self) -> AsyncIterator[tuple[str, list[Connection]]]:
        """Yield each page as it comes: the server's id and connections that it has. Raises `NotConnected`."""
        more: list[tuple[str, int]] = [(SERVERS, 0)]
        while more:
            subject, offset = more.pop()
            await self._ask(subject, offset)
            patience_ms = WAIT_MS
            while (answer := await self._answer(patience_ms)) is not None:
                patience_ms = QUIET_MS
                page, server = answer.data, answer.server.id
                yield server, page.connections
                after = page.offset + len(page.connections)
                if page.connections and after < page.total:
                    more.append((f"$SYS.REQ.SERVER.{server}.CONNZ", after))

    async def _ask(self, subject: str, offset: int) -> None:
        while not self._answers.empty():
            self._answers.get_nowait()
        wanted: dict[str, Any] = {"auth": True, "acc": self._account, "limit": PAGE, "offset": offset, "state": 0}
        await self._transport.publish(subject, orjson.dumps(wanted), reply=self._inbox)

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
