"""Sagas whose nodes and masters die in the middle, in virtual time: somebody goes on, with the same keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import ActionContext, Saga
from antiphon.actors.saga_book import SagaBook
from antiphon.decide.saga import Append
from antiphon.decide.saga_desk import begin
from antiphon.decide.saga_log import Ticket
from antiphon.errors import InvalidSaga, Overloaded
from antiphon.messages.saga import SagaRetry
from antiphon.messages.saga_desk import SagaGet, SagaList, SagaOrder, SagaState, SagaSubmit, SagaView
from antiphon.messages.saga_history import SagaParked
from antiphon.testing import TestFleet, virtual_run
from fabrics import until


class Charge(BaseModel):
    user: str


class Ledger:
    """What was begun and what was done; a gate holds a handler in the middle."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.done: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.inside = asyncio.Event()

    def handler(self, name: str) -> Any:
        async def handle(params: Charge, context: ActionContext) -> str:
            self.keys.append(context.key)
            if name in self.gates:
                self.inside.set()
                await self.gates[name].wait()
            self.done.append(name)
            return f"{name} {params.user}"

        return handle

    def actions(self, *names: str, **more: Any) -> dict[str, Any]:
        return {name: (self.handler(name), {"params": Charge} | more) for name in names}


async def submit(fleet: TestFleet, saga: Saga, name: str) -> SagaView:
    bus = await fleet.bus("web")
    return await bus.ask(SagaSubmit(id=name, definition=saga.definition, wait=True), budget_ms=60_000)


Story = Callable[[TestFleet, Ledger], Awaitable[None]]


async def once_at_most(fleet: TestFleet, ledger: Ledger) -> None:
    await fleet.master()
    actions = ledger.actions("charge", at_most_once=True) | ledger.actions("refund")
    await fleet.node("bank", actions=actions)
    saga = Saga("once").step("charge", node="bank", params={"user": "ann"}, compensate="refund", timeout_ms=8_000)
    ledger.gates["charge"] = asyncio.Event()
    running = asyncio.ensure_future(submit(fleet, saga, "order"))
    await ledger.inside.wait()
    ledger.gates.clear()
    await fleet.crash("bank")
    await fleet.restart("bank")
    view = await running
    assert view.state is SagaState.COMPENSATED
    assert view.cause is not None
    assert view.cause.reason == "step_unknown"
    assert ledger.keys == ["order/1f", "order/1b"], "it was begun once, though its node came back in time"


async def once_at_most_past_the_pivot(fleet: TestFleet, ledger: Ledger) -> None:
    await fleet.master()
    actions = ledger.actions("send", at_most_once=True) | ledger.actions("charge")
    await fleet.node("bank", actions=actions)
    params = {"user": "ann"}

    def sending(**how: Any) -> Saga:
        pivot = Saga("once").step("charge", node="bank", params=params, pivot=True)
        return pivot.step("send", node="bank", params=params, timeout_ms=8_000, **how)

    with pytest.raises(InvalidSaga, match="rounds_max"):
        await submit(fleet, sending(), "refused")
    ledger.gates["send"] = asyncio.Event()
    running = asyncio.ensure_future(submit(fleet, sending(retry=SagaRetry(rounds_max=1)), "order"))
    await ledger.inside.wait()
    ledger.gates.clear()
    await fleet.crash("bank")
    await fleet.restart("bank")
    assert (await running).state is SagaState.PARKED, "a person finds out whether it was done"
    assert ledger.keys == ["order/1f", "order/2f"]


