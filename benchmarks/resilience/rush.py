"""A rush on one master: three times what it can answer, from an asker that costs little itself.

Capacity is what the same master answers in a closed loop, as fast as it can. Then questions come at three times that
rate whatever becomes of them. What counts is answered in time; the rest should be refused at once.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nats
import orjson
from nats.aio.client import Client as Nats
from nats.aio.msg import Msg

from benchmarks.chaos.fabric import Fabric

SETTINGS = {"ANTIPHON_CALLER_PER_MINUTE": "0", "ANTIPHON_TELL_FACTS": "false", "ANTIPHON_NODE_PARALLEL_MAX": "1000"}
SUBJECT = "antiphon.v1.search.ask.web"
INBOX = "_I.web.rush.r"
DEADLINE_MS = 1_000
IN_FLIGHT = 32
TICK_S = 0.005


@dataclass(slots=True)
class Rush:
    """One run: a second's worth of each."""

    capacity: float = 0.0
    asked: float = 0.0
    goodput: float = 0.0
    codes: Counter[str] = field(default_factory=Counter[str])
    refused_ms: list[float] = field(default_factory=list[float])
    """How long a refused asker waited to be told."""


class Asker:
    """One connection that asks without decoding more than it has to."""

    def __init__(self, client: Nats) -> None:
        self.client = client
        self.sent: dict[str, float] = {}
        self.ended: list[tuple[str, float, bytes]] = []
        """What each question was told (`ok` or a code), how long it took in seconds, and the answer."""
        self._count = 0
        self._freed: asyncio.Event = asyncio.Event()

    async def listen(self) -> None:
        """Take all answers on one inbox."""
        await self.client.subscribe(f"{INBOX}.>", cb=self._receive)

    async def ask(self) -> None:
        """Send one question."""
        self._count += 1
        token = f"{INBOX}.{self._count}"
        self.sent[token] = time.perf_counter()
        headers = {"Antiphon-Budget": str(DEADLINE_MS)}
        await self.client.publish(SUBJECT, b'{"query":"whale"}', reply=token, headers=headers)

    async def room(self, in_flight: int) -> None:
        """Return when less than so many questions are open."""
        while len(self.sent) >= in_flight:
            self._freed.clear()
            await self._freed.wait()

    async def _receive(self, msg: Msg) -> None:
        began = self.sent.pop(msg.subject, None)
        if began is not None:
            code = (msg.headers or {}).get("Nats-Service-Error-Code") or (msg.headers or {}).get("Status") or "ok"
            self.ended.append((code, time.perf_counter() - began, msg.data))
            self._freed.set()


async def measure(rounds: int, seconds: float, times: float = 3.0) -> list[Rush]:
    """Find the capacity, then ask `times` as often; again and again, at one master."""
    with tempfile.TemporaryDirectory() as data:
        async with Fabric(Path(data), {"blog": 1, "shop": 1, "wiki": 1}, ("master",), SETTINGS) as fabric:
            asker = Asker(await nats.connect(fabric.url))
            await asker.listen()
            await closed(asker, 0.5)  # to get warm
            rushes = [await rush(asker, seconds, times) for _ in range(rounds)]
            await asker.client.close()
    return rushes


async def rush(asker: Asker, seconds: float, times: float) -> Rush:
    """Have one rush, between two looks at the capacity."""
    found = Rush()
    before = await closed(asker, seconds / 2)
    found.capacity = before
    began, sent = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < seconds:
        while sent < now * found.capacity * times:
            sent += 1
            await asker.ask()
        await asyncio.sleep(TICK_S)
    found.asked = sent / seconds
    found.goodput = good(asker) / (time.perf_counter() - began)
    await asyncio.sleep(DEADLINE_MS / 1_000)
    found.codes = Counter(code for code, _, _ in asker.ended)
    found.codes["nothing"] = sent - len(asker.ended)
    found.refused_ms = [took * 1_000 for code, took, _ in asker.ended if code == "overloaded"]
    found.capacity = (before + await closed(asker, seconds / 2)) / 2  # the machine may have changed its mind
    return found


async def closed(asker: Asker, seconds: float) -> float:
    """Ask as fast as answers come, and return how many a second were good."""
    asker.ended.clear()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        await asker.room(IN_FLIGHT)
        await asker.ask()
    rate = good(asker) / (time.perf_counter() - began)
    await asker.room(1)
    asker.ended.clear()
    return rate


def good(asker: Asker) -> int:
    """Count the complete answers that came within their deadline."""
    in_time = [data for code, took, data in asker.ended if code == "ok" and took * 1_000 <= DEADLINE_MS]
    return sum(orjson.loads(data)["complete"] for data in in_time)


def run(rounds: int, seconds: float) -> list[Rush]:
    """Run it on a loop of its own."""
    return asyncio.run(measure(rounds, seconds))


def refusal_ms(one: Rush) -> float | None:
    """Return the median time to a refusal."""
    return statistics.median(one.refused_ms) if one.refused_ms else None
