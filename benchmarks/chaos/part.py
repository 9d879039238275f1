"""One process of the fabric: `python -m benchmarks.chaos.part node NAME INSTANCE URL DATA` or `... master NAME URL`.

It prints a line on stdout once it is asked or serves.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys

import structlog

from antiphon import Hit, Node, Query
from antiphon.app import master
from antiphon.runtime.loop import run
from antiphon.settings import Settings

WAIT = re.compile(r"wait (\d+) ms")
"""A question that takes a node so long."""
WORDS = ("whale", "squid", "coral", "kelp")


def holds(node: str, word: str) -> frozenset[str]:
    """Return the ids of what a node holds about a word: the oracle that answers are compared with."""
    return frozenset(f"{node}-{word}-{at}" for at in range(3))


async def node(name: str, instance: str, url: str, _data: str) -> None:
    """Serve until killed."""
    one = Node(name, instance=instance)

    @one.search
    async def search(query: Query) -> list[Hit]:
        wait = WAIT.fullmatch(query.text)
        if wait is not None:
            await asyncio.sleep(int(wait[1]) / 1_000)
        found = sorted(holds(name, query.text))
        return [Hit(id=each, title=f"{each} of {query.text}", text=f"{query.text} in {each}") for each in found]

    await one.start(url)
    await one.joined()
    print("joined", flush=True)
    await one.ended()


async def serve(name: str, url: str) -> None:
    """Be a master until killed."""
    started = asyncio.Event()
    running = asyncio.ensure_future(master(Settings.read(), nats=url, name=name, is_open=True, started=started))
    waiting = asyncio.ensure_future(started.wait())
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    print("serves", flush=True)
    await running


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    role, *words = sys.argv[1:]
    run(node(*words) if role == "node" else serve(*words))
