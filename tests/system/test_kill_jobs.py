"""Jobs over real processes that die in mid-run: each ends, and says what is known of every node and what is not."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from antiphon import Client, Job, JobResult
from antiphon.bus.protocol import Delivery
from antiphon.errors import AntiphonError
from antiphon.messages.actions import JobEnd, RunState
from fabrics import NatsFabric, until
from fleet import Fleet, fleet_on
from processes import Processes

NODE = """
import asyncio, sys
import nats
from antiphon import ActionContext, Node
from antiphon.bus.connect import connect

name, instance, url, prefix = sys.argv[1:]
node = Node(name, instance=instance)
free = asyncio.Event()

async def hold(context: ActionContext):
    await context.progress(1, 2, "half")
    await told(f"test.holding.{name}")
    try:
        await free.wait()
    except asyncio.CancelledError:
        await told(f"test.cut.{name}")
        raise
    return {"key": context.key}

async def told(subject):
    await side.publish(subject, b"")
    await side.flush()

node.action("hold")(hold)
node.action("again", idempotent=True)(hold)

async def let_go(_message):
    free.set()

async def main():
    global side
    side = await nats.connect(url)
    await side.subscribe(f"test.free.{name}", cb=let_go)
    await node.start(bus=await connect(name, nats=url, prefix=prefix))
    await node.joined()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def fleet(nats_fabric: NatsFabric) -> AsyncIterator[Fleet]:
    async with fleet_on(nats_fabric, heartbeat_ms=100, misses_max=3, job_gone_ms=300) as started:
        yield started


@pytest.fixture
async def patient(nats_fabric: NatsFabric) -> AsyncIterator[Fleet]:
    """It takes a node that comes back late for no one that has gone away."""
    async with fleet_on(nats_fabric, heartbeat_ms=100, misses_max=3) as started:
        yield started


@pytest.fixture
def processes(nats_fabric: NatsFabric) -> Iterator[Processes]:
    started = Processes(nats_fabric, NODE)
    with started.stack:
        yield started


