"""What one master knows of the broker without asking each time: what time it has.

Sagas go by the broker's time alone, so masters whose clocks differ come to the same moves. It is asked for now and
then, and counted on from by the master's own clock.
"""

from __future__ import annotations

from contextlib import suppress

from antiphon.actors.saga_book import SagaBook
from antiphon.errors import AntiphonError


class Broker:
    """The broker as one master knows it.

    Args:
        book: the streams.
        look_ms: how often it is asked.
    """

    def __init__(self, book: SagaBook, look_ms: int) -> None:
        self._book = book
        self._clock = book.bus.clock
        self._look_ms = look_ms
        self._ahead_ms = 0
        """How far its clock is ahead of this master's."""

    def now_ms(self) -> int:
        """Return its time, as far as this master can tell."""
        return self._clock.wall_ms() + self._ahead_ms

    async def look(self) -> None:
        """Ask it; raises `NotConnected`."""
        before_ms = self._clock.wall_ms()
        broker_ms = await self._book.now_ms()
        self._ahead_ms = broker_ms - (before_ms + self._clock.wall_ms()) // 2

    async def look_on(self) -> None:
        """Ask it now and then."""
        while True:
            await self._clock.sleep_ms(self._look_ms)
            with suppress(AntiphonError):
                await self.look()
