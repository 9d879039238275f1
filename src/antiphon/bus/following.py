"""Following a JetStream stream: a durable consumer that several share, pulled by one long question at a time (ADR-13).

A question stays open for `OPEN_S` or until `BATCH` messages have come, then the next is asked; that costs half the time
of asking for each. A message that nobody was done with is delivered again by the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import orjson
import structlog

from antiphon.bus.direct import Connected
from antiphon.bus.protocol import STATUS, Delivery, Follow, Receive, Stored, Subscription
from antiphon.errors import AntiphonError

log = structlog.get_logger("antiphon.bus")

ACK: Final = "$JS.ACK."
TOKENS: Final = 9
TOKENS_BEFORE: Final = 2
SEQUENCE_TOKEN: Final = 5
STAMP_TOKEN: Final = 7
DONE: Final = b"+ACK"
NOTHING_CAME: Final = ("404", "408")
"""How a question ends whose time is over; any other status says that there is nothing to ask."""


class Living(Connected, Protocol):
    """What it needs of the transport that it is over."""

    async def subscribe(self, subject: str, receive: Receive, *, queue: str | None = None) -> Subscription:
        """Receive what is published on a subject."""
        ...

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call whenever a lost connection is back."""


class Follower:
    """One follower of a stream, under a name that others may share."""

    BATCH: Final = 256
    OPEN_S: Final = 10.0
    PATIENCE_S: Final = 2.0
    """Beyond that, a question whose end was not told is taken for lost; and so long nobody is asked who is away."""
    AGAIN_S: Final = 30.0
    """What was delivered and nobody was done with is delivered again after that."""
    PENDING_MAX: Final = 4_096
    """Messages that all who share the name work on at once."""
    TASKS_MAX: Final = 256
    """Messages that this one works on at once."""

    def __init__(self, transport: Living, stream: str, take: Follow, *, name: str, pattern: str, inbox: str) -> None:
        self.name = name
        self.pattern = pattern
        self._transport = transport
        self._ask = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._inbox = inbox
        self._follow = take
        self._room = asyncio.Semaphore(self.TASKS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Event()
        self._left = 0
        self._is_away = False
        """Whether the stream or the consumer is."""
        self._subscription: Subscription | None = None
        self._pulling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask for messages from now on."""
        self._subscription = await self._transport.subscribe(self._inbox, self._receive)
        self._pulling = asyncio.get_running_loop().create_task(self._pull(), name=f"follow:{self.name}")

    def pull_again(self) -> None:
        """Ask anew: the connection that was asked over is gone."""
        self._turn.set()

    async def drain(self) -> None:
        """Take no more, and return when what was begun has ended."""
        if self._pulling is not None:
            self._pulling.cancel()
        if self._subscription is not None:
            await self._subscription.drain()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _pull(self) -> None:
        question = orjson.dumps({"batch": self.BATCH, "expires": int(self.OPEN_S * 1e9)})
        while True:
            self._turn.clear()
            self._left, self._is_away = self.BATCH, False
            open_s = 0.0  # without a connection: when it is back, or a little later
            with suppress(AntiphonError):
                await self._transport.publish(self._ask, question, reply=self._inbox)
                open_s = self.OPEN_S
            await self._turned(open_s + self.PATIENCE_S)
            if self._is_away:
                self._turn.clear()
                await self._turned(self.PATIENCE_S)

    async def _turned(self, patience_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._turn.wait()

    async def _receive(self, delivery: Delivery) -> None:
        if not delivery.reply.startswith(ACK):
            status = (delivery.headers or {}).get(STATUS)
            if status is not None:  # the question has ended
                self._is_away = status not in NOTHING_CAME
                self._turn.set()
            return
        self._left -= 1
        if self._left <= 0:
            self._turn.set()
        await self._room.acquire()
        task = asyncio.get_running_loop().create_task(self._work(delivery), name=f"follow:{self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.release()
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("bus.receiver_bug", subject=self.pattern, exc_info=bug)

    async def _work(self, delivery: Delivery) -> None:
        # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<of the consumer>.<stamp>.<pending>, or with the domain and
        # the account before the stream, and something drawn behind
        tokens = delivery.reply.split(".")
        more = 0 if len(tokens) == TOKENS else TOKENS_BEFORE
        sequence, stamp_ns = int(tokens[SEQUENCE_TOKEN + more]), int(tokens[STAMP_TOKEN + more])
        if await self._follow(Stored(delivery.subject, sequence, delivery.data, stamp_ns // 1_000_000)):
            await self._transport.publish(delivery.reply, DONE)
