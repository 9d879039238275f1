"""One node of the demo, in a process of its own: index, wait for the server's address, join, serve.

It is tied to the demo by a pipe: when the other end closes, by a stop or by a kill -9, it leaves and ends. So no
process stays behind, on any platform.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import structlog

from antiphon import logs
from antiphon.cli.demo.content import Part
from antiphon.cli.serving import Card, follow, make
from antiphon.connectors import Connector
from antiphon.errors import AntiphonError
from antiphon.runtime.loop import run

log = structlog.get_logger("antiphon.demo")

REPORT_MS = 50
"""How often progress is told at most."""


def serve(part: Part, pipe: Connection, others: Sequence[Connection], log_file: Path, level: str | None) -> None:
    """Be one node until the pipe closes; tells `("progress", done, total)`, `("indexed", n, ms)`, `("joined",)`."""
    for other in others:  # inherited by the fork; while one is open here, nobody sees that the demo has gone
        other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the demo stops us in order
    logs.configure(level, stream=log_file.open("a", encoding="utf-8", buffering=1))
    try:
        content = _indexed(part, pipe)
        data = Path(pipe.recv())
        run(_serve(part, content, pipe, data))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the demo has gone
    except AntiphonError as error:
        log.exception("demo.node_failed", node=part.node)
        pipe.send(("failed", error.code, error.text))


def _indexed(part: Part, pipe: Connection) -> Connector:
    began = time.monotonic_ns()
    told = began

    def progress(done: int, total: int) -> None:
        nonlocal told
        if (now := time.monotonic_ns()) - told > REPORT_MS * 1_000_000:
            told = now
            pipe.send(("progress", done, total))

    content = part.content()
    content.open(progress)
    entries = len(getattr(content, "index", ()))
    pipe.send(("indexed", entries, (time.monotonic_ns() - began) // 1_000_000))
    return content


async def _serve(part: Part, content: Connector, pipe: Connection, data: Path) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    node = make(content, Card(part.node, part.instance))
    try:
        await node.start(data=data)
        await node.joined()
        pipe.send(("joined", os.getpid()))
        loop.add_reader(pipe.fileno(), told.set)  # nothing is sent any more: what can be read is the end
        loop.add_signal_handler(signal.SIGTERM, told.set)
        await follow(node, content, told)
    finally:
        loop.remove_reader(pipe.fileno())
        await node.stop()
        content.close()
