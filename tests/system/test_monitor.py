"""The monitor on both buses: it hears, pings, marks down, brings back, and says once what is wrong."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon import Client
from antiphon.app import MasterRole
from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Delivery
from antiphon.errors import HandlerFailed, NoResponders
from antiphon.messages.alerts import AlertCleared, AlertRaised, OpenAlert
from antiphon.messages.facts import InstanceChanged
from antiphon.messages.lane import Load
from antiphon.messages.monitor import MonitorNode, MonitorView
from antiphon.messages.ping import NodePing, NodePong
from antiphon.messages.registry import HeartBeaten, NodeJoin, Status
from antiphon.testing import TestFleet, virtual_run
from fabrics import MemoryFabric, NatsFabric, own_nats, until
from fleet import Fleet, fleet_on, found

QUICK: dict[str, Any] = {
    "heartbeat_ms": 300,
    "ping_ms": 100,
    "ping_wait_ms": 300,
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


async def shown(client: Client, is_so: Callable[[MonitorView], bool]) -> MonitorView:
    """The first view that is so."""
    async with asyncio.timeout(20):
        while not is_so(view := await client.monitor()):  # noqa: ASYNC110 - the masters are asked again
            await asyncio.sleep(0.02)
    return view


class Pager:
    """A sink."""

    name = "pager"

    def __init__(self) -> None:
        self.told: list[AlertRaised | AlertCleared] = []

    async def send(self, alert: AlertRaised | AlertCleared) -> None:
        self.told.append(alert)
        raise OSError("the pager is broken")


class Puppet:
    """A node made by hand that beats and answers as it is told."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.is_beating = self.is_answering = True
        self.pinged = 0
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        lane = NodePing.route.template.subject(prefix=self.bus.prefix, node=self.bus.name, instance="one")
        await self.bus.transport.subscribe(lane, self._ping)
        await self.bus.ask(NodeJoin(instance="one", capabilities=("search",)), instance="one")
        self._beating = asyncio.ensure_future(self._beat())

    async def stop(self) -> None:
        assert self._beating is not None
        self._beating.cancel()
        await asyncio.wait({self._beating})

    async def _ping(self, delivery: Delivery) -> None:
        self.pinged += 1
        if self.is_answering:
            await self.bus.transport.publish(delivery.reply, encode(NodePong(load=Load(in_flight=3))))

    async def _beat(self) -> None:
        while True:
            if self.is_beating:
                await self.bus.publish(HeartBeaten(load=Load()), instance="one")
            await asyncio.sleep(0.1)


@pytest.fixture
async def puppet(fleet: Fleet) -> AsyncIterator[Puppet]:
    """A puppet that has joined; there is a master."""
    await fleet.master()
    made = Puppet(await fleet.bus("puppet"))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def test_how_everything_is(fleet: Fleet) -> None:
    await fleet.master()
    client = await fleet.client("ops")
    await fleet.node("blog", found("a"), instance="one")
    await fleet.node("blog", found("a"), instance="two")
    for _ in range(30):
        await client.search("whales")

    def is_seen(view: MonitorView) -> bool:
        blog = node_of(view, "blog")
        return bool(blog.requests_per_second and all(one.latency_us for one in blog.instances))

    view = await shown(client, is_seen)
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


async def test_who_beats_and_does_not_answer_is_down_until_it_answers(fleet: Fleet, puppet: Puppet) -> None:
    client = await fleet.client("ops")
    changes = await fleet.heard(InstanceChanged)
    await shown(client, lambda view: node_of(view, "puppet").in_flight == 3)
    puppet.is_answering = False
    view = await shown(client, lambda view: node_of(view, "puppet").status is Status.DOWN)
    assert node_of(view, "puppet").instances[0].misses >= 3
    puppet.pinged = 0
    await until(lambda: puppet.pinged >= 2)
    assert node_of(await client.monitor(), "puppet").status is Status.DOWN, "a beat does not forgive"
    puppet.is_answering = True
    await shown(client, lambda view: node_of(view, "puppet").status is Status.ACTIVE)
    await until(lambda: [fact.change for fact in changes] == ["down", "recovered"])


async def test_who_does_not_serve_pings_is_up_while_it_beats(fleet: Fleet, puppet: Puppet) -> None:
    await puppet.stop()
    client = await fleet.client("ops")
    plain = await fleet.bus("plain")
    await plain.ask(NodeJoin(instance="one"), instance="one")
    for _ in range(12):
        await plain.publish(HeartBeaten(load=Load()), instance="one")
        await asyncio.sleep(0.1)
    assert node_of(await client.monitor(), "plain").status is Status.ACTIVE
    await puppet.start()


