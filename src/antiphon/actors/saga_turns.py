"""Who is at a saga now, and who waits for its end, in one master; nothing is kept of a saga where there is nobody."""

from __future__ import annotations

import asyncio


class Turns:
    """One event of a saga is handled at a time; of different sagas many are."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    def of(self, saga: str) -> Turn:
        """Return the turn at a saga, to be waited for with `async with`: then it is one's own."""
        turn = self._turns.get(saga)
        if turn is None:
            turn = self._turns[saga] = Turn(self._turns, saga)
        turn.count += 1
        return turn


class Turn:
    """The turn at one saga, of whoever is at it and who waits; cheap, for it is taken at every event of every saga."""

    __slots__ = ("_lock", "_saga", "_turns", "count")

    def __init__(self, turns: dict[str, Turn], saga: str) -> None:
        self._turns = turns
        self._saga = saga
        self._lock = asyncio.Lock()
        self.count = 0
        """Who is at it or waits."""

    async def __aenter__(self) -> None:
        """Wait for one's turn."""
        try:
            await self._lock.acquire()
        except BaseException:
            self._gone()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Let the next one."""
        self._lock.release()
        self._gone()

    def _gone(self) -> None:
        self.count -= 1
        if self.count == 0:
            del self._turns[self._saga]


class Waiters:
    """Whoever waits for the end of a saga."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def __contains__(self, saga: str) -> bool:
        return saga in self._waiting

    async def wait(self, saga: str, wait_ms: int) -> None:
        """Return when the saga has ended here, or after so long."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(saga, set()).add(woken)
        try:
            async with asyncio.timeout(max(0, wait_ms) / 1_000):
                await woken
        except TimeoutError:
            pass
        finally:
            self._waiting[saga].discard(woken)
            if not self._waiting[saga]:
                del self._waiting[saga]

    def wake(self, saga: str) -> None:
        """Tell whoever waits."""
        for woken in self._waiting.get(saga, ()):
            if not woken.done():
                woken.set_result(None)

    def wake_all(self) -> None:
        """Tell whoever waits for the end of any saga."""
        for saga in tuple(self._waiting):
            self.wake(saga)
