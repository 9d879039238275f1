"""A link: what one party sends to another, in order, each message when its time has come.

Order is kept on a link as on a TCP connection: a message that is late makes those behind it late, too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from antiphon.bus.memory import MemoryDelivery

Offer = Callable[[MemoryDelivery], None]


@dataclass(frozen=True, slots=True)
class Parcel:
    """One message on a link, and how late it is."""

    delivery: MemoryDelivery
    delay_ms: float = 0


class Link:
    """What one party sends to another."""

    def __init__(self, seed: str, is_held: Callable[[], bool]) -> None:
        self.dice = Random(seed)  # noqa: S311 - repeatable faults, no secret
        """Of this link alone, so that other traffic does not change what befalls it."""
        self._is_held = is_held
        self._queue: deque[tuple[float, MemoryDelivery, Offer]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def send(self, parcel: Parcel, offer: Offer) -> None:
        """Let a message arrive when it is due, after all that were sent before it."""
        if not self._queue and not parcel.delay_ms and not self._is_held():
            offer(parcel.delivery)
            return
        self._queue.append((asyncio.get_running_loop().time() + parcel.delay_ms / 1_000, parcel.delivery, offer))
        self.pump()

    def pump(self) -> None:
        """Let arrive what is due, and wake up for the rest; while the link is held, nothing is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._queue and not self._is_held():
            due, delivery, offer = self._queue[0]
            if due > loop.time():
                self._timer = loop.call_at(due, self.pump)
                return
            self._queue.popleft()
            offer(delivery)

    def clear(self) -> None:
        """Lose what is on its way."""
        self._queue.clear()
        self.pump()
