"""How often a follower asks: anew when a question has ended, and not in a circle where there is nothing to ask."""

from __future__ import annotations

import asyncio

import pytest

from antiphon.bus.following import Follower
from antiphon.bus.memory import MemoryServer
from antiphon.bus.protocol import STATUS, Delivery, Stored
from antiphon.testing import virtual_run


async def done(_stored: Stored) -> bool:
    return True


@pytest.mark.parametrize(
    ("status", "waits_s", "asked"),
    [
        ("408", Follower.OPEN_S, 7),  # the question's time was over
        ("409", 0, 31),  # the consumer was deleted: at once, each time
        ("503", 0, 31),  # nobody is there who could answer
        (None, 0, 6),  # the end was lost
    ],
)
def test_a_question_that_ends_is_followed_by_one_in_time(status: str | None, waits_s: float, asked: int) -> None:
    async def main() -> int:
        server = MemoryServer()
        transport = server.connect()
        questions = 0

        async def answer(delivery: Delivery) -> None:
            nonlocal questions
            questions += 1
            await asyncio.sleep(waits_s)
            if status is not None:
                await transport.publish(delivery.reply, b"", headers={STATUS: status})

        await server.connect().subscribe("$JS.API.CONSUMER.MSG.NEXT.timers.us", answer)
        follower = Follower(transport, "timers", done, name="us", pattern="t.>", inbox="_I.m.1.f.us")
        await follower.start()
        await asyncio.sleep(61)
        await follower.drain()
        return questions

    assert virtual_run(main()) == asked