async def test_a_node_that_falls_silent_is_told_once_by_two_masters(fleet: Fleet, puppet: Puppet) -> None:
    await fleet.master("master-two")
    client = await fleet.client("ops")
    raised, cleared = await fleet.heard(AlertRaised), await fleet.heard(AlertCleared)
    await shown(client, lambda view: len(view.masters) == 2 and node_of(view, "puppet").status is Status.ACTIVE)
    puppet.is_beating = puppet.is_answering = False
    view = await shown(client, lambda view: bool(view.alerts))
    [alert] = view.alerts
    assert (alert.id, alert.severity, alert.subject) == ("node_down:puppet", "critical", "puppet")
    assert alert.text == "puppet: its one instance does not beat and answer"
    await asyncio.sleep(1.2)  # the other master's turn has come
    assert [fact.alert.id for fact in raised] == ["node_down:puppet"]
    assert cleared == []
    puppet.is_beating = puppet.is_answering = True
    await shown(client, lambda view: not view.alerts)
    await until(lambda: cleared)
    assert [(fact.alert.id, fact.kind) for fact in cleared] == [("node_down:puppet", "node_recovered")]
    assert cleared[0].alert.since_ms == raised[0].alert.since_ms
    assert len(raised) == 1


async def test_sinks_are_told_and_one_that_raises_ends_nothing(fleet: Fleet) -> None:
    pager = Pager()
    role = MasterRole(await fleet.bus("master"), fleet.settings, sinks=[pager])
    await role.start()
    running = asyncio.ensure_future(role.run())
    client = await fleet.client("ops")
    await client.register("ghost")
    await until(lambda: pager.told)
    assert [one.alert.id for one in pager.told] == ["node_down:ghost"]
    assert pager.told[0].alert.text == "ghost: no instance of it is there"
    await client.remove("ghost")
    await until(lambda: len(pager.told) == 2)
    assert isinstance(pager.told[1], AlertCleared)
    assert not role.view.current.nodes
    role.supervisor.stop()
    await running


async def test_errors_and_gaps_are_told(fleet: Fleet) -> None:
    async def broken(_query: Any) -> list[Any]:
        raise HandlerFailed("no")  # an error that is not ours would be logged with its traceback, which takes long

    await fleet.master()
    client = await fleet.client("ops")
    raised = await fleet.heard(AlertRaised)
    await fleet.node("bad", broken)
    await fleet.node("good", found("a"))

    async def search() -> None:
        while True:
            await client.search("whales")
            await asyncio.sleep(0.02)

    searching = asyncio.ensure_future(search())
    try:
        await until(lambda: {"error_rate:bad", "coverage_below:search"} <= {fact.alert.id for fact in raised}, 60)
    finally:
        searching.cancel()
    view = await client.monitor()
    assert 0.4 < (view.coverage or 0) < 0.6
    assert node_of(view, "bad").error_rate == 1.0
    assert node_of(view, "good").error_rate == 0.0


def test_who_looks_later_sees_how_it_is_by_then() -> None:
    fails = 1.0

    async def broken(query: Any) -> list[Any]:
        if int(query.text.removeprefix("whale ")) % 100 < fails * 100:
            raise HandlerFailed("no")
        return []

    async def story() -> None:
        nonlocal fails
        async with TestFleet(**QUICK, retry_permille=0) as fleet:
            for name in ("master", "master-two"):
                await fleet.master(name)
            await fleet.node("bad", broken)
            client, raised = await fleet.client("ops"), await fleet.heard(AlertRaised)

            async def search(seconds: int) -> None:
                for at in range(seconds * 10):
                    await client.search(f"whale {at * 37 % 100}")
                    await fleet.sleep_ms(100)

            def error_rate(view: MonitorView) -> OpenAlert:
                return next(one for one in view.alerts if one.kind == "error_rate")

            await search(12)
            first = error_rate(await client.monitor())
            assert (first.value, first.text) == (1.0, "bad: 100% of its requests fail")
            fails = 0.3
            await search(25)
            later = error_rate(await client.monitor())
            assert 0.2 < later.value < 0.4
            assert later.text == f"bad: {later.value:.0%} of its requests fail"
            assert later.since_ms == first.since_ms
            assert [fact.alert.id for fact in raised].count("error_rate:bad") == 1, "it is told once all the same"

    virtual_run(story())


async def test_an_alert_is_cleared_though_the_server_lost_its_data(nats_fabric: NatsFabric) -> None:
    async with fleet_on(nats_fabric, **QUICK) as fleet:
        await fleet.master()
        await fleet.master("master-two")
        client = await fleet.client("ops")
        raised, cleared = await fleet.heard(AlertRaised), await fleet.heard(AlertCleared)
        await client.register("ghost")
        await until(lambda: raised)
        await nats_fabric.lose()
        assert nats_fabric.server is not None
        shutil.rmtree(nats_fabric.server.data)
        await nats_fabric.bring_back()
        await fleet.node("ghost", found("a"))
        await until(lambda: cleared, 30)
        assert [fact.alert.id for fact in cleared] == ["node_down:ghost"]
        assert len(raised) == 1, "what was lost is not raised anew"
        await shown(client, lambda view: not view.alerts)


async def test_without_a_master_nobody_answers(fleet: Fleet) -> None:
    client = await fleet.client("ops")
    with pytest.raises(NoResponders):
        await client.monitor(wait_ms=500)
