"""The monitor on both buses: it hears, pings, marks down, brings back, and says once what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from antiphon.messages.alerts import AlertCleared, AlertRaised
from antiphon.messages.monitor import MonitorNode, MonitorView
from antiphon.messages.registry import Status
from fabrics import MemoryFabric, own_nats
from fleet import Fleet, fleet_on, found

QUICK: dict[str, Any] = {
    "heartbeat_ms": 300,
    "ping_ms": 100,
    "ping_wait_ms": 150,
    "breaker_failures_max": 10**6,
    "breaker_rate_calls_min": 10**6,
    "caller_per_minute": 0,
}


@pytest.fixture(params=["memory", "nats"])
async def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fleet]:
    if request.param == "memory":
        async with fleet_on(MemoryFabric(), **QUICK) as started:
            yield started
    else:
        async with own_nats(tmp_path / "nats") as fabric, fleet_on(fabric, **QUICK) as started:
            yield started


def node_of(view: MonitorView, name: str) -> MonitorNode:
    return next(node for node in view.nodes if node.node == name)


class Pager:
    """A sink."""

    name = "pager"

    def __init__(self) -> None:
        self.told: list[AlertRaised | AlertCleared] = []

    async def send(self, alert: AlertRaised | AlertCleared) -> None:
        self.told.append(alert)
        raise OSError("the pager is broken")


def fall_silent(fleet: Fleet, at: int) -> None:
    """A node's process stops dead: no beat, no answer, no leave."""
    actor = fleet.nodes[at]._actor
    assert actor is not None


async def test_how_everything_is(fleet: Fleet) -> None:
    await fleet.master()
    client = await fleet.client("ops")
    await fleet.node("blog", found("a"), instance="one")
    await fleet.node("blog", found("a"), instance="two")
    for _ in range(30):
        await client.search("whales")

    async def is_seen() -> bool:
        blog = node_of(await client.monitor(), "blog")
        return bool(blog.requests_per_second and all(one.latency_us for one in blog.instances))

    async with asyncio.timeout(20):
        while not await is_seen():
            await asyncio.sleep(0.05)
    view = await client.monitor()
    blog = node_of(view, "blog")
    assert view.masters == ("master",)
    assert (blog.status, blog.breaker, blog.coverage, blog.error_rate) == (Status.ACTIVE, "closed", 1.0, 0.0)
    assert [(one.instance, one.status, one.misses) for one in blog.instances] == [
        ("one", Status.ACTIVE, 0),
        ("two", Status.ACTIVE, 0),
    ]
    assert 0 < blog.p50_us <= blog.p95_us
    assert 0 <= blog.load < 1
    assert view.alerts == ()
