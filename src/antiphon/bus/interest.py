"""Interest in a subject that outlives its connections: one queue and one task, whatever connection a message came over.

While a connection is replaced, both have the subscription. In a queue group the server gives each message to one of
them, so a subscription without one is given one of its own, which nobody else is in. Those below the own inbox get each
message on both and take it once, because the server tells "no responders" only to a plain subscription of the very
connection that asked. A lost connection is no part of this: the server may keep it for minutes, so the groups of the
next one have another name.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import nats.errors
import structlog

from antiphon.bus import strict
from antiphon.bus.ending import bounded
from antiphon.bus.link import Link, NatsDelivery
from antiphon.bus.protocol import Hand, Headers, Receive, Take
from antiphon.bus.strict import Offer

log = structlog.get_logger("antiphon.bus")

PENDING_MAX: Final = 512 * 1_024
"""Messages of one subscription that wait to be received; more are dropped, as everywhere in NATS."""
PENDING_BYTES_MAX: Final = 128 * 1_024 * 1_024


class Overlap:
    """Takes each message once while two connections bring it; which of them is first does not matter.

    The state is how often a message came on the one more than on the other, so messages that are alike are no trouble.
    """

    def __init__(self, take: Callable[..., None], parts: int) -> None:
        """Begin; a message is its first parts, of which the last are the headers."""
        self._take = take
        self._parts = parts
        self._ahead: dict[tuple[Any, ...], int] = {}

    def old(self, *message: Any) -> None:
        """Offer what came on the connection that is replaced."""
        self._come(message, 1)

    def new(self, *message: Any) -> None:
        """Offer what came on the one that replaces it."""
        self._come(message, -1)

    def _come(self, message: tuple[Any, ...], step: int) -> None:
        *rest, headers = message[: self._parts]
        key = (*rest, tuple(headers.items()) if headers else None)
        ahead = self._ahead.get(key, 0)
        self._ahead[key] = ahead + step
        if ahead * step >= 0:
            self._take(*message)


class NatsSubscription:
    """Interest in a subject; its messages arrive one at a time, and in order except while a connection is replaced."""

    def __init__(  # noqa: D417 - the arguments that are not obvious are described
        self,
        subject: str,
        *,
        receive: Receive | None = None,
        hand: Hand | None = None,
        take: Take | None = None,
        queue: str | None,
        number: int,
        is_inbox: bool,
        dropped: Callable[[str], None],
        drained: Callable[[NatsSubscription], None],
    ) -> None:
        """Begin to receive; `open` brings the messages.

        Args:
            receive: gets the messages from a queue; or else
            hand: gets them as they are read; or else
            take: gets their parts as they are read.
            queue: the queue group; without one it has a group of its own, or none if it is below the own inbox.
            number: unique in its transport.
            dropped: called with the subject when a message was dropped.
            drained: called when no more is wanted.
        """
        self.subject = subject
        self._hand = hand
        self._take = take
        self._offer: Offer = self._queue_up if hand is None else self._hand_over
        self._queue = queue
        self._number = number
        self._is_inbox = is_inbox
        self._dropped = dropped
        self._drained = drained
        self._on: dict[Link, int] = {}
        self._pending: deque[NatsDelivery] = deque()
        self._bytes = 0
        self._wake: asyncio.Future[None] | None = None
        self._emptied: list[asyncio.Future[None]] = []
        self._is_over = False
        self._task: asyncio.Task[None] | None = None
        if receive is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(receive), name=f"bus:{subject}")

    def is_on(self, link: Link) -> bool:
        """Whether it need not be opened there any more."""
        return self._is_over or link in self._on

    async def open(self, link: Link, beside: Link | None = None) -> None:
        """Subscribe on one more connection, for the time being beside another one."""
        if self.is_on(link):
            return
        group = self._queue or ("" if self._is_inbox or not link.own else f"{link.own}.{self._number}")
        take = self._take
        offer: Offer = self._offer
        if beside is not None and beside in self._on and not group:
            if take is not None:
                overlap = Overlap(take, 3)  # subject, payload, headers
                beside.taps[self._on[beside]], take = overlap.old, overlap.new
            else:
                overlap = Overlap(offer, 4)  # and the reply
                beside.offers[self._on[beside]], offer = overlap.old, overlap.new
        self._on[link] = sid = link.expect(take=take, offer=offer)
        await link.listen(sid, self.subject, group)

    async def leave(self, link: Link) -> None:
        """Unsubscribe on a connection; what is on its way there is still taken, until `forget`."""
        if link in self._on:
            await link.leave(self._on[link])

    def forget(self, link: Link) -> None:
        """Have nothing to do with a connection any more; on another one each message comes once from now on."""
        sid = self._on.pop(link, None)
        if sid is not None:
            link.forget(sid)
        for other, one in self._on.items():
            other.expect(one, take=self._take, offer=self._offer)

    async def drain(self) -> None:
        """Take no more, and return when all that had arrived were received; without a connection, at once."""
        self._is_over = True
        self._drained(self)
        is_own = self._task is asyncio.current_task()  # a receiver may drain its own subscription
        try:
            await bounded(self._taken(is_own=is_own), strict.DRAIN_TIMEOUT_S / 2)
        except (nats.errors.Error, OSError) as error:  # a TimeoutError is one, too
            log.info("bus.not_drained", subject=self.subject, error=type(error).__name__)
        finally:
            for link in tuple(self._on):
                self.forget(link)
            if self._task is not None and not is_own:
                self._task.cancel()

    async def _taken(self, *, is_own: bool) -> None:
        """Take no more, and return when all that had arrived were received."""
        links = [link for link in self._on if link.is_live]
        for link in links:
            await self.leave(link)
        for link in links:
            await link.flush(strict.DRAIN_TIMEOUT_S)
        if links and not is_own:
            await self._all_received()

    def _hand_over(self, subject: str, reply: str, data: bytes, headers: Headers | None, link: Link) -> None:
        """Have a message received now; a bug in a receiver loses it, not the connection's reader."""
        assert self._hand is not None, "nothing else is offered here"
        try:
            self._hand(NatsDelivery(subject, reply, data, headers, link.way))
        except Exception:
            log.exception("bus.receiver_bug", subject=subject)

    def _queue_up(self, subject: str, reply: str, data: bytes, headers: Headers | None, link: Link) -> None:
        """Queue a message; a subscriber that is too slow loses it."""
        size = self._bytes + len(data)
        if size > PENDING_BYTES_MAX or len(self._pending) >= PENDING_MAX:
            self._dropped(self.subject)
            return
        self._bytes = size
        self._pending.append(NatsDelivery(subject, reply, data, headers, link.way))
        wake = self._wake
        if wake is not None:
            self._wake = None
            if not wake.done():
                wake.set_result(None)

    async def _all_received(self) -> None:
        """Return when the queue is empty."""
        task = self._task
        if task is None or task.done() or (not self._pending and self._wake):
            return
        emptied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._emptied.append(emptied)
        await emptied

    async def _run(self, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        pending = self._pending
        while True:
            while pending:
                delivery = pending.popleft()
                self._bytes -= len(delivery.data)
                try:
                    await receive(delivery)
                except Exception:
                    # a bug in a receiver loses its message, not the subscription
                    log.exception("bus.receiver_bug", subject=delivery.subject)
                # whoever holds a delivery holds its connection open
                del delivery
            for emptied in self._emptied:
                if not emptied.done():
                    emptied.set_result(None)
            self._emptied.clear()
            if self._is_over and not self._on:
                return
            self._wake = wake = loop.create_future()
            await wake
