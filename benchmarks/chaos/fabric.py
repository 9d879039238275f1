"""A fabric of real processes: a server, masters and nodes, each of which may be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from antiphon.bus.server import EmbeddedServer, Options

ROOT = Path(__file__).parents[2]
MODULE = "benchmarks.chaos.part"
READY_S_MAX = 30
"""A busy machine starts a process within a second or two."""


class Part:
    """One process, which says when it works: a module and its words."""

    def __init__(self, module: str, words: tuple[str, ...], environment: Mapping[str, str], log: Path) -> None:
        self.module = module
        self.words = words
        self._environment = dict(environment)
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    async def start(self) -> None:
        """Start it, and return when it works."""
        command = (sys.executable, "-m", self.module, *self.words)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), READY_S_MAX)
        if not line:
            raise RuntimeError(f"{' '.join(self.words)} ended at once:\n{self._log.read_text()[-2_000:]}")

    def freeze(self) -> None:
        """Stop it where it is."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """End it with -9."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class Fabric:
    """The server and all parts.

    Args:
        data: a directory of its own.
        nodes: how many instances of which node.
        masters: the names of the masters.
        settings: what the environment says, e.g. `ANTIPHON_BREAKER_WAIT_MS`.
        node: the module of a node's process; it is told `node NAME INSTANCE URL`, and the data directory.
    """

    def __init__(
        self,
        data: Path,
        nodes: Mapping[str, int],
        masters: tuple[str, ...],
        settings: dict[str, str],
        *,
        node: str = MODULE,
    ) -> None:
        self.node = node
        self.data = data
        self.nodes = dict(nodes)
        self.masters = masters
        self.parts: dict[str, Part] = {}
        self._environment = os.environ | settings
        self._server: EmbeddedServer | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self.data.mkdir(parents=True, exist_ok=True)
        self._server = await EmbeddedServer.start(self.data / "nats")
        self.url = self._server.url
        for name in self.masters:
            self._add(name, MODULE, "master", name, self.url)
        for node, instances in self.nodes.items():
            for at in range(instances):
                self._add(f"{node}.i{at}", self.node, "node", node, f"i{at}", self.url, str(self.data))
        try:
            await asyncio.gather(*(self.parts[name].start() for name in self.masters))
            await asyncio.gather(*(part.start() for name, part in self.parts.items() if name not in self.masters))
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def kill_server(self) -> None:
        """End the nats-server with -9."""
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGKILL)
        await self._server.exited()
        await self._server.stop()

    async def start_server(self) -> None:
        """Start it again on its port and data."""
        options = Options(port=int(self.url.rpartition(":")[2]))
        self._server = await EmbeddedServer.start(self.data / "nats", options)

    def _add(self, name: str, module: str, *words: str) -> None:
        self.parts[name] = Part(module, words, self._environment, self.data / f"{name}.log")

    async def _end(self) -> None:
        await asyncio.gather(*(part.kill() for part in self.parts.values()))
        if self._server is not None:
            await self._server.stop()
