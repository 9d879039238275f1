"""One connection after another: made, replaced before its token expires, and made again when it is lost.

Before it is replaced, both connections have every subscription for some milliseconds; then the old one takes no more
and stays open only for the answers to what came over it (make before break). A lost one is made again for ever.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import random
from typing import Any, Final

import nats.errors
import structlog
from nats.aio.client import Srv

from antiphon.bus import dial
from antiphon.bus.buckets import NatsWatch
from antiphon.bus.ending import bounded, ended
from antiphon.bus.endpoint import Endpoint
from antiphon.bus.interest import NatsSubscription
from antiphon.bus.link import TRIES_MAX, Link
from antiphon.bus.protocol import Login, Logins
from antiphon.decide.retry import RetryBounds, full_jitter_ms
from antiphon.errors import AntiphonError, NotAuthenticated, NotConnected

log = structlog.get_logger("antiphon.bus")

ANSWERS_MS = 600_000
"""How long a connection that was replaced stays for answers: the longest time that the server lets anybody answer."""
REPLACED_MAX = 16
"""More connections that were replaced close the oldest one; its answers are tried on the current one."""
EXPIRY_MARGIN_MS: Final = 1_000
"""A replaced connection is closed so long before its token expires: what is sent later is lost with it."""
ANSWERS_MS_MIN: Final = 500
"""It stays so long all the same: whoever is answering now can answer on no other, and the server may be a bit later."""
HEALING = RetryBounds(base_ms=200, cap_ms=10_000)
"""Waits between attempts to make a lost connection again where we were refused: drawn, for others were refused too."""
WAIT_MS_MAX: Final = 60_000
"""However late somebody who refuses a login wants us back."""
STEADY_S: Final = 5.0
"""A connection that lived for less counts as one more attempt: a server may take us only to end us again."""
SPREAD_S: Final = 0.5
"""What a server of a cluster is subscribed to has reached the others by then; there is no event for it."""
REASONS_MAX: Final = 16
"""Reasons that are logged for one loss; some have a number in them."""


@dataclass(frozen=True, slots=True)
class Party:
    """Who connects, where, and with what.

    Attributes:
        endpoint: where, and what to show there unless there are logins.
        name: the connection's name on the server.
        inbox: the prefix of its private subjects; the last token is this session's own.
        logins: what to show, asked for at each connection.
    """

    endpoint: Endpoint
    name: str
    inbox: str
    logins: Logins | None = None


class Line:
    """The connections of one party, of which one is the current one.

    Attributes:
        link: the current connection, or the one that was lost last.
        subscriptions: what every connection has, in the order in which it was wanted.
        watches: the running watches, which begin again on every new connection.
        reconnected: called when a lost connection is back.
        losses: how often it was lost.
        renewals: how often it was replaced.
        reason: why there is none, where somebody has said so.
        is_token: whether the login ends, so that the connection has to be replaced.
        is_closing: whether there will be no other.
    """

    link: Link

    def __init__(self, party: Party, errored: Callable[[Exception], Awaitable[None]]) -> None:
        self._party = party
        self._calls = dial.Calls(errored=errored, ended=self._ended)
        self.subscriptions: dict[NatsSubscription, None] = {}
        self.watches: set[NatsWatch] = set()
        self.reconnected: list[Callable[[], None]] = []
        self.losses = 0
        self.renewals = 0
        self.reason: str | None = None
        self.is_token = False
        self.is_closing = False
        self._changing = asyncio.Lock()
        self._changes: set[asyncio.Task[None]] = set()
        self._known: list[Srv] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._replaced: dict[Link, asyncio.Task[None]] = {}
        self._is_healing = False
        self._attempts = 0
        self._told: set[str] = set()

    async def begin(self) -> None:
        """Make the first connection; raises what `dial` and the source of logins raise."""
        self.link = await self._dial(None, TRIES_MAX)

    def lost(self) -> NotConnected:
        """Return the error of having no connection."""
        if self.is_closing:
            return NotConnected("the connection to the NATS server is closed")
        why = f": {self.reason}" if self.reason else ""
        return NotConnected(f"the connection to the NATS server is lost; it is being tried again{why}")

    async def renew(self) -> None:
        """Replace the connection, see `NatsTransport.renew`."""
        if self.is_closing:
            raise self.lost()
        renewing = _begin(self._renew(), self._changes)
        try:
            await renewing
        except asyncio.CancelledError:
            if renewing.cancelled() and self._is_given_up():
                raise NotConnected("the connection was closed while it was renewed") from None
            raise

    def _is_given_up(self) -> bool:
        return self.is_closing

    async def _renew(self) -> None:
        async with self._changing:
            old = self.link
            new = await self._make(old if old.is_live else None)
            self.renewals += 1
            self._switch(new)
            await self._part(old, new)

    async def close(self) -> None:
        """Drain every subscription, send what is left, and disconnect; a change that is under way is given up."""
        self.is_closing = True
        for watch in tuple(self.watches):
            await watch.stop()
        await ended(*self._changes)
        await asyncio.gather(*(subscription.drain() for subscription in tuple(self.subscriptions)))
        await asyncio.gather(*self._leaving)
        for link in self._replaced:
            link.release()
        await asyncio.gather(*self._replaced.values(), self.link.end())

    # -- a new one

    async def _make(self, beside: Link | None, tries: int = TRIES_MAX) -> Link:
        """Make a connection that has every subscription; beside another one, or after one was lost."""
        link = await self._dial(beside, tries)
        try:
            await self._bring(link, beside)
        except BaseException as error:
            await self._part(link, beside)  # it may have got messages already
            if isinstance(error, (nats.errors.Error, OSError)):
                raise NotConnected(f"the new connection was lost at once: {type(error).__name__}") from error
            raise
        return link

    async def _dial(self, beside: Link | None, tries: int) -> Link:
        logins = self._party.logins
        if logins is None:
            return await self._dial_with(None, beside, tries)
        login = await logins.login()
        try:
            return await self._dial_with(login, beside, tries)
        except NotAuthenticated:
            # a token from a file may have been revoked since; what it was bought with may still be good
            logins.refused()
            other = await logins.login()
            if other == login:
                raise
            return await self._dial_with(other, beside, tries)

    async def _dial_with(self, login: Login | None, beside: Link | None, tries: int) -> Link:
        party = self._party
        is_token = login is not None and login.token is not None
        link = await dial.dial(
            party.endpoint,
            login,
            name=party.name,
            inbox=party.inbox,
            own=self._own(beside) if is_token else "",
            calls=self._calls,
            known=self._known,
            beside=beside,
            tries=1 if is_token else tries,
        )
        self.is_token = is_token
        self._known = link.discovered() or self._known
        return link

    def _own(self, beside: Link | None) -> str:
        """Return another name after a loss: what the server may still keep of that must get none of our messages."""
        session = self._party.inbox.rpartition(".")[2]
        return f"{session}.{secrets.token_hex(4)}" if beside is None else beside.own

    async def _bring(self, link: Link, beside: Link | None) -> None:
        """Make every subscription on a new connection, also those that come up meanwhile."""
        is_elsewhere = beside is not None and beside.server_id != link.server_id
        while missing := [one for one in self.subscriptions if not one.is_on(link)]:
            for subscription in missing:
                await subscription.open(link, beside)
            await link.flush(dial.CONNECT_TIMEOUT_S)
            if is_elsewhere:
                await asyncio.sleep(SPREAD_S)
        if self.is_closing or not link.is_live:
            raise nats.errors.ConnectionClosedError

    def _switch(self, link: Link) -> None:
        """Use a connection that has every subscription."""
        was_lost = not self.link.is_live
        self.link = link
        self.reason = None
        for watch in tuple(self.watches):
            watch.begin_again()
        if was_lost:
            self._told.clear()
            log.info("bus.reconnected", server=str(link.connected_server_version))
            for call in self.reconnected:
                call()

    # -- the old one

    async def _part(self, old: Link, other: Link | None) -> None:
        """Leave a connection, in a task of its own: whoever cancels us must not leave it with every subscription."""
        await asyncio.wait({_begin(self._leave(old, other), self._leaving)})

    async def _leave(self, old: Link, other: Link | None) -> None:
        """Take what is still on its way on a connection, and no more; then let somebody see it off."""
        try:
            await bounded(self._taken(old, other), dial.CONNECT_TIMEOUT_S)
        except (nats.errors.Error, OSError) as error:
            log.info("bus.not_drained", error=type(error).__name__)
        for subscription in tuple(self.subscriptions):
            subscription.forget(old)
        self._replaced[old] = asyncio.get_running_loop().create_task(self._see_off(old), name="bus:see_off")
        for link in tuple(self._replaced)[:-REPLACED_MAX]:
            link.release()

    async def _taken(self, old: Link, other: Link | None) -> None:
        for subscription in tuple(self.subscriptions):
            await subscription.leave(old)
        await old.flush(dial.CONNECT_TIMEOUT_S)
        if other is not None:
            await other.flush(dial.CONNECT_TIMEOUT_S)  # what came on both has arrived on both now

    async def _see_off(self, link: Link) -> None:
        """Close a replaced connection when what came over it is answered, has no reader any more, or its token ends."""
        left_ms = ANSWERS_MS
        if link.expires_ms is not None:
            now_ms = round(asyncio.get_running_loop().time() * 1_000)
            left_ms = min(left_ms, max(link.expires_ms - EXPIRY_MARGIN_MS - now_ms, ANSWERS_MS_MIN))
        if asked := link.requests():
            await asyncio.wait(asked, timeout=dial.CONNECT_TIMEOUT_S)
        link.let_go()
        done, _ = await asyncio.wait(
            {link.released, link.ended}, timeout=max(left_ms, 0) / 1_000, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            log.warning("bus.answers_cut", after_ms=left_ms)
        await link.end()
        self._replaced.pop(link, None)

    # -- a lost one

    def _ended(self, link: Link) -> None:
        """Begin to make a lost connection again."""
        if link is not self.link or self.is_closing:
            return
        self.losses += 1
        self.reason = link.reason
        log.warning("bus.disconnected", reason=self.reason)
        if asyncio.get_running_loop().time() - link.opened_s >= STEADY_S:
            self._attempts = 0
        if not self._is_healing:
            self._is_healing = True
            _begin(self._heal(), self._changes)

    async def _heal(self) -> None:
        wait_ms = self._wait_ms() if self._attempts else 0
        try:
            while not self.link.is_live:
                await asyncio.sleep(wait_ms / 1_000)
                async with self._changing:
                    if not self.link.is_live:
                        self._attempts += 1
                        wait_ms = await self._attempt()
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    # `wait_for` of Python 3.11, which nats-py connects with, may lose it where both happen at once
                    raise asyncio.CancelledError
        finally:
            self._is_healing = False

    async def _attempt(self) -> int:
        """Make the connection again, or return how long to wait before the next attempt."""
        try:
            self._switch(await self._make(None, tries=1))
        except AntiphonError as error:
            return self._refused(error.code, error.text, error.retry_after_ms)
        except Exception as error:  # noqa: BLE001 - in a source of logins; it must not leave us without a connection
            return self._refused(type(error).__name__, str(error), is_bug=not isinstance(error, OSError))
        return 0

    def _refused(self, code: str, text: str, retry_after_ms: int | None = None, *, is_bug: bool = False) -> int:
        """Note why there is no connection, once for each reason and not once for each attempt."""
        self.reason = text
        if text not in self._told and len(self._told) < REASONS_MAX:
            self._told.add(text)
            log.warning("bus.not_healed", code=code, error=text, exc_info=is_bug)
        if retry_after_ms is None:
            return self._wait_ms()
        return max(dial.ABSENT_WAIT_MS, min(retry_after_ms, WAIT_MS_MAX))

    def _wait_ms(self) -> int:
        return full_jitter_ms(self._attempts, HEALING, random())  # noqa: S311 - a wait is no secret


def _begin(work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(work)
    among.add(task)
    task.add_done_callback(among.discard)
    return task
