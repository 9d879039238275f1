"""The virtual loop: time jumps, repeats exactly, stands still for threads, and a deadlock is an error."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.clock import LoopClock
from antiphon.testing import Deadlock, VirtualClock, virtual_run


def test_a_day_passes_at_once_and_exactly() -> None:
    async def main() -> tuple[int, int, int]:
        clock = VirtualClock(epoch_ms=1_000)
        await clock.sleep_ms(86_400_000)
        return clock.now_ms(), clock.now_us(), clock.wall_ms()

    began = time.perf_counter()
    assert virtual_run(main()) == (86_400_000, 86_400_000_000, 86_401_000)
    assert time.perf_counter() - began < 1


@given(st.lists(st.integers(0, 10_000_000), min_size=1, max_size=30))
def test_timers_fire_in_order_and_on_their_very_millisecond(delays_ms: list[int]) -> None:
    async def main() -> list[tuple[int, int]]:
        clock = LoopClock()
        fired: list[tuple[int, int]] = []
        for delay_ms in delays_ms:
            clock.call_after(delay_ms, lambda due=delay_ms: fired.append((due, clock.now_ms())))  # type: ignore[misc]
        await clock.sleep_ms(max(delays_ms) + 1)
        return fired

    assert virtual_run(main()) == [(due, due) for due in sorted(delays_ms)]


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=20))
def test_sleeps_in_a_row_lose_no_millisecond(delays_ms: list[int]) -> None:
    async def main() -> int:
        for delay_ms in delays_ms:
            await LoopClock().sleep_ms(delay_ms)
        return LoopClock().now_ms()

    assert virtual_run(main()) == sum(delays_ms)


def test_what_can_never_happen_is_a_deadlock() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="can never happen"):
        virtual_run(main())


def test_a_deadlock_cleans_up_and_the_next_run_starts_at_zero() -> None:
    cleaned: list[str] = []

    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("yes")

    async def fresh() -> float:
        return asyncio.get_running_loop().time()

    with pytest.raises(Deadlock):
        virtual_run(stuck())
    assert cleaned == ["yes"]
    assert virtual_run(fresh()) == 0


def test_time_stands_still_while_a_thread_works() -> None:
    async def main() -> float:
        async with asyncio.timeout(1):
            # the thread takes real time, which does not count
            await asyncio.to_thread(time.sleep, 0.02)
        return asyncio.get_running_loop().time()

    assert virtual_run(main()) == 0


def test_timeouts_are_virtual_too() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 3_600)
        return asyncio.get_running_loop().time()

    assert virtual_run(main()) == 3_600


def test_the_error_of_the_main_coroutine_comes_through() -> None:
    async def main() -> None:
        await asyncio.sleep(5)
        raise LookupError("this one")

    with pytest.raises(LookupError, match="this one"):
        virtual_run(main())
