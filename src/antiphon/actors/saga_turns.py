"""Who is at a saga now, and who waits for its end, in one master; nothing is kept of a saga where there is nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Turns:
    """One event of a saga is handled at a time; of different sagas many are."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def of(self, saga: str) -> AsyncGenerator[None, None]:
        """Have the saga to oneself."""
        lock, count = self._locks.get(saga, (asyncio.Lock(), 0))
        self._locks[saga] = (lock, count + 1)
        try:
            async with lock:
                yield
        finally:
            _, count = self._locks[saga]
            if count == 1:
                del self._locks[saga]
            else:
                self._locks[saga] = (lock, count - 1)


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
