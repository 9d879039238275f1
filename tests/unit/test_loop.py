"""A process that was told to end does, whatever its tasks make of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from antiphon.runtime.loop import run


def test_others_are_cancelled_and_may_clean_up() -> None:
    cleaned: list[str] = []

    async def tidy() -> None:
        try:
            await asyncio.sleep(3_600)
        finally:
            await asyncio.sleep(0)
            cleaned.append("tidy")

    async def main() -> None:
        kept.append(asyncio.ensure_future(tidy()))
        await asyncio.sleep(0)
        raise KeyError("the main's own")

    kept: list[asyncio.Task[None]] = []
    with capture_logs() as logs, pytest.raises(KeyError, match="the main's own"):
        run(main())
    assert cleaned == ["tidy"]
    assert kept[0].cancelled()
    assert logs == []


PROGRAM = """
import asyncio, signal
from antiphon.runtime.loop import run

async def never():
    while True:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            print("cancelled", flush=True)

async def main():
    task = asyncio.ensure_future(never())
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(3_600)

try:
    run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_ctrl_c_ends_a_process_with_a_task_that_heeds_no_cancellation() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False)
    first, told, last = done.stdout.splitlines()
    assert (done.returncode, first, last) == (0, "cancelled", "interrupted"), done
    assert "task.not_ended" in told
    assert "waits_in=__main__.never:8" in told
