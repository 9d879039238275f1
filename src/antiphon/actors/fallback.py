"""Fallback: nodes in the master's own process, asked where nobody else has answered; they count for no coverage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.bus.bus import Bus
from antiphon.errors import AntiphonError, OutOfBudget
from antiphon.messages.lane import NodeSearch
from antiphon.messages.search import Outcome
from antiphon.messages.wire import WireFound, WireLine, decode_found
from antiphon.node import Node

FLAGS = ("fallback",)


@dataclass(frozen=True, slots=True)
class Fallen:
    """What became of one fallback node."""

    line: WireLine
    data: bytes = b""
    found: WireFound | None = None
    """What it found, None where it failed."""


async def fall_back(bus: Bus, nodes: Sequence[Node], ask: NodeSearch, left_ms: int) -> list[Fallen]:
    """Ask some nodes in this process and return what came of each, by name; raises what a bug of ours raised."""
    began_us = bus.clock.now_us()
    tasks = {asyncio.ensure_future(node.find(bus, ask)): node.name for node in nodes}
    try:
        _, late = await asyncio.wait(tasks, timeout=left_ms / 1_000)
    finally:
        for task in tasks:  # also when the asker has left meanwhile
            task.cancel()
    took_us = bus.clock.now_us() - began_us
    by_name = sorted(tasks, key=tasks.__getitem__)
    return [_fallen(tasks[task], None if task in late else task, took_us) for task in by_name]


def _fallen(node: str, task: asyncio.Future[bytes] | None, took_us: int) -> Fallen:
    """Return what became of a node; without its task it was late."""
    if task is None:
        return Fallen(_line(node, Outcome.TIMED_OUT, took_us, code=OutOfBudget.code))
    error = task.exception()
    if isinstance(error, AntiphonError):
        return Fallen(_line(node, Outcome.FAILED, took_us, code=error.code))
    if error is not None:
        raise error
    found, _ = decode_found(task.result())
    outcome = Outcome.ANSWERED if found.hits else Outcome.EMPTY
    return Fallen(_line(node, outcome, took_us, hits=len(found.hits)), task.result(), found)


def _line(node: str, outcome: Outcome, took_us: int, *, code: str | None = None, hits: int = 0) -> WireLine:
    return WireLine(node=node, outcome=outcome, code=code, hits=hits, took_us=took_us, flags=FLAGS)
