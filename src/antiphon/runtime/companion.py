"""A companion: another process of ours that runs as long as this one does, and is started again when it ends by itself.

On Linux the kernel ends it with this process (`bus/process.py`), so a kill leaves none behind.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import structlog

from antiphon.bus.process import tied

log = structlog.get_logger("antiphon.runtime")

AGAIN_MS = 1_000
"""From an unexpected end to the next start; doubled with each one."""
AGAIN_MS_MAX = 60_000
STOP_MS = 10_000
"""How long it may take to end in order."""
WELL_MS = 60_000
"""One that ran so long was well: the next start is soon again."""


class Companion:
    """One other process; a child of the supervisor.

    Args:
        name: what the log calls it.
        command: its command line.
        environment: its environment.
        log_file: what it writes is added there; default: it has this process's own streams.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log_file: Path | None = None
    ) -> None:
        self.log_file = log_file
        self.name = name
        self.command = list(command)
        self.environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False

    async def start(self) -> None:
        """Start it; it is not waited for."""
        with nullcontext() if self.log_file is None else self.log_file.open("ab") as log_file:
            self._process = await asyncio.create_subprocess_exec(
                *tied(self.command),
                env=self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
            )

    async def run(self) -> None:
        """Start it again whenever it ends."""
        loop = asyncio.get_running_loop()
        pause_ms = AGAIN_MS
        while True:
            assert self._process is not None, "start() comes first"
            began = loop.time()
            code = await self._process.wait()
            if self._is_stopping:
                return
            if (loop.time() - began) * 1_000 >= WELL_MS:
                pause_ms = AGAIN_MS
            log.warning("companion.ended", companion=self.name, code=code, again_ms=pause_ms)
            await asyncio.sleep(pause_ms / 1_000)
            pause_ms = min(pause_ms * 2, AGAIN_MS_MAX)
            await self.start()

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Have it end in order, and kill it if it does not."""
        del is_crashed
        self._is_stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_MS / 1_000)
        except TimeoutError:
            log.warning("companion.killed", companion=self.name)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
