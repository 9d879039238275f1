"""The sandbox: answers analysts' statements in a worker of its own, and ends it when it takes too long.

What the worker reads is made here: one file with the last day and the roll-ups as tables. It names no other file, so
nothing else is in reach even of a statement that gets past every guard; it is made anew when somebody asks and it is
old, within a tenth of the time.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
import structlog

from antiphon.decide.record_bounds import SandboxBounds
from antiphon.errors import Internal, InvalidQuery, Overloaded, QueryLimit, RecordUnwritable
from antiphon.runtime.threads import Threads
from antiphon.stats import snapshot
from antiphon.stats.files import RECENT, SNAPSHOT
from antiphon.stats.worker import Asked

log = structlog.get_logger("antiphon.record")

START_MS: Final = 5_000
"""What a worker takes to start, on a busy machine, besides the time of its statements."""
OUTPUT_BYTES_MAX: Final = 8 * 1024 * 1024
DUTY: Final = 10


class Sandbox:
    """Answers statements about one record.

    Args:
        folder: the record's.
        bounds: what a question may take.
    """

    def __init__(self, folder: Path, bounds: SandboxBounds | None = None) -> None:
        self.folder = folder
        self.bounds = bounds or SandboxBounds()
        self.threads = Threads(1, "recent")
        self._running = 0
        self._making = asyncio.Lock()
        self._made_ms = 0
        self._took_ms = 0

    async def ask(self, statements: tuple[str, ...], rows_max: int, form: str, now_ms: int) -> tuple[list[Any], int]:
        """Return a table for each statement, and of when the rows are.

        Raises `InvalidQuery` for what is not allowed, `QueryLimit` for what took too much, `Overloaded` where too many
        ask, and `RecordUnwritable` before there is anything to ask.
        """
        if self._running >= self.bounds.parallel_max:
            raise Overloaded(f"{self._running} questions are being answered", retry_after_ms=1_000)
        self._running += 1
        try:
            await self._freshen(now_ms)
            bounds = self.bounds
            asked = Asked(
                str(self.folder / RECENT), list(statements), rows_max, bounds.bytes_max, bounds.time_ms,
                bounds.memory_bytes, form,
            )  # fmt: skip
            return await self._work(asked), self._made_ms
        finally:
            self._running -= 1

    async def forget(self) -> None:
        """Have the next question answered from what is in the record then, and keep nothing of before."""
        async with self._making:
            (self.folder / RECENT).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the thread end."""
        self.threads.stop(wait_s=START_MS / 1_000)

    async def _freshen(self, now_ms: int) -> None:
        """Make the file anew if it is old, unless that would take too much of the time."""
        async with self._making:
            pause_ms = max(self.bounds.fresh_ms, self._took_ms * (DUTY - 1))
            place = self.folder / RECENT
            if self._made_ms and 0 <= now_ms - self._made_ms < pause_ms and place.exists():
                return
            if not (self.folder / SNAPSHOT).exists():
                raise RecordUnwritable("there is no snapshot of the record yet", retry_after_ms=1_000)
            began = time.monotonic_ns()
            try:
                await self.threads.run(snapshot.recent, self.folder, place, now_ms, self.bounds.rows_max)
            except (duckdb.Error, OSError) as error:
                raise RecordUnwritable(f"what is asked cannot be made: {error}"[:200]) from error
            self._made_ms, self._took_ms = now_ms, (time.monotonic_ns() - began) // 1_000_000

    async def _work(self, asked: Asked) -> list[Any]:
        kept = {name: os.environ[name] for name in ("SYSTEMROOT", "LD_LIBRARY_PATH") if name in os.environ}
        kept["MALLOC_ARENA_MAX"] = "1"  # else each of DuckDB's threads takes 64 MiB of the room that a question has
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "antiphon.stats.worker", env=kept, cwd=self.folder, limit=OUTPUT_BYTES_MAX,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        bound_ms = START_MS + asked.time_ms * len(asked.statements)
        try:
            out, err = await asyncio.wait_for(process.communicate(orjson.dumps(asdict(asked))), bound_ms / 1_000)
        except TimeoutError:
            raise QueryLimit(f"it took longer than {bound_ms} ms") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return _read(out, err, process.returncode)


def _read(out: bytes, err: bytes, code: int | None) -> list[Any]:
    """Return the tables that a worker has written, or raise what it says."""
    try:
        answer = orjson.loads(out)
    except orjson.JSONDecodeError:
        if code is not None and code < 0:
            raise QueryLimit(f"the worker was ended by signal {-code}: it took too much time or memory") from None
        log.warning("record.worker_failed", code=code, error=err.decode(errors="replace")[-300:])
        raise Internal("the worker has said nothing; see the recorder's log") from None
    if "refused" in answer:
        raise InvalidQuery(answer["refused"])
    if "limit" in answer:
        raise QueryLimit(answer["limit"])
    tables: list[Any] = answer["tables"]
    return tables
