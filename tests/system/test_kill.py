"""Real processes that die, freeze and come back in mid-search: every answer is partial, honest and on time."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from antiphon import Client, SearchAnswer
from antiphon.bus.protocol import Delivery
from antiphon.decide.asking import AskingBounds
from antiphon.errors import AntiphonError, Malformed, OutOfBudget
from antiphon.responder import NodeBounds
from fabrics import NatsFabric, until
from fleet import Fleet, fleet_on, found
from processes import Processes

BUSY_S = 2.0
"""How late a busy machine may be; a deadline that is not kept is ten seconds late, or never."""

NODE = """
import asyncio, sys
import nats
from antiphon import Hit, Node

name, instance, url, prefix = sys.argv[1:]
node = Node(name, instance=instance)

@node.search
async def search(query):
    if "hold" in query.text:
        await signal.publish(f"test.holding.{name}.{instance}", b"")
        await signal.flush()
        await asyncio.sleep(3600)
    return [Hit(id=instance, title=f"whale of {instance}")]

async def main():
    global signal
    from antiphon.bus.connect import connect
    signal = await nats.connect(url)
    await node.start(bus=await connect(name, nats=url, prefix=prefix))
    await node.joined()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def fleet(nats_fabric: NatsFabric) -> AsyncIterator[Fleet]:
    async with fleet_on(nats_fabric, heartbeat_ms=100, misses_max=3) as started:
        yield started


@pytest.fixture
def processes(nats_fabric: NatsFabric) -> Iterator[Processes]:
    started = Processes(nats_fabric, NODE)
    with started.stack:
        yield started


async def held(client: Client) -> list[str]:
    """Return a list that fills with the lanes on which a question is being held."""
    holding: list[str] = []

    async def hear(delivery: Delivery) -> None:
        holding.append(delivery.subject.removeprefix("test.holding."))

    await client.bus.transport.subscribe("test.holding.>", hear)
    await client.bus.transport.flush()
    return holding


async def wait_for_nodes(fleet: Fleet, client: Client, count: int) -> None:
    """Return when so many instances are active."""
    async with asyncio.timeout(30):
        while sum(e.status == "active" for node in await client.nodes() for e in node.instances) != count:  # noqa: ASYNC110 - the registry sends facts, and a listing is what an operator sees
            await asyncio.sleep(0.01)


def lines(answer: SearchAnswer) -> dict[str, tuple[str, str | None]]:
    return {line.node: (line.outcome.value, line.code) for line in answer.nodes}


async def test_a_node_killed_in_mid_search_leaves_a_partial_honest_answer_on_time(
    fleet: Fleet, processes: Processes
) -> None:
    await fleet.master()
    await fleet.node("blog", found("whale songs"))
    process = processes.start("shop", "one")
    client = await fleet.client()
    holding = await held(client)
    await wait_for_nodes(fleet, client, 2)
    began = time.perf_counter()
    asked = asyncio.ensure_future(client.search("hold whales", deadline_ms=1_000, required=["blog"]))
    await until(lambda: holding == ["shop.one"])
    process.kill()
    answer = await asked
    took = time.perf_counter() - began
    assert 0.5 < took < 1 + BUSY_S, "the deadline is kept"
    assert lines(answer) == {"blog": ("answered", None), "shop": ("timed_out", "out_of_budget")}
    assert (answer.complete, answer.sufficient) == (False, True)
    assert [hit.title for hit in answer.hits] == ["whale songs"]
    process.wait()
    # the server knows that nobody listens any more: the next answer does not wait
    again = await client.search("whales", deadline_ms=10_000)
    assert lines(again)["shop"] in {("failed", "no_responders"), ("skipped_open", "down")}
    assert again.took_us < 5_000_000


async def test_with_a_second_instance_only_the_question_in_flight_suffers(fleet: Fleet, processes: Processes) -> None:
    await fleet.master()
    doomed = processes.start("shop", "one")
    processes.start("shop", "two")
    client = await fleet.client()
    holding = await held(client)
    await wait_for_nodes(fleet, client, 2)
    while True:
        asked = asyncio.ensure_future(client.search("hold whales", deadline_ms=500))
        await until(lambda: holding)
        if holding == ["shop.one"]:
            break
        await asked
        holding.clear()
    doomed.kill()
    doomed.wait()
    others = await asyncio.gather(*(client.search("whales", deadline_ms=5_000) for _ in range(20)))
    assert all(answer.complete for answer in others)
    assert {hit.title for answer in others for hit in answer.hits} == {"whale of two"}
    assert lines(await asked) == {"shop": ("timed_out", "out_of_budget")}


