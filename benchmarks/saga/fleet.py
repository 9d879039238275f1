"""The processes of the saga benchmark: a real server, masters, and a node process a step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import BaseModel

from antiphon import Node, Saga
from antiphon.app import MasterRole
from antiphon.bus.connect import connect
from antiphon.settings import Settings
from benchmarks.search.fleet import until_told

NODES = ("alpha", "beta", "gamma")
THREE = Saga("three").step("a", "do", node="alpha", params={"at": "{{input.at}}"}, compensate="undo")
THREE = THREE.step("b", "do", node="beta", params={"at": "{{steps.a.result.at}}"}, compensate="undo")
THREE = THREE.step("c", "do", node="gamma", params={"at": "{{steps.b.result.at}}"}, compensate="undo")
ONE = Saga("one").step("a", "do", node="alpha", params={"at": "{{input.at}}"})


class At(BaseModel):
    """What a step is given, and what it returns."""

    at: int


def node(url: str, name: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the main of a node's process."""

    async def main() -> None:
        one = Node(name, instance="one")

        @one.action("do", params=At, result=At)
        async def do(params: At) -> At:
            return At(at=params.at + 1)

        @one.action("undo", params=At)
        async def undo(_params: At) -> None:
            pass

        await one.start(url)
        await one.joined()
        await until_told()
        await one.stop()

    return main


def master(url: str, name: str, shards: int = 1) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return the main of a master's process."""

    async def main() -> None:
        settings = Settings(actions_per_minute=0, caller_per_minute=0, saga_history_ms=60_000, saga_shards=shards)
        bus = await connect(name, nats=url, bounds=settings.bus())
        role = MasterRole(bus, settings)
        await role.start()
        running = asyncio.ensure_future(role.run())
        await until_told()
        role.supervisor.stop()
        await running
        await bus.close()

    return main
