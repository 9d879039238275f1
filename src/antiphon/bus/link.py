"""One connection to a NATS server, from its first line to its end: it is never made again, `line.py` makes a new one.

nats-py would show the same token for ever when it reconnects, and stays closed for good once a user has expired.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import shuffle
from typing import Any, Final
from urllib.parse import ParseResult

import nats.errors
from nats.aio.client import Client, Srv

from antiphon.bus.protocol import Headers
from antiphon.bus.strict import StrictClient

KNOWN_MAX: Final = 64
"""Servers that others of their cluster have named; they are tried too when a connection is made again."""
FAREWELL_S: Final = 1.0
"""What the server complains of so shortly before the end is the reason for it."""
TRIES_MAX: Final = 2
"""At each server before a connection has failed; who comes again by himself has one try."""


class Way:
    """The connection that a message came over; an answer goes back on it.

    Whoever holds a way keeps its connection open: one that was replaced is closed when the last holder lets go. That
    costs a message nothing, and no path that forgets an answer can forget to count it.
    """

    __slots__ = ("__weakref__", "link")

    def __init__(self, link: Link) -> None:
        self.link = link


@dataclass(slots=True)
class NatsDelivery:
    """One message as it arrived."""

    subject: str
    reply: str
    data: bytes
    headers: Headers | None
    via: Way | None


class Link(StrictClient):
    """One connection.

    Attributes:
        is_live: whether a publish now would leave this process.
        reason: why it has ended.
        way: what its messages hold; None once it takes no more of them.
        own: what the queue groups of its transport's own subscriptions begin with, see `interest.py`.
        expires_ms: when the server will end it, on this process's monotonic clock; None where that is not known.
        opened_s: when it was made, on the loop's clock.
        server_id: which server of its cluster it leads to.
        ended: done when it has ended.
        released: done when nobody holds its way any more, after `let_go`.
    """

    # nats-py's futures name no result
    _resp_map: dict[str, asyncio.Future[Any]]

    def __init__(
        self,
        *,
        needs_tls: bool,
        on_end: Callable[[Link], None],
        known: Sequence[Srv] = (),
        beside: Link | None = None,
        tries: int = TRIES_MAX,
    ) -> None:
        """Prepare; `dial.py` connects.

        Args:
            needs_tls: whether to speak to a server that encrypts and to no other.
            on_end: called when it has ended.
            known: more servers of the same cluster.
            beside: a connection that this one is to replace, preferably on the same server.
            tries: how often each server is tried.
        """
        super().__init__(needs_tls=needs_tls)
        loop = asyncio.get_running_loop()
        self.is_live = False
        self.reason = ""
        self.way: Way | None = Way(self)
        self.own = ""
        self.expires_ms: int | None = None
        self.opened_s = 0.0
        self.server_id = ""
        self.ended: asyncio.Future[None] = loop.create_future()
        self.released: asyncio.Future[None] = loop.create_future()
        self._on_end = on_end
        self._known = known
        self._place: ParseResult | None = None if beside is None else beside.connected_url
        self._tries = tries
        self._said_s = -FAREWELL_S
        self._watched: weakref.ref[Way] | None = None

    def begin(self, own: str, expires_ms: int | None) -> None:
        """Note that it has been let in."""
        self.own = own
        self.expires_ms = expires_ms
        self.opened_s = asyncio.get_running_loop().time()
        self.server_id = str(self._server_info.get("server_id"))
        self.is_live = True

    def let_go(self) -> None:
        """Hold its way no longer; `released` is done as soon as nobody does."""
        loop = asyncio.get_running_loop()
        way, self.way = self.way, None

        def nobody_holds(_: object) -> None:
            with suppress(RuntimeError):  # the last holder went with the loop
                loop.call_soon_threadsafe(self.release)

        self._watched = None if way is None else weakref.ref(way, nobody_holds)

    def release(self) -> None:
        """Have it closed, whoever holds its way."""
        if not self.released.done():
            self.released.set_result(None)

    def requests(self) -> list[asyncio.Future[Any]]:
        """Return the questions of nats-py's own that wait for an answer, e.g. JetStream's."""
        return [asked for asked in self._resp_map.values() if not asked.done()]

    def discovered(self) -> list[Srv]:
        """Return the servers that this one has named, as if they had never been tried."""
        named = [server for server in self._server_pool if server.discovered][:KNOWN_MAX]
        return [replace(one, reconnects=0, last_attempt=None, did_connect=False) for one in named]

    # -- nats-py's hooks

    def _setup_server_pool(self, connect_url: list[str]) -> None:
        super()._setup_server_pool(connect_url)
        places = {server.uri.netloc for server in self._server_pool}
        self._server_pool += [server for server in self._known if server.uri.netloc not in places]
        shuffle(self._server_pool)
        if self._place is not None:
            place = self._place.netloc
            self._server_pool.sort(key=lambda server: server.uri.netloc != place)
        for server in self._server_pool:
            server.reconnects = TRIES_MAX - self._tries

    async def _process_err(self, err_msg: str) -> None:
        self.reason = err_msg.strip("'")
        self._said_s = asyncio.get_running_loop().time()
        await super()._process_err(err_msg)

    async def _process_op_err(self, e: Exception) -> None:
        """End: a lost connection stays lost."""
        self._lost.set()
        if not self.is_closed:
            if asyncio.get_running_loop().time() - self._said_s > FAREWELL_S:
                self.reason = str(e) or type(e).__name__
            self._err = e
            self._forget()
            await self._close(Client.CLOSED)

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        """Say at once that it has ended, before the socket has."""
        if self.is_live:
            self._end()
        await super()._close(status, do_cbs)

    def _end(self) -> None:
        self.is_live = False
        for asked in self.requests():
            asked.set_exception(nats.errors.ConnectionClosedError())
            asked.exception()  # whoever waits is told; where nobody does, that is no news
        self.ended.set_result(None)
        self._on_end(self)
