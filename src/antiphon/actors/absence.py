"""Who has gone away in the midst of a run, so that nobody waits for its report until the run's time is over.

An instance is gone when its heartbeats have stopped for long enough and, asked then, the server says that nobody
listens on its lane: its process or its connection has ended. One that is frozen, or whose handler blocks it, still
listens and is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from antiphon.actors.order import JobGround
from antiphon.decide.rollout import Line
from antiphon.errors import AntiphonError, NoResponders
from antiphon.messages.actions import RunState
from antiphon.messages.ping import NodePing

PROBE_MS = 250
PROBES_MAX = 64
"""Instances asked after in one look; the others are, in the next."""


class Absences:
    """The absences of one job.

    Args:
        ground: what the job stands on.
        gone: called with a line's place and its instance when it has gone away.
    """

    def __init__(self, ground: JobGround, gone: Callable[[int, str], None]) -> None:
        self._ground = ground
        self._gone = gone
        self._silent: dict[tuple[int, str], int] = {}
        """Since when which instance is not heard."""
        self._asking: asyncio.Task[None] | None = None

    def look(self, lines: Sequence[Line], now_ms: int) -> None:
        """Note who is not heard, and ask after those that have not been for long enough."""
        silent: dict[tuple[int, str], int] = {}
        nodes = self._ground.registry.current.nodes
        for at, line in enumerate(lines):
            if line.state is RunState.RUNNING and line.is_accepted and line.instance is not None:
                node = nodes.get(line.node)
                if node is None or line.instance not in node.alive:
                    key = (at, line.instance)
                    silent[key] = self._silent.get(key, now_ms)
        self._silent = silent
        if self._asking is None or self._asking.done():
            due = [key for key, since_ms in silent.items() if now_ms - since_ms >= self._ground.bounds.gone_ms]
            if due:
                lanes = [(at, lines[at].node, instance) for at, instance in due[:PROBES_MAX]]
                self._asking = asyncio.get_running_loop().create_task(self._ask(lanes))

    def close(self) -> None:
        """Ask after nobody any more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self, lanes: Sequence[tuple[int, str, str]]) -> None:
        for at, node, instance in lanes:
            try:
                await self._ground.bus.ask(
                    NodePing(budget_ms=PROBE_MS), budget_ms=PROBE_MS, node=node, instance=instance
                )
            except NoResponders:
                self._gone(at, instance)
            except AntiphonError:  # it listens and says nothing, or there is no connection: it is asked after again
                pass
            self._silent.pop((at, instance), None)
