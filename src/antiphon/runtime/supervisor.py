"""The supervisor: starts actors in order, restarts the ones that crash, stops them in reverse.

Too many restarts within the window escalate: everything is stopped and the last crash is raised, so that whoever
runs the process (systemd, Docker, a person) sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from antiphon.clock import Clock, LoopClock
from antiphon.decide.restarts import Intensity, Restarts, crashed

log = structlog.get_logger("antiphon.runtime")


class Child(Protocol):
    """What the supervisor runs: actors, and whatever else lives as they do."""

    async def start(self) -> None:
        """Return when it works."""

    async def run(self) -> None:
        """Work until cancelled; raising is a crash."""

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop; answer whoever waits."""


@dataclass(slots=True)
class Supervised:
    """One child and its history."""

    name: str
    make: Callable[[], Child]
    child: Child
    task: asyncio.Task[None]
    restarts: Restarts = field(default_factory=Restarts)


class Supervisor:
    """Runs children until it is stopped or one crashes too often."""

    def __init__(self, *, intensity: Intensity | None = None, clock: Clock | None = None) -> None:
        self.intensity = intensity or Intensity()
        self.clock: Clock = clock or LoopClock()
        self._children: list[Supervised] = []
        self._stopped = asyncio.Event()

    @property
    def children(self) -> tuple[Child, ...]:
        """The running children, in the order of their start."""
        return tuple(supervised.child for supervised in self._children)

    async def start(self, name: str, make: Callable[[], Child]) -> Child:
        """Make a child, start it, and keep it running; a failure to start is raised, not restarted."""
        child = make()
        await child.start()
        self._children.append(Supervised(name, make, child, self._spawn(name, child)))
        return child

    async def run(self) -> None:
        """Watch until `stop` is called; raise the crash that came too often."""
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            while not stopped.done():
                await asyncio.wait({stopped, *(s.task for s in self._children)}, return_when=asyncio.FIRST_COMPLETED)
                for supervised in self._children:
                    if supervised.task.done() and not stopped.done():
                        await self._crashed(supervised)
        finally:
            stopped.cancel()
            await self._stop_all()

    def stop(self) -> None:
        """Ask `run` to stop everything in reverse order and return."""
        self._stopped.set()

    async def _crashed(self, supervised: Supervised) -> None:
        error = supervised.task.exception() or RuntimeError(f"{supervised.name} ended by itself")
        supervised.restarts, again = crashed(supervised.restarts, self.clock.now_ms(), self.intensity)
        log.error("actor.crashed", actor=supervised.name, restart=again, exc_info=error)
        await supervised.child.stop(is_crashed=True)
        if not again:
            raise error
        supervised.child = supervised.make()
        await supervised.child.start()
        supervised.task = self._spawn(supervised.name, supervised.child)

    def _spawn(self, name: str, child: Child) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(child.run(), name=name)

    async def _stop_all(self) -> None:
        while self._children:
            supervised = self._children.pop()
            try:
                await supervised.child.stop()
            except Exception:
                # one child that cannot stop must not keep the others running
                log.exception("actor.stop_failed", actor=supervised.name)
            supervised.task.cancel()
            await asyncio.wait({supervised.task})
