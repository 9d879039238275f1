"""The demo's node processes as their parent sees them: forked at once, followed by their pipes, stopped in order.

They are forked from a process that has imported what a node needs and has neither a loop nor a thread yet: starting
five nodes then costs five forks and not five starts of Python. Where there is no fork they are started afresh.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import multiprocessing.context as contexts
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from antiphon.cli.demo import child
from antiphon.cli.demo.content import Part
from antiphon.errors import Internal
from antiphon.runtime.loop import loop_factory

STOP_MS_MAX = 8_000
"""A node leaves within its grace; after this it is killed."""


@dataclass(slots=True)
class Process:
    """One node process and how far it is."""

    part: Part
    process: BaseProcess
    pipe: Connection
    done: int = 0
    total: int = 0
    entries: int = 0
    indexed_ms: int | None = None
    has_joined: bool = False
    has_ended: bool = False


class Fleet:
    """All node processes of a demo."""

    def __init__(self, parts: Sequence[Part], log_file: Path, level: str | None = None) -> None:
        """Start them; they index at once, and wait for `invite` to join."""
        forks = sys.platform == "linux"  # macOS has fork, too, but its libraries do not survive it
        context = _context(forks=forks)
        loop_factory()  # imports uvloop once for all
        gc.freeze()  # the collector of a child need not touch, and so copy, the pages it shares
        self.processes: list[Process] = []
        self.changed: Callable[[], None] = _nothing
        self._moved = asyncio.Event()
        self._error: Internal | None = None
        for part in parts:
            ours, theirs = context.Pipe()
            open_here = (*(one.pipe for one in self.processes), ours) if forks else ()
            process = context.Process(
                target=child.serve, args=(part, theirs, open_here, log_file, level), name=part.node, daemon=True
            )
            process.start()
            theirs.close()
            self.processes.append(Process(part, process, ours))

    @property
    def entries(self) -> dict[str, int]:
        """Documents by node; instances of one node hold the same ones."""
        return {one.part.node: one.entries for one in self.processes}

    def invite(self, data: Path) -> None:
        """Tell every node whose server it is to join, and follow what it says from now on."""
        for one in self.processes:
            with suppress(OSError):  # it has ended, which its reader will see
                one.pipe.send(str(data))
            asyncio.get_running_loop().add_reader(one.pipe.fileno(), self._read, one)

    async def joined(self) -> None:
        """Return when every node has joined; raise `Internal` when one could not."""
        while not all(one.has_joined for one in self.processes):
            if self._error is not None:
                raise self._error
            self._moved.clear()
            await self._moved.wait()

    def stop(self) -> None:
        """Close the pipes, which makes the nodes leave, and wait until they have ended."""
        for one in self.processes:
            if not one.has_ended:
                with suppress(RuntimeError):  # no loop any more
                    asyncio.get_running_loop().remove_reader(one.pipe.fileno())
            one.pipe.close()
        end = time.monotonic() + STOP_MS_MAX / 1_000
        for one in self.processes:
            one.process.join(max(0.0, end - time.monotonic()))
            if one.process.is_alive():
                one.process.kill()
                one.process.join()

    def _read(self, one: Process) -> None:
        try:
            while one.pipe.poll():
                self._hear(one, one.pipe.recv())
        except (EOFError, OSError):
            one.has_ended = True
            asyncio.get_running_loop().remove_reader(one.pipe.fileno())
            self._error = self._error or Internal(f"the process of the node {one.part.node} has ended")
        self._moved.set()
        self.changed()

    def _hear(self, one: Process, told: tuple[Any, ...]) -> None:
        match told:
            case ("progress", done, total):
                one.done, one.total = done, total
            case ("indexed", entries, took_ms):
                one.entries, one.indexed_ms = entries, took_ms
            case ("joined", _):
                one.has_joined = True
            case _:
                _, code, text = told
                self._error = Internal(f"the node {one.part.node} could not start: {code}: {text}")


def _nothing() -> None:
    """Tell nobody."""


def _context(*, forks: bool) -> contexts.ForkContext | contexts.SpawnContext:
    return multiprocessing.get_context("fork") if forks else multiprocessing.get_context("spawn")