class Side:
    """What handlers say beside the fabric, and a word to let one go."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.holding: list[str] = []
        self.cut: list[str] = []

    async def listen(self) -> Side:
        async def hear(delivery: Delivery) -> None:
            _test, what, node = delivery.subject.split(".")
            {"holding": self.holding, "cut": self.cut}[what].append(node)

        for what in ("holding", "cut"):
            await self.client.bus.transport.subscribe(f"test.{what}.*", hear)
        await self.client.bus.transport.flush()
        return self

    async def let_go(self, node: str) -> None:
        await self.client.bus.transport.publish(f"test.free.{node}", b"")
        await self.client.bus.transport.flush()


async def there(client: Client, *nodes: str) -> None:
    """Return when these have joined."""
    async with asyncio.timeout(30):
        while {node.node for node in await client.nodes() if node.status == "active"} != set(nodes):  # noqa: ASYNC110 - a listing sends no event
            await asyncio.sleep(0.01)


async def until_answered(client: Client, *nodes: str) -> None:
    """Return when these have joined at a master that is only just starting."""
    while True:
        try:
            return await there(client, *nodes)
        except AntiphonError:
            await asyncio.sleep(0.01)


async def so_far(job: Job, state: RunState, count: int) -> None:
    """Return when so many nodes of a job are in a state, as its readers see it."""
    async with asyncio.timeout(30):
        while sum(line.state is state for line in job.lines.values()) != count:
            await job.news(1_000)


def states(result: JobResult) -> dict[str, str]:
    return {line.node: str(line.state) for line in result.lines}


@pytest.mark.parametrize("action", ["hold", "again"])
async def test_a_node_killed_in_mid_job_gives_no_answer_and_the_others_their_results(
    fleet: Fleet, processes: Processes, action: str
) -> None:
    await fleet.master()
    doomed, _ = processes.start("shop", "one"), processes.start("blog", "one")
    client = await fleet.client()
    await there(client, "blog", "shop")
    side = await Side(client).listen()
    began = time.perf_counter()
    job = await client.run(action, everywhere=True, timeout_ms=60_000)
    await until(lambda: sorted(side.holding) == ["blog", "shop"])
    doomed.kill()
    doomed.wait()
    await side.let_go("blog")
    result = await job.result()
    assert states(result) == {"blog": "succeeded", "shop": "no_answer"}, "it may have done it: never 'skipped'"
    assert result.no_answer == ("shop",)
    assert result.results == {"blog": {"key": f"{job.id}/blog"}}
    assert result.view.counts.no_answer == 1
    assert time.perf_counter() - began < 30, "nobody waits a minute for who has gone away"


async def test_a_frozen_node_is_waited_for_and_its_result_counts(fleet: Fleet, processes: Processes) -> None:
    role = await fleet.master()
    process = processes.start("shop", "one")
    client = await fleet.client()
    await there(client, "shop")
    side = await Side(client).listen()
    job = await client.run("hold", nodes=["shop"])
    await until(lambda: side.holding)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await until(lambda: role.view.current.nodes["shop"].alive == ())
        for _ in range(3):  # it is asked after, and listens
            await job.news(1_000)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert not job.is_over
    await side.let_go("shop")
    assert (await job.result()).results == {"shop": {"key": f"{job.id}/shop"}}


async def test_a_job_whose_master_is_killed_is_lost_and_what_its_nodes_reported_is_there(
    fleet: Fleet, processes: Processes
) -> None:
    """With `--parallel 2`: `a` reports before the master dies, `b` after it, `c` never, and `d` was never asked."""
    doomed = processes.start_master("master-1")
    for name in "abcd":
        processes.start(name, "one")
    client = await fleet.client()
    await until_answered(client, "a", "b", "c", "d")
    side = await Side(client).listen()
    job = await client.run("hold", everywhere=True, parallel=2)
    await until(lambda: sorted(side.holding) == ["a", "b"])
    await side.let_go("a")
    await until(lambda: len(side.holding) == 3)
    await fleet.master("master-2")
    doomed.kill()
    doomed.wait()
    await side.let_go("b")
    again = (await fleet.client()).job(job.id)
    await so_far(again, RunState.SUCCEEDED, 2)
    result = await again.result()
    assert (result.end, result.view.master) == (JobEnd.LOST, "master-1")
    assert states(result) == {"a": "succeeded", "b": "succeeded", "c": "no_answer", "d": "skipped"}
    assert result.results == {name: {"key": f"{job.id}/{name}"} for name in "ab"}
    # nobody runs it any more, and still its handlers can be told so
    view = await again.cancel()
    await until(lambda: side.cut == ["c"])
    assert view.end is JobEnd.LOST


async def test_cancel_reaches_handlers_in_other_processes(fleet: Fleet, processes: Processes) -> None:
    await fleet.master()
    for name in ("blog", "crm", "shop"):
        processes.start(name, "one")
    client = await fleet.client()
    await there(client, "blog", "crm", "shop")
    side = await Side(client).listen()
    job = await client.run("hold", everywhere=True, parallel=2)
    await until(lambda: len(side.holding) == 2)
    view = await job.cancel()
    assert (view.end, view.by) == (JobEnd.CANCELLED, "web")
    await until(lambda: len(side.cut) == 2)
    assert sorted(side.cut) == sorted(side.holding)
    result = await job.result()
    assert sorted(states(result).values()) == ["cancelled", "cancelled", "skipped"]


async def test_a_server_killed_in_mid_job_loses_no_result(
    patient: Fleet, processes: Processes, nats_fabric: NatsFabric
) -> None:
    fleet = patient
    await fleet.master()
    processes.start("shop", "one")
    client = await fleet.client()
    await there(client, "shop")
    side = await Side(client).listen()
    job = await client.run("hold", nodes=["shop"])
    await until(lambda: side.holding)
    await nats_fabric.lose()
    await nats_fabric.bring_back()
    async with asyncio.timeout(20):
        while not job.is_over:
            await side.let_go("shop")  # until the handler's own connection is back, it hears nothing
            await job.news(200)
    result = await job.result()
    assert result.results == {"shop": {"key": f"{job.id}/shop"}}
