"""Asking again while no master answers: another one may, and what runs goes on meanwhile."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from antiphon.bus.bus import Bus
from antiphon.errors import AntiphonError, NotConnected
from antiphon.messages.base import Message, Request

R = TypeVar("R", bound=Message)

AGAIN_MS = 250
PATIENCE_MS = 30_000
"""For so long no master may answer before somebody who waits gives up; what he waits for goes on."""


async def patiently(bus: Bus, ask: Request[R], budget_ms: int) -> R:
    """Ask something that may be asked twice again and again, as long as that can help and patience lasts."""
    until_ms = bus.clock.now_ms() + PATIENCE_MS
    while True:
        try:
            return await bus.ask(ask, budget_ms=budget_ms)
        except AntiphonError as error:
            if not (error.retryable or isinstance(error, NotConnected)) or bus.clock.now_ms() >= until_ms:
                raise
            await asyncio.sleep((error.retry_after_ms or AGAIN_MS) / 1_000)
