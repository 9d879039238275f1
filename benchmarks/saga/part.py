"""A node of the saga chaos: `python -m benchmarks.saga.part node NAME INSTANCE URL DATA`.

What it does is a row in the ledger of its node, an SQLite file that all its instances share, written through the inbox.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel

from antiphon import ActionContext, Inbox, Node
from antiphon.errors import Declined, HandlerFailed
from antiphon.runtime.loop import run

LOCK_S = 30
FLAKY_SHARE = 0.1
"""Of attempts that fail in a way that passes."""
INBOX = Inbox(sqlite3)


class Work(BaseModel):
    """What a step is to do."""

    fail: str = ""
    """The step that refuses for good."""
    slow_ms: int = 0


def ledger_of(data: Path, node: str) -> Path:
    """Return the ledger of a node."""
    return data / f"{node}.ledger"


def make(path: Path) -> None:
    """Make a ledger where there is none."""
    connection = sqlite3.connect(path, timeout=LOCK_S)
    connection.execute("PRAGMA journal_mode = WAL")
    INBOX.create(connection)
    connection.execute("CREATE TABLE IF NOT EXISTS effects (saga TEXT, step TEXT, way TEXT)")
    connection.commit()
    connection.close()


async def node(name: str, instance: str, url: str, data: str) -> None:
    """Serve until killed."""
    path = ledger_of(Path(data), name)
    make(path)
    one = Node(name, instance=instance)
    dice = random.Random(f"{name}{instance}{time.time_ns()}")

    def change(step: ActionContext, way: str) -> Any:
        def effect(cursor: Any) -> dict[str, str]:
            cursor.execute("INSERT INTO effects VALUES (?, ?, ?)", (step.job, step.step, way))
            return {"key": step.key}

        connection = sqlite3.connect(path, timeout=LOCK_S)
        try:
            return INBOX.once(connection, step, effect)
        finally:
            connection.close()

    @one.action("do", params=Work, compensates="undo")
    def do(params: Work, step: ActionContext) -> Any:
        if params.fail == step.step:
            raise Declined(f"{step.step} is to fail")
        if dice.random() < FLAKY_SHARE:
            raise HandlerFailed("this attempt fails")
        time.sleep(params.slow_ms / 1_000)
        return change(step, "do")

    @one.action("undo", params=Work)
    def undo(_params: Work, step: ActionContext) -> Any:
        return change(step, "undo")

    await one.start(url)
    await one.joined()
    print("joined", flush=True)
    await one.ended()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    _, *words = sys.argv[1:]
    run(node(*words))