async def test_a_frozen_node_is_waited_for_until_the_deadline_then_skipped_then_back(
    fleet: Fleet, processes: Processes
) -> None:
    role = await fleet.master()
    await fleet.node("blog", found("whale songs"))
    process = processes.start("shop", "one")
    client = await fleet.client()
    await wait_for_nodes(fleet, client, 2)
    assert (await client.search("whales")).complete
    os.kill(process.pid, signal.SIGSTOP)
    try:
        began = time.perf_counter()
        answer = await client.search("whales", deadline_ms=1_000)
        assert time.perf_counter() - began < 1 + BUSY_S
        assert lines(answer) == {"blog": ("answered", None), "shop": ("timed_out", "out_of_budget")}
        await until(lambda: role.view.current.nodes["shop"].active == ())
        answer = await client.search("whales", deadline_ms=10_000)
        assert lines(answer)["shop"] == ("skipped_open", "down")
        assert answer.took_us < 5_000_000, "who is down is not waited for"
        (shop,) = [node for node in await client.nodes() if node.node == "shop"]
        assert shop.status == "down"
    finally:
        os.kill(process.pid, signal.SIGCONT)
    await until(lambda: role.view.current.nodes["shop"].active == ("one",))
    assert (await client.search("whales")).complete
    # what it answered too late was dropped and counted
    await until(lambda: role.bus.counters.late == 1)
    assert role.bus.counters.strays == 0


async def test_a_frozen_master_costs_few_questions_their_deadline(fleet: Fleet, processes: Processes) -> None:
    await fleet.master()
    await fleet.node("blog", found("whale songs"))
    process = processes.start_master("master-2")
    # a short silence, for the test's sake, that a busy machine may exceed without harm
    bounds = AskingBounds(silence_ms_min=100, burst=50, first=50)
    client = Client(bus=(await fleet.client()).bus, asking=bounds)
    seen: set[str] = set()
    async with asyncio.timeout(30):
        while len(seen) < 2:
            seen.add((await client.search("whales")).master)
    for _ in range(50):
        assert (await client.search("whales")).complete
    os.kill(process.pid, signal.SIGSTOP)
    try:
        lost = 0
        for _ in range(40):
            try:
                answer = await client.search("whales", deadline_ms=2_000)
            except OutOfBudget:
                lost += 1
            else:
                assert (answer.complete, answer.master) == (True, "master")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert lost <= 10, "every second one without asking again"
    async with asyncio.timeout(30):
        while (await client.search("whales", deadline_ms=2_000)).master != "master-2":
            pass
    assert client.bus.counters.strays == 0, "what it answers now is late, and known"


async def test_a_server_killed_under_load_ends_every_question_by_its_deadline_and_all_comes_back(
    fleet: Fleet, nats_fabric: NatsFabric
) -> None:
    await fleet.master()
    await fleet.node("blog", found("whale songs"))
    await fleet.node("shop", found("whale watch"))
    client = await fleet.client()
    deadline_ms = 800
    outcomes: Counter[str] = Counter()
    longest_ms = 0.0
    stopped = asyncio.Event()

    async def ask_on() -> None:
        nonlocal longest_ms
        while not stopped.is_set():
            began = time.perf_counter()
            try:
                answer = await client.search("whales", deadline_ms=deadline_ms)
            except AntiphonError as error:
                outcomes[error.code] += 1
                await asyncio.sleep(0.01)  # an asker that is refused at once does not spin
            else:
                outcomes["complete" if answer.complete else "partial"] += 1
            longest_ms = max(longest_ms, (time.perf_counter() - began) * 1_000)

    askers = [asyncio.ensure_future(ask_on()) for _ in range(8)]
    await until(lambda: outcomes["complete"] > 50)
    await nats_fabric.lose()
    await until(lambda: outcomes["not_connected"] > 20)
    await nats_fabric.bring_back()
    before = outcomes["complete"]
    await until(lambda: outcomes["complete"] > before + 50, bound_s=20)
    stopped.set()
    await asyncio.gather(*askers)
    assert longest_ms < deadline_ms + BUSY_S * 1_000, outcomes
    assert set(outcomes) <= {"complete", "partial", "not_connected", "out_of_budget", "no_responders"}, outcomes
    answer = await client.search("whales")
    assert answer.complete
    assert {node.node for node in await client.nodes()} == {"blog", "shop"}