async def another_instance(fleet: TestFleet, ledger: Ledger) -> None:
    await fleet.master()
    for instance in ("one", "two"):
        await fleet.node("bank", instance=instance, actions=ledger.actions("charge"))
    ledger.gates["charge"] = asyncio.Event()
    saga = Saga("again").step("charge", node="bank", params={"user": "ann"})
    running = asyncio.ensure_future(submit(fleet, saga, "order"))
    await ledger.inside.wait()
    ledger.gates.clear()
    view = await (await fleet.bus("web")).ask(SagaGet(id="order"))
    assert view.state is SagaState.RUNNING
    for name in ("bank.one", "bank.two"):  # one of them works on it
        await fleet.crash(name)
        await fleet.restart(name)
    view = await running
    assert view.state is SagaState.COMPLETED
    assert set(ledger.keys) == {"order/1f"}, "whoever does it has the same key"
    assert len(ledger.keys) >= 2


async def another_master(fleet: TestFleet, ledger: Ledger) -> None:
    await fleet.master("master-1")
    await fleet.node("bank", actions=ledger.actions("verify", "charge", "send"))
    saga = Saga("checkout")
    for name in ("verify", "charge", "send"):
        saga = saga.step(name, node="bank", params={"user": "ann"})
    ledger.gates["charge"] = asyncio.Event()
    bus = await fleet.bus("web")
    await bus.ask(SagaSubmit(id="order", definition=saga.definition))
    await ledger.inside.wait()
    await fleet.master("master-2")
    await fleet.crash("master-1")
    ledger.gates["charge"].set()
    view = await submit(fleet, saga, "order")  # the same again is the same saga: this waits for its end
    assert view.state is SagaState.COMPLETED
    assert ledger.done == ["verify", "charge", "send"]
    assert view.results["send"] == "send ann"


async def everybody(fleet: TestFleet, ledger: Ledger) -> None:
    await fleet.master("master-1")
    await fleet.node("bank", actions=ledger.actions("charge"))
    ledger.gates["charge"] = asyncio.Event()
    bus = await fleet.bus("web")
    saga = Saga("alone").step("charge", node="bank", params={"user": "ann"})
    await bus.ask(SagaSubmit(id="order", definition=saga.definition))
    await ledger.inside.wait()
    ledger.gates.clear()
    await fleet.crash("bank")
    await fleet.crash("master-1")
    await fleet.restart("master-1")
    await fleet.restart("bank")
    assert (await submit(fleet, saga, "order")).state is SagaState.COMPLETED
    assert ledger.keys == ["order/1f", "order/1f"]


STORIES: dict[str, Story] = {
    "what may happen once at most is left unknown by a node that dies": once_at_most,
    "past the pivot it is not begun again either": once_at_most_past_the_pivot,
    "a step goes on at another instance when its own dies": another_instance,
    "another master goes on where one has died": another_master,
    "all that ran it die and come back": everybody,
}


@pytest.mark.parametrize("story", STORIES)
def test_a_story(story: str) -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3) as fleet:
            await STORIES[story](fleet, ledger)

    virtual_run(tell())


@pytest.mark.parametrize("is_once", [False, True])
def test_after_its_time_of_an_ended_saga_its_end_alone_is_kept(is_once: bool) -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3, saga_history_ms=60_000) as fleet:
            await fleet.master()
            await fleet.node("bank", actions=ledger.actions("charge", at_most_once=is_once))
            saga = Saga("short").step("charge", node="bank", params={"user": "ann"})
            whole = await submit(fleet, saga, "order")
            bus = await fleet.bus("web")
            before = await bus.ask(SagaGet(id="order", history=True))
            assert [one.event for one in before.history] == ["started", "commanded", "succeeded", "ended"]
            await asyncio.sleep(120)
            after = await bus.ask(SagaGet(id="order", history=True))
            assert [one.event for one in after.history] == ["ended"]
            assert after.model_copy(update={"history": (), "begins_ms": 0, "deadline_ms": 0}) == whole.model_copy(
                update={"begins_ms": 0, "deadline_ms": 0}
            )
            assert (await submit(fleet, saga, "order")).results == {"charge": "charge ann"}, (
                "its id still stands for it"
            )
            assert ledger.keys == ["order/1f"]
            await asyncio.sleep(2 * 3_600)  # that was looked after, too
            prefix = fleet.settings.prefix
            subjects = {subject for log in fleet.server.logs.values() for subject in log.subjects(f"{prefix}.v1.>")}
            left = {one for one in subjects if one.split(".")[2] in ("saga", "outcome")}
            assert left == {f"{prefix}.v1.saga.order.k.end"}

    virtual_run(tell())


