"""A connector as a node: connect, index, join, follow the content, and drain when told to stop.

It connects before it indexes, so that a missing server is said at once; it joins when it can answer. The follower is
supervised: one that crashes is seen in the log and started again, and one that crashes again and again ends the
process instead of letting it serve stale content for ever.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import structlog

from antiphon.cli import progress
from antiphon.connectors.base import Connector
from antiphon.errors import Stopping
from antiphon.node import Node
from antiphon.runtime.loop import run
from antiphon.runtime.supervisor import Supervisor

log = structlog.get_logger("antiphon.serve")

NAME_CHARS_MAX = 63


@dataclass(frozen=True, slots=True)
class Card:
    """What a person has said about a node; the rest is taken from its content."""

    name: str | None = None
    instance: str | None = None
    description: str | None = None
    topics: tuple[str, ...] = ()


def serve(content: Connector, card: Card, **place: Any) -> None:
    """Serve content as a node until SIGINT or SIGTERM; `place` is where, and as whom (`Node.connect`)."""
    run(_serve(make(content, card), content, place))


def make(content: Connector, card: Card) -> Node:
    """Return the node that answers from a connector."""
    node = Node(
        card.name or name_of(content),
        instance=card.instance,
        description=content.describe() if card.description is None else card.description,
        topics=card.topics or content.topics(),
        metadata={"connector": content.kind},
        documents=content.size,
    )
    node.search(content.search)
    return node


def name_of(content: Connector) -> str:
    """Return a name after what the content is, from the options that had to be given: `./docs` becomes `docs`.

    Two folders under one default name would be taken for two instances of one node, with the same content.
    """
    given = [getattr(content, field.name) for field in fields(content) if field.default is MISSING]
    parts = [one.expanduser().resolve().stem if isinstance(one, Path) else str(one) for one in given]
    name = re.sub(r"[^a-z0-9_-]+", "-", "-".join(parts).lower()).strip("-_")
    return name[:NAME_CHARS_MAX] or content.kind


class Following:
    """The task that indexes content again when it changes; a child of a supervisor."""

    def __init__(self, content: Connector, node: str) -> None:
        self._content = content
        self._node = node

    async def start(self) -> None:
        """Have nothing to prepare."""

    async def run(self) -> None:
        """Follow until cancelled; content that never changes is followed by waiting."""
        await self._content.watch(self._changed)
        await asyncio.Event().wait()

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Have nobody waiting."""
        del is_crashed

    def _changed(self, what: str) -> None:
        log.info("node.reindexed", node=self._node, what=what)


async def _serve(node: Node, content: Connector, place: dict[str, Any]) -> None:
    told, is_started = told_by_signals(), False
    bus = await node.connect(**place)
    try:
        if await _unless(told, asyncio.ensure_future(asyncio.to_thread(_index, content, node.name))):
            await node.start(bus=bus)
            is_started = True
            await follow(node, content, told)
    finally:
        await node.stop()
        content.close()  # ends an indexing that is still under way, too
        await bus.close()
        if is_started:
            log.info("node.stopped", node=node.name, instance=node.instance)


def told_by_signals() -> asyncio.Event:
    """Return the event that SIGINT and SIGTERM set."""
    told = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no signal handlers on the loop
            asyncio.get_running_loop().add_signal_handler(signum, told.set)
    return told


async def follow(node: Node, content: Connector, told: asyncio.Event) -> None:
    """Keep a started node's content fresh until `told`; raise the crash of the node or of the follower."""
    supervisor = Supervisor()
    await supervisor.start(f"follow:{node.name}", lambda: Following(content, node.name))
    following = asyncio.ensure_future(supervisor.run())
    ended = asyncio.ensure_future(node.ended())
    waiting = asyncio.ensure_future(told.wait())
    ends: set[asyncio.Future[Any]] = {following, ended, waiting}
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    supervisor.stop()
    waiting.cancel()
    ended.cancel()
    await asyncio.wait({following})
    for one in done - {waiting}:
        one.result()


async def _unless(told: asyncio.Event, work: asyncio.Future[None]) -> bool:
    """Wait for some work or to be told to stop; return whether the work was done."""
    waiting = asyncio.ensure_future(told.wait())
    ends: set[asyncio.Future[Any]] = {work, waiting}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        work.result()
    return work.done()


def _index(content: Connector, name: str) -> None:
    began = time.monotonic()
    try:
        with progress.shown(name) as report:
            content.open(report)
    except Stopping:  # the index was closed: the process is told to stop
        return
    log.info("node.indexed", node=name, entries=content.size(), took_ms=round((time.monotonic() - began) * 1_000))
    if content.size() == 0:
        log.warning("node.empty", node=name, content=content.describe())
