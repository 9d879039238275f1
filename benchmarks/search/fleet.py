"""The processes of the speed benchmark: a real server, a master, a hand-written master, and N node processes.

Everything is forked from one process that has imported it all, so that a hundred nodes start in seconds. Each node
process answers the same ten hits in three ways: as an Antiphon node, as a plain responder with `json`, and as a plain
responder with `orjson`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import nats
import orjson
import structlog
from nats.aio.msg import Msg

from antiphon import Hit, Node, Query
from antiphon.app import MasterRole
from antiphon.bus.connect import connect
from antiphon.runtime.loop import run
from antiphon.settings import Settings
from benchmarks.search import by_hand

FULL, BARE, UNTOLD = "antiphon", "bare", "untold"
"""Fabrics on one server: everything on; one simple fusion without facts; and all but facts."""
HITS = 10
WORDS = [f"{a}{b}{c}" for a in ("ba", "ke", "li", "mo", "su") for b in ("na", "ri", "to", "ve") for c in (*"lns", "")]
QUERIES = [" ".join(random.Random(seed).sample(WORDS, 3)) for seed in range(64)]

_fork = multiprocessing.get_context("fork")


def documents(node: int) -> list[dict[str, Any]]:
    """Return the ten hits of a node, about 450 bytes each as JSON."""
    dice = random.Random(1_000 + node)
    return [
        {
            "id": f"{node}-{at}",
            "score": round(dice.uniform(1, 20), 4),
            "title": " ".join(dice.choices(WORDS, k=6)),
            "url": f"https://example.org/{node}/{at}",
            "snippet": " ".join(dice.choices(WORDS, k=52)),
        }
        for at in range(HITS)
    ]


class Child:
    """One process of the fleet and its CPU time."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self.name = name
        self._process = _fork.Process(target=_enter, args=(main,), name=name, daemon=True)
        self._process.start()
        self.pid = self._process.pid or 0

    def cpu_us(self) -> float:
        """Return the CPU time of all its threads so far."""
        return cpu_us(self.pid)

    def tell(self) -> None:
        """Tell it to end."""
        if self._process.is_alive():
            os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> None:
        """End it."""
        self.tell()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


def stop(children: Iterable[Child]) -> None:
    """End processes, all at once."""
    ending = list(children)
    for child in ending:
        child.tell()
    for child in ending:
        child.stop()


def cpu_us(pid: int) -> float:
    """Return the CPU time of a process in microseconds: user and system of all threads, from the scheduler's count."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1_000


def _enter(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    gc.freeze()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(main())


async def until_told() -> None:
    """Return when this process is told to end."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


def nodes(url: str, here: range, prefixes: Sequence[str] = (FULL, BARE)) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the main of a process that holds some nodes, each on connections of its own."""

    async def main() -> None:
        async with AsyncExitStack() as ending:
            for at in here:
                await _node(url, at, prefixes, ending)
            await until_told()

    return main


async def _node(url: str, at: int, prefixes: Sequence[str], ending: AsyncExitStack) -> None:
    found = documents(at)
    hits = [Hit(**one, text=one["snippet"]) for one in found]

    async def search(_query: Query) -> list[Hit]:
        return hits

    for prefix in prefixes:
        one = Node(f"node-{at}", instance="one", description="benchmark")
        one.search(search)
        await one.start(bus=await connect(one.name, nats=url, prefix=prefix))
        ending.push_async_callback(one.stop)
        await one.joined()
    plain = await nats.connect(url)
    ending.push_async_callback(plain.close)

    async def with_json(msg: Msg) -> None:
        await msg.respond(by_hand.dump_json(found))

    async def with_orjson(msg: Msg) -> None:
        await msg.respond(orjson.dumps(found))

    await plain.subscribe(f"bench.json.{at}", cb=with_json)
    await plain.subscribe(f"bench.orjson.{at}", cb=with_orjson)
    await plain.subscribe("bench.ready", cb=with_json)


def master(url: str, prefix: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the main of a master process: everything on, or bare, or all but facts."""

    async def main() -> None:
        settings = Settings(
            prefix=prefix,
            fusion="rrf" if prefix == BARE else "evidence",
            tell_facts=prefix == FULL,
            caller_per_minute=0,
            actions_per_minute=0,
            admit_delay_ms=10_000,  # it is to measure, not to shed, also where others keep the machine busy
        )
        bus = await connect(f"master-{prefix}", nats=url, prefix=prefix, bounds=settings.bus())
        role = MasterRole(bus, settings)
        await role.start()
        running = asyncio.ensure_future(role.run())
        await until_told()
        role.supervisor.stop()
        await running
        await bus.close()

    return main


def hand_master(url: str, nodes: int) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the main of the hand-written master."""

    async def main() -> None:
        client = await by_hand.serve(url, nodes)
        await until_told()
        await client.close()

    return main


async def ready(url: str, nodes: int) -> None:
    """Return when all nodes answer."""
    client = await nats.connect(url)
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    for _ in range(600):
        await client.publish("bench.ready", b"", reply=inbox)
        count = 0
        try:
            while count < nodes:
                message = await answers.next_msg(timeout=0.5)
                count += not (message.headers or {}).get("Status")
        except TimeoutError:
            continue
        await client.close()
        return
    raise TimeoutError(f"{nodes} node processes did not start")