def test_sagas_are_spread_over_shards_and_found_again_whatever_dies() -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3, saga_shards=4, saga_history_ms=60_000) as fleet:
            await fleet.master("master-1")
            await fleet.node("bank", actions=ledger.actions("charge"))
            bus = await fleet.bus("web")
            saga = Saga("short").step("charge", node="bank", params={"user": "ann"})
            names = [f"order-{at}" for at in range(12)]
            ledger.gates["charge"] = asyncio.Event()
            for name in names:
                await bus.ask(SagaSubmit(id=name, definition=saga.definition))
            streams = {log.stream.name for log in fleet.server.logs.values() if log.subjects("*.v1.saga.*.k.start")}
            assert len(streams) == 4, "each shard has some"
            await fleet.master("master-2")
            await fleet.crash("master-1")
            ledger.gates["charge"].set()
            ends = [await submit(fleet, saga, name) for name in names]
            assert {view.state for view in ends} == {SagaState.COMPLETED}
            listing = await bus.ask(SagaList(state=SagaState.COMPLETED))
            assert [one.id for one in listing.sagas] == sorted(names)
            await asyncio.sleep(200)
            assert [
                log.subjects("*.v1.saga.*.k.start")
                for log in fleet.server.logs.values()
                if log.subjects("*.v1.saga.*.k.start")
            ] == []

    virtual_run(tell())


def test_one_that_rests_is_looked_at_seldom_and_an_order_is_seen_to_at_once_whoever_dies() -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3) as fleet:
            await fleet.master("master-1")
            await fleet.node("bank", actions=ledger.actions("charge"))
            bus = await fleet.bus("web")
            saga = Saga("later").step("charge", node="bank", params={"user": "ann"})
            await bus.ask(SagaSubmit(id="delayed", definition=saga.definition, delay_ms=5 * 3_600_000))
            await bus.ask(SagaSubmit(id="paused", definition=saga.definition, delay_ms=60_000))
            await bus.ask(SagaOrder(id="paused", order="pause"))
            timers = fleet.server.logs[f"{fleet.settings.prefix}-timers"]
            before = timers.sequence
            await asyncio.sleep(3_600)
            assert timers.sequence - before < 40, "two sagas, every ten minutes, set and fired"
            # the master that has stored an order dies before it can do anything about it
            orders = fleet.server.logs[f"{fleet.settings.prefix}-sagas"]
            with fleet.faults.drop("master-1", subject="*.v1.saga.*.k.>"):
                asked = asyncio.ensure_future(bus.ask(SagaOrder(id="paused", order="resume"), budget_ms=1_000))
                await until(lambda: len(orders.subjects("*.v1.saga.paused.x.*")) == 2)
                await fleet.crash("master-1")
            await fleet.master("master-2")
            await asyncio.gather(asked, return_exceptions=True)
            await asyncio.sleep(30)
            assert (await bus.ask(SagaGet(id="paused"))).state is SagaState.COMPLETED

    virtual_run(tell())


def test_where_there_is_no_room_no_saga_begins_and_those_that_run_end() -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3, saga_bytes_max=16 * 1024 * 1024) as fleet:
            await fleet.master()
            await fleet.node("bank", actions=ledger.actions("verify", "charge", "send"))
            bus = await fleet.bus("web")
            ledger.gates["charge"] = asyncio.Event()
            saga = Saga("slow")
            for name in ("verify", "charge", "send"):
                saga = saga.step(name, node="bank", params={"user": "ann"}, timeout_ms=3_600_000)
            held = SagaSubmit(id="held", definition=saga.definition)
            await bus.ask(held)
            await ledger.inside.wait()
            quick = Saga("quick").step("verify", node="bank", params={"user": "ann"}).definition

            async def fill(size: int) -> None:
                for at in range(1_000):
                    await bus.ask(SagaSubmit(id=f"s{size}-{at}", definition=quick, input={"text": "x" * size}))
                    await asyncio.sleep(0.1)

            for size in (30_000, 3_000, 0):  # until not even the smallest is taken
                with pytest.raises(Overloaded):
                    await fill(size)
            assert (await bus.ask(held)).state is SagaState.RUNNING, "the same again is no new one"
            ledger.gates["charge"].set()
            await asyncio.sleep(30)
            assert (await bus.ask(SagaGet(id="held"))).state is SagaState.COMPLETED

    virtual_run(tell())


