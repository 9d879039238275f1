"""What one master knows of the broker without asking each time: what time it has, and whether it has room.

Sagas go by the broker's time alone, so masters whose clocks differ come to the same moves. It is asked for now and
then, and counted on from by the master's own clock. A stream that is full takes no command and no end either, so what
is left shortly before is for the sagas that run.
"""

from __future__ import annotations

from contextlib import suppress

import structlog

from antiphon.actors.saga_book import SagaBook
from antiphon.errors import AntiphonError

log = structlog.get_logger("antiphon.sagas")


class Broker:
    """The broker as one master knows it.

    Args:
        book: the streams.
        look_ms: how often it is asked.
        reserve_permille: of its streams, for sagas that run.
    """

    def __init__(self, book: SagaBook, look_ms: int, reserve_permille: int) -> None:
        self._book = book
        self._clock = book.bus.clock
        self._look_ms = look_ms
        self._fill_permille_max = 1_000 - reserve_permille
        self.has_room = True
        """Whether another saga may begin."""
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
        fill_permille = await self._book.fill_permille()
        has_room = fill_permille < self._fill_permille_max
        if has_room != self.has_room:
            say = log.info if has_room else log.warning
            say("saga.room", has_room=has_room, fill_permille=fill_permille)
        self.has_room = has_room

    async def look_on(self) -> None:
        """Ask it now and then."""
        while True:
            await self._clock.sleep_ms(self._look_ms)
            with suppress(AntiphonError):
                await self.look()
