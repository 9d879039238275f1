"""Time, as integer milliseconds, read from the running event loop.

Decisions take the time as an argument; actors ask a `Clock`. Because the clock is the loop's own, a test that
runs on `antiphon.testing.VirtualLoop` gets virtual time everywhere at once: timers, sleeps and deadlines.
Monotonic time never crosses machines; budgets (milliseconds left) do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A scheduled call that can be taken back."""

    def cancel(self) -> None:
        """Take the call back; harmless when it has already happened."""


class Clock(Protocol):
    """What actors know of time."""

    def now_ms(self) -> int:
        """Return monotonic milliseconds; only differences mean anything."""
        ...

    def now_us(self) -> int:
        """Return monotonic microseconds, for latencies."""
        ...

    def wall_ms(self) -> int:
        """Return milliseconds since 1970 in UTC, for people and records; never for deadlines."""
        ...

    def call_after(self, delay_ms: int, call: Callable[[], None]) -> Timer:
        """Call once after `delay_ms`."""
        ...

    async def sleep_ms(self, delay_ms: int) -> None:
        """Sleep."""
        ...


class LoopClock:
    """The clock of the running event loop: real on a real loop, virtual on a virtual one; one loop for each clock."""

    def __init__(self) -> None:
        self._time: Callable[[], float] | None = None

    def now_ms(self) -> int:
        """Return the loop's time in milliseconds."""
        time_s = self._time
        if time_s is None:  # asked once: finding the running loop is a system call, and this is asked 30 times a search
            time_s = self._time = asyncio.get_running_loop().time
        # rounded: 2.042 times 1,000 is 2041.9999999999998, and no timer may fire in the millisecond before it is due
        return round(time_s() * 1_000)

    def now_us(self) -> int:
        """Return monotonic microseconds; not the loop's time, which uvloop keeps in whole milliseconds."""
        return time.perf_counter_ns() // 1_000

    def wall_ms(self) -> int:
        """Return milliseconds since 1970 in UTC."""
        return time.time_ns() // 1_000_000

    def call_after(self, delay_ms: int, call: Callable[[], None]) -> Timer:
        """Call once after `delay_ms` on the running loop."""
        return asyncio.get_running_loop().call_later(delay_ms / 1_000, call)

    async def sleep_ms(self, delay_ms: int) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(delay_ms / 1_000)


class VirtualClock(LoopClock):
    """The clock of a loop in virtual time: latencies and dates follow the loop too, so runs repeat exactly."""

    def __init__(self, epoch_ms: int = 1_750_000_000_000) -> None:
        super().__init__()
        self._epoch_ms = epoch_ms

    def now_us(self) -> int:
        """Return the loop's time in microseconds."""
        return round(asyncio.get_running_loop().time() * 1_000_000)

    def wall_ms(self) -> int:
        """Return the loop's time counted from a fixed date."""
        return self._epoch_ms + self.now_ms()