def test_a_saga_that_is_a_bug_to_look_at_does_not_end_the_looking() -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3) as fleet:
            other, prefix = await fleet.bus("master-2"), fleet.settings.prefix
            book = await SagaBook.open(other, 1_000)
            saga = Saga("odd").step("charge", node="bank", params={"user": "ann"})
            start = begin(saga.submission(id="odd"), "web", lambda _step: None)
            # no version has written that: its deadline is later than what can be shown
            seq = await book.make("odd", Append(start.model_copy(update={"start_at_ms": 2**53}), 0))
            assert seq is not None
            await book.make("odd", Append(SagaParked(step="charge", code="odd"), seq, Ticket(1, "f")))
            await fleet.master("master-1")
            await fleet.node("bank", actions=ledger.actions("charge"))
            await asyncio.sleep(30)
            later = SagaSubmit(id="later", definition=saga.definition, delay_ms=3_600_000)
            await (await fleet.bus("web")).ask(later)
            [shard] = book.shards
            await shard.timers.purge(shard.of("later", "t.*"))
            await asyncio.sleep(120)
            assert fleet.server.logs[f"{prefix}-timers"].subjects(f"{prefix}.v1.saga.later.t.set")

    virtual_run(tell())


def test_a_timer_that_has_fired_is_set_again_whoever_gets_it() -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3) as fleet:
            await fleet.master("master-1")
            await fleet.node("bank", actions=ledger.actions("charge"))
            ledger.gates["charge"] = asyncio.Event()
            saga = Saga("slow").step("charge", node="bank", params={"user": "ann"})
            await (await fleet.bus("web")).ask(SagaSubmit(id="order", definition=saga.definition))
            await ledger.inside.wait()
            # another master sets it to an earlier time than this one remembers, as it does for an order
            other, prefix = await fleet.bus("master-2"), fleet.settings.prefix
            book = await SagaBook.open(other, 1_000)
            await book.arm("order", await book.now_ms() + 100)
            await asyncio.sleep(0.5)
            assert fleet.server.logs[f"{prefix}-timers"].subjects(f"{prefix}.v1.saga.order.t.set")
            ledger.gates["charge"].set()

    virtual_run(tell())


def test_one_that_begins_later_begins_then_and_can_be_cancelled_before() -> None:
    async def tell() -> None:
        ledger = Ledger()
        async with TestFleet(seed=3) as fleet:
            await fleet.master()
            await fleet.node("bank", actions=ledger.actions("charge"))
            bus = await fleet.bus("web")
            saga = Saga("later").step("charge", node="bank", params={"user": "ann"})
            for name in ("kept", "cancelled"):
                ask = SagaSubmit(id=name, definition=saga.definition, delay_ms=3_600_000)
                assert (await bus.ask(ask)).state is SagaState.SCHEDULED
            await bus.ask(SagaOrder(id="cancelled", order="cancel"))
            await asyncio.sleep(3_500)
            assert ledger.keys == []
            await asyncio.sleep(200)
            assert (await bus.ask(SagaGet(id="kept"))).state is SagaState.COMPLETED
            assert (await bus.ask(SagaGet(id="cancelled"))).state is SagaState.COMPENSATED
            assert ledger.keys == ["kept/1f"]

    virtual_run(tell())