async def test_everything_stops_in_time_while_the_server_is_away(nats_fabric: NatsFabric) -> None:
    async with fleet_on(nats_fabric) as fleet:
        await fleet.master()
        await fleet.node("blog", found("whale songs"))
        client = await fleet.client()
        assert (await client.search("whales")).complete
        await nats_fabric.lose()
        began = time.perf_counter()
    assert time.perf_counter() - began < 5 + BUSY_S


async def test_a_node_that_starts_before_any_master_joins_when_one_comes(
    fleet: Fleet, nats_fabric: NatsFabric, processes: Processes
) -> None:
    processes.start("shop", "one")
    client = await fleet.client()
    role = await fleet.master()
    await until(lambda: "shop" in role.view.current.nodes, 20)
    assert (await client.search("whales")).complete


async def test_a_master_that_is_stopped_hands_over_to_the_next_without_a_word_from_the_nodes(fleet: Fleet) -> None:
    first = await fleet.master("master-1")
    await fleet.node("blog", found("whale songs"))
    client = await fleet.client()
    assert (await client.search("whales")).master == "master-1"
    await fleet.master("master-2")
    answers: list[SearchAnswer] = []
    stopped = asyncio.Event()

    async def ask_on() -> None:
        while not stopped.is_set():
            answers.append(await client.search("whales"))

    asking = asyncio.ensure_future(ask_on())
    await until(lambda: len(answers) > 20)
    first.supervisor.stop()
    await until(lambda: not first.bus.transport.is_connected)
    seen = len(answers)
    await until(lambda: len(answers) > seen + 20)
    stopped.set()
    await asking
    assert all(answer.complete for answer in answers), "no question was lost"
    assert {answer.master for answer in answers[seen + 1 :]} == {"master-2"}


async def test_nodes_come_back_even_when_the_server_lost_its_data(fleet: Fleet, nats_fabric: NatsFabric) -> None:
    bounds = NodeBounds(rejoin_ms=500)
    await fleet.master()
    await fleet.node("blog", found("whale songs"), bounds=bounds)
    await fleet.node("shop", found("whale watch"), bounds=bounds)
    client = await fleet.client()
    assert (await client.search("whales")).coverage.expected == 2
    await nats_fabric.lose()
    assert nats_fabric.server is not None
    shutil.rmtree(nats_fabric.server.data)
    await nats_fabric.bring_back()

    async def expected() -> int | None:
        with suppress(AntiphonError):
            return (await client.search("whales", deadline_ms=300)).coverage.expected
        return None

    seen = [await expected() for _ in range(40)]
    assert set(seen) <= {None, 2}, "no answer calls itself complete without the nodes that were lost"
    later = await fleet.master("master-2")
    # what only the new bucket can tell: a master that has never seen them knows them
    await until(lambda: set(later.view.current.nodes) == {"blog", "shop"})
    answer = await client.search("whales")
    assert (answer.complete, answer.coverage.expected) == (True, 2)


async def test_what_an_operator_holds_survives_a_server_that_lost_its_data_and_can_be_let_go(
    nats_fabric: NatsFabric,
) -> None:
    async with fleet_on(nats_fabric, heartbeat_ms=100) as fleet:
        await fleet.master()
        await fleet.master("master-2")
        await fleet.node("docs", found("whale songs"))
        operator = await fleet.client("ops")
        await operator.breaker("open", "docs")

        async def codes() -> set[str | None]:
            answers = [await operator.search("whales", deadline_ms=2_000) for _ in range(6)]
            return {answer.nodes[0].code for answer in answers}

        async def settled(expected: set[str | None]) -> None:
            async with asyncio.timeout(20):
                while True:
                    with suppress(AntiphonError):
                        if await codes() == expected:
                            return

        await settled({"open"})
        await nats_fabric.lose()
        assert nats_fabric.server is not None
        shutil.rmtree(nats_fabric.server.data)
        await nats_fabric.bring_back()
        await settled({"open"})
        async with asyncio.timeout(20):
            while True:
                with suppress(AntiphonError):
                    await operator.breaker("reset", "docs")
                    break
        await settled({None})
        with pytest.raises(Malformed):
            await operator.breaker("open", "docs", verb="foo")
