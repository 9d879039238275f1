"""A recorder as a process of its own beside a real nats-server, and a master's keeper here that tells it facts."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import resolve
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.messages.records import RecorderReported
from antiphon.runtime.facts import Facts
from antiphon.runtime.keeping import Keeper, KeeperBounds


class Fabric:
    """A server, a recorder, and the keeper of a master; the first two may be killed at any time."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.record = folder / "stats"
        self.settings = settings or {}
        self.reports: list[RecorderReported] = []
        self.heard = asyncio.Event()
        self.server: EmbeddedServer
        self.process: asyncio.subprocess.Process
        self.bus: Bus
        self.keeper: Keeper
        self.facts: Facts
        self._port = -1

    async def begin(self) -> None:
        """Start the server, then the recorder, then the keeper."""
        self.server = await EmbeddedServer.start(self.folder / "server")
        self._port = int(self.server.url.rpartition(":")[2])
        self.bus = await connect(f"master-{secrets.token_hex(4)}", endpoint=resolve(self.server.url))
        await self.bus.hear(RecorderReported, self._hear)
        self.keeper = Keeper(self.bus, KeeperBounds(facts_max=10**6, bytes_max=10**9, retry_ms=50))
        self.facts = Facts(self.bus, buffer_max=10**6, keeper=self.keeper)
        await self.start_recorder()

    async def start_recorder(self) -> None:
        """Start a recorder; it is not waited for."""
        words = ["run", "recorder", "--open", "--nats", self.server.url, "--record", str(self.record)]
        words += ["--log-level", "warning"]
        with (self.folder / "recorder.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "antiphon", *words, env={**os.environ, **self.settings}, stdout=log, stderr=log
            )

    async def kill_recorder(self) -> None:
        """Kill the recorder with -9 and start another one on its folder."""
        self.process.kill()
        await self.process.wait()
        await self.start_recorder()

    async def kill_server(self) -> None:
        """Kill the server with -9 and start it again on its port and data."""
        os.kill(self.server.pid, signal.SIGKILL)
        await self.server.exited()
        await self.server.stop()
        self.server = await EmbeddedServer.start(self.folder / "server", Options(port=self._port))

    async def until(self, true: Callable[[RecorderReported], bool], bound_s: float) -> RecorderReported:
        """Return the first report for which this is true."""
        async with asyncio.timeout(bound_s):
            while True:
                self.heard.clear()
                await self.heard.wait()
                if true(self.reports[-1]):
                    return self.reports[-1]

    async def caught_up(self, bound_s: float = 60) -> RecorderReported:
        """Return once everything that was kept is written."""
        async with asyncio.timeout(bound_s):
            while self.keeper.waiting:  # noqa: ASYNC110 - a keeper sends no event
                await asyncio.sleep(0.01)
        kept_ms = self.bus.clock.wall_ms() + 1_000  # a turn of the recording that has seen it all
        return await self.until(lambda one: one.lag == 0 and one.state == "recording" and one.at_ms > kept_ms, bound_s)

    async def end(self) -> None:
        """Stop everything in order."""
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        await self.bus.close()
        await self.server.stop()

    def _hear(self, fact: RecorderReported, _keys: dict[str, str]) -> None:
        self.reports.append(fact)
        self.heard.set()


@asynccontextmanager
async def fabric(folder: Path, settings: dict[str, str] | None = None) -> AsyncIterator[Fabric]:
    """A fabric that records, with its keeper running."""
    made = Fabric(folder, settings)
    await made.begin()
    running = [asyncio.ensure_future(made.keeper.run()), asyncio.ensure_future(made.facts.run())]
    try:
        yield made
    finally:
        for one in running:
            one.cancel()
        await asyncio.wait(running)
        await made.end()
