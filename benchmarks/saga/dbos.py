"""The same three steps with DBOS Transact on SQLite, where it is installed."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any


class Peer:
    """A DBOS in this process, with one workflow of three steps."""

    def __init__(self, module: Any, path: Path) -> None:
        self._module = module
        dbos = module.DBOS
        logging.getLogger("dbos").setLevel(logging.ERROR)
        module.DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR"})

        @dbos.step()  # type: ignore[untyped-decorator]
        async def do(at: int) -> int:
            return at + 1

        @dbos.workflow()  # type: ignore[untyped-decorator]
        async def three(at: int) -> int:
            for _ in range(3):
                at = await do(at)
            return at

        dbos.launch()
        self._three = three

    async def run(self) -> None:
        """Run the workflow once."""
        assert await self._three(1) == 4

    def close(self) -> None:
        """End it."""
        self._module.DBOS.destroy()


def peer(path: Path) -> Peer | None:
    """Return it, None where it is not installed."""
    try:
        module = importlib.import_module("dbos")
    except ImportError:
        return None
    return Peer(module, path)
