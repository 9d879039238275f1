"""Sagas as a client asks for them, on both buses: every verb, who may do what, and a wait that outlives a master."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import ActionContext, Client, Saga, SagaRun
from antiphon.decide.identities import IdentityRecord
from antiphon.errors import (
    AlreadySubmitted,
    Declined,
    HandlerFailed,
    InvalidSaga,
    Malformed,
    NoResponders,
    NotAllowed,
    SagaUndone,
    UnknownNode,
    UnknownSaga,
    WrongState,
)
from antiphon.messages.base import Kind
from antiphon.messages.policy import ActionRule
from antiphon.messages.saga import SagaCompensation, SagaRetry
from antiphon.messages.saga_desk import SagaState, SagaView
from fabrics import until
from fleet import Fleet

FAST = SagaRetry(attempts_max=1, rounds_max=1, base_ms=1, cap_ms=1)


class Order(BaseModel):
    user: str = "ann"
    cents: int = 100
    paid: str = ""


class Shop:
    """What the shop's handlers have done, in order; one of them may be held, or be told to fail."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.began: list[str] = []
        self.contexts: list[ActionContext] = []
        self.failing: dict[str, Iterator[Exception | None]] = {}
        self.held: dict[str, asyncio.Event] = {}

    def hold(self, name: str) -> asyncio.Event:
        self.held[name] = asyncio.Event()
        return self.held[name]

    def fail(self, name: str, *errors: Exception | None) -> None:
        """Have a handler raise these, one after the other, the last one for ever."""
        self.failing[name] = iter([*errors, *[errors[-1]] * 1_000])

    async def open(self, fleet: Fleet, **nodes: tuple[str, ...]) -> None:
        wanted = nodes or {"users": ("verify",), "bank": ("charge", "refund"), "post": ("send", "unsend")}
        for node, actions in wanted.items():
            await fleet.node(node, actions={one: (self.handler(one), {"params": Order}) for one in actions})

    def handler(self, name: str) -> Any:
        async def handle(params: Order, context: ActionContext) -> dict[str, Any]:
            self.began.append(name)
            self.contexts.append(context)
            if name in self.held:
                await self.held[name].wait()
            error = next(self.failing.get(name, iter([None])))
            if error is not None:
                raise error
            self.done.append(name)
            return {"id": f"{name}-{params.user}", "cents": params.cents, "paid": params.paid}

        return handle


def checkout(**send: Any) -> Saga:
    given: dict[str, Any] = {"user": "{{input.user}}"}
    return (
        Saga("checkout")
        .step("verify", node="users", params=given)
        .step("charge", node="bank", params=given, compensate=SagaCompensation(action="refund", retry=FAST))
        .step("send", node="post", params=given | {"paid": "{{steps.charge.result.id}}"}, retry=FAST, **send)
    )


ANN = {"user": "ann"}


async def opened(fleet: Fleet) -> tuple[Shop, Client]:
    shop = Shop()
    await fleet.master()
    await shop.open(fleet)
    return shop, await fleet.client("web")


def states(view: SagaView) -> dict[str, tuple[str, str | None]]:
    return {one.step: (one.state, one.undo) for one in view.steps}


async def moved(run: SagaRun, state: SagaState) -> SagaView:
    """Watch a saga until it is in a state."""
    async with asyncio.timeout(20):
        async for view in run:
            if view.state is state:
                return view
    raise AssertionError(f"it never was {state}, but is {run}")


# -- beginning, and its end


async def test_results_come_by_step_and_refer_to_earlier_ones(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    run = await web.submit(checkout(), ANN, id="order-1")
    assert (await run.result())["send"] == {"id": "send-ann", "cents": 100, "paid": "charge-ann"}
    assert shop.done == ["verify", "charge", "send"]
    assert [(one.key, one.attempt, one.step, one.undo) for one in shop.contexts[:1]] == [
        ("order-1/1f", 1, "verify", None)
    ]
    view = await run.view(history=True)
    assert [one.event for one in view.history] == ["started", *["commanded", "succeeded"] * 3, "ended"]


@pytest.mark.parametrize("given", [{"user": object()}, {"user": b"\xff"}, ["user"], "user", 5])
async def test_what_is_no_json_is_refused_before_anybody_is_asked(fleet: Fleet, given: Any) -> None:
    client = await fleet.client("web")
    for asking in (client.submit(checkout(), given), client.validate(checkout(), given), client.run("charge", given)):
        with pytest.raises(Malformed):
            await asking


async def test_without_an_id_one_is_drawn_here(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    one, two = await web.submit(checkout(), ANN, wait=True), await web.submit(checkout(), ANN, wait=True)
    assert one.id != two.id
    assert (one.is_over, len(shop.done)) == (True, 6)
    assert [line.id for line in await web.sagas()] == sorted((one.id, two.id))


async def test_the_same_id_again_is_the_same_saga_and_another_input_is_refused(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    for _ in range(3):
        run = await web.submit(checkout(), ANN, id="order-1", wait=True)
        assert run.last is not None
        assert run.last.state is SagaState.COMPLETED
    assert shop.done == ["verify", "charge", "send"]
    with pytest.raises(AlreadySubmitted):
        await web.submit(checkout(), {"user": "bob"}, id="order-1")
    with pytest.raises(AlreadySubmitted):
        await (await fleet.client("other")).submit(checkout(), ANN, id="order-1")


async def test_the_same_id_is_the_same_saga_also_when_it_could_not_begin_any_more(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    run = await web.submit(checkout(), ANN, id="order-1", wait=True)
    await (await fleet.client("ops")).set_policy(action=[ActionRule(who=("nobody",), actions=("verify",))])
    again = await web.submit(checkout(), ANN, id="order-1", wait=True)
    assert await again.result() == await run.result()
    with pytest.raises(NotAllowed):
        await web.submit(checkout(), ANN, id="order-2")
    with pytest.raises(AlreadySubmitted):
        await web.submit(checkout(), {"user": "bob"}, id="order-1")
    assert len(shop.done) == 3


async def test_who_wants_results_is_told_why_there_are_none(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    shop.fail("send", Declined("the address is a lake"))
    run = await web.submit(checkout(), ANN, id="order-1")
    with pytest.raises(SagaUndone, match="order-1 was compensated; step_failed send declined the address is a lake"):
        await run.result()
    assert shop.done == ["verify", "charge", "refund"]
    refund = shop.contexts[-1]
    assert refund.undo is not None
    assert (refund.key, refund.undo.is_known) == ("order-1/2b", True)
    assert refund.undo.result == {"id": "charge-ann", "cents": 100, "paid": ""}


async def test_a_wait_outlives_the_master_that_was_asked(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    gate = shop.hold("charge")
    run = await web.submit(checkout(), ANN, id="order-1")
    waiting = asyncio.ensure_future(run.result())
    await until(lambda: "charge" in shop.began)
    await fleet.master("master-2")
    await fleet.stop("master")
    gate.set()
    async with asyncio.timeout(40):
        assert (await waiting)["charge"] == {"id": "charge-ann", "cents": 100, "paid": ""}


async def test_it_begins_later(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    run = await web.submit(checkout(), ANN, delay_ms=1_000)
    assert run.last is not None
    assert run.last.state is SagaState.SCHEDULED
    assert [line.id for line in await web.sagas(state="scheduled")] == [run.id]
    assert shop.began == []
    view = await run.ended()
    assert view.state is SagaState.COMPLETED
    first = view.steps[0].began_ms
    assert first is not None
    assert view.begins_ms - view.started_ms == 1_000
    assert first >= view.begins_ms
    with pytest.raises(Malformed, match="either"):
        await web.submit(checkout(), ANN, delay_ms=1, start_at_ms=1)


# -- steering


async def test_cancel_waits_for_what_runs_and_undoes_it(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    gate = shop.hold("charge")
    run = await web.submit(checkout(), ANN)
    await until(lambda: "charge" in shop.began)
    view = await run.cancel("changed my mind")
    assert view.state is SagaState.COMPENSATING
    gate.set()
    view = await run.ended()
    assert (view.state, shop.done) == (SagaState.COMPENSATED, ["verify", "charge", "refund"])
    assert view.cause is not None
    assert (view.cause.reason, view.cause.by) == ("cancelled", "web")
    with pytest.raises(WrongState, match="has ended"):
        await run.cancel()


async def test_nothing_begins_while_it_is_paused(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    gate = shop.hold("charge")
    run = await web.submit(checkout(), ANN)
    await until(lambda: "charge" in shop.began)
    with pytest.raises(WrongState, match="not paused"):
        await run.resume()
    assert (await run.pause()).state is SagaState.PAUSED
    gate.set()
    await until(lambda: "charge" in shop.done)
    async with asyncio.timeout(20):
        while dict(states(await run.view()))["charge"] != ("succeeded", None):
            pass
    assert (await run.view()).state is SagaState.PAUSED
    assert "send" not in shop.began
    await run.resume()
    assert (await run.ended()).state is SagaState.COMPLETED


async def parked(fleet: Fleet, *errors: Exception | None) -> tuple[Shop, SagaRun]:
    """A saga that cannot be undone, because a refund fails."""
    shop, web = await opened(fleet)
    shop.fail("send", Declined("no such address"))
    shop.fail("refund", *errors or (Declined("the bank is shut"),))
    run = await web.submit(checkout(), ANN, id="order-1", wait=True)
    assert run.is_parked
    [line] = await web.sagas(state="parked")
    assert (line.id, line.step, line.text) == ("order-1", "charge", "the bank is shut")
    return shop, run


async def test_a_parked_step_is_tried_again(fleet: Fleet) -> None:
    shop, run = await parked(fleet, Declined("the bank is shut"), None)
    ops = (await fleet.client("ops")).saga(run.id)
    with pytest.raises(WrongState, match="not parked at send"):
        await ops.retry("send")
    with pytest.raises(WrongState, match="only of a pivot"):
        await ops.resolve(outcome="failed")
    await ops.retry("charge", text="it is open again")
    view = await run.ended()
    assert (view.state, view.left) == (SagaState.COMPENSATED, ())
    assert shop.done == ["verify", "charge", "refund"]
    history = (await ops.view(history=True)).history
    assert "ordered retry: it is open again ops" in [f"{one.event} {one.text} {one.who}" for one in history]


async def test_a_parked_step_is_skipped_and_stays_named(fleet: Fleet) -> None:
    shop, run = await parked(fleet)
    await run.skip()
    view = await run.ended()
    assert (view.state, view.left, shop.done) == (SagaState.COMPENSATED, ("charge",), ["verify", "charge"])
    with pytest.raises(SagaUndone, match="not undone: charge"):
        await run.result()


async def test_a_parked_step_is_resolved_by_hand(fleet: Fleet) -> None:
    _, run = await parked(fleet)
    await run.resolve("charge", text="paid back at the counter")
    view = await run.ended()
    assert (view.state, view.left) == (SagaState.COMPENSATED, ())


async def test_a_saga_is_abandoned_as_it_stands(fleet: Fleet) -> None:
    shop, run = await parked(fleet)
    view = await run.abandon()
    assert (view.state, view.left) == (SagaState.ABANDONED, ("charge",))
    assert (await run.ended()).state is SagaState.ABANDONED
    assert shop.done == ["verify", "charge"]


async def test_what_is_resolved_has_the_result_that_a_person_says(fleet: Fleet) -> None:
    """Behind a pivot there is only forward: what fails there parks."""
    shop, web = await opened(fleet)
    shop.fail("send", Declined("no such address"))
    saga = (
        Saga("order")
        .step("charge", node="bank", pivot=True)
        .step("send", node="post", retry=FAST)
        .step("tell", "send", node="post", params={"user": "{{steps.send.result.by}}"}, critical=False, retry=FAST)
    )
    run = await web.submit(saga, wait=True)
    assert run.is_parked
    with pytest.raises(WrongState, match="past its pivot"):
        await run.cancel()
    await run.resolve(result={"by": "courier"})
    view = await run.ended()
    assert view.state is SagaState.COMPLETED
    assert states(view) == {"charge": ("succeeded", None), "send": ("succeeded", None), "tell": ("failed", None)}
    assert view.results["send"] == {"by": "courier"}


# -- the shape of a saga


async def test_branches_run_at_once_and_meet(fleet: Fleet) -> None:
    shop = Shop()
    await fleet.master()
    await shop.open(fleet, stock=("reserve", "release"), bank=("charge", "refund"), post=("send",))
    web = await fleet.client()
    gates = [shop.hold("reserve"), shop.hold("charge")]
    saga = (
        Saga("order")
        .step("reserve", node="stock", after=(), compensate="release")
        .step("charge", node="bank", after=(), compensate="refund")
        .step("send", node="post", after=("reserve", "charge"), retry=FAST)
    )
    assert saga.waves == (("reserve", "charge"), ("send",))
    shop.fail("send", Declined("no"))
    run = await web.submit(saga)
    await until(lambda: sorted(shop.began) == ["charge", "reserve"])
    for gate in gates:
        gate.set()
    view = await run.ended()
    assert states(view) == {
        "reserve": ("succeeded", "succeeded"),
        "charge": ("succeeded", "succeeded"),
        "send": ("failed", None),
    }
    assert shop.done[2:] == ["refund", "release"]


async def test_best_effort_is_not_waited_to_succeed(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    shop.fail("send", HandlerFailed("no paper"))
    run = await web.submit(checkout(critical=False), ANN, wait=True)
    assert run.last is not None
    assert (run.last.state, states(run.last)["send"]) == (SagaState.COMPLETED, ("failed", None))
    assert sorted(run.last.results) == ["charge", "verify"]


async def test_a_failing_handler_is_called_again_with_the_same_key(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    shop.fail("verify", HandlerFailed("busy"), HandlerFailed("busy"), None)
    retry = SagaRetry(attempts_max=3, base_ms=1, cap_ms=1)
    run = await web.submit(Saga("look").step("verify", node="users", retry=retry), id="look-1", wait=True)
    assert run.last is not None
    assert (run.last.state, run.last.steps[0].attempts) == (SagaState.COMPLETED, 3)
    assert [(one.key, one.attempt) for one in shop.contexts] == [("look-1/1f", 1), ("look-1/1f", 2), ("look-1/1f", 3)]


async def test_where_picks_a_node_and_says_when_there_is_none(fleet: Fleet) -> None:
    await fleet.master()
    shop = Shop()
    charge = {"charge": (shop.handler("charge"), {"params": Order})}
    await fleet.node("bank-eu", actions=charge, metadata={"region": "eu"})
    await fleet.node("bank-us", actions=charge, metadata={"region": "us"})
    web = await fleet.client()
    run = await web.submit(Saga("pay").step("charge", where="region=us"), wait=True)
    assert run.last is not None
    assert run.last.steps[0].node == "bank-us"
    with pytest.raises(UnknownNode):
        await web.submit(Saga("pay").step("charge", where="region=mars"))


# -- what is wrong, and who may


async def test_validate_says_all_that_is_wrong_and_begins_nothing(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    verdict = await web.validate(checkout(), ANN)
    assert (verdict.problems, verdict.waves) == ((), (("verify",), ("charge",), ("send",)))
    wrong = (
        Saga("wrong")
        .step("a", "verify", node="users", params={"cents": "many"})
        .step("b", "fly", node="users")
        .step("c", "verify", node="nobody", params={"user": "{{steps.z.result.id}}"})
        .step("d", "verify", where="region=mars")
    )
    found = {(one.step, one.code) for one in (await web.validate(wrong)).problems}
    assert {("a", "params"), ("b", "unknown_action"), ("c", "unknown_node"), ("d", "no_node")} < found
    with pytest.raises(InvalidSaga):
        await web.submit(wrong)
    with pytest.raises(InvalidSaga, match="input"):
        await web.submit(checkout(), {})
    with pytest.raises(InvalidSaga, match="fly"):
        await web.submit(Saga("x").step("b", "fly", node="users"))
    assert await web.sagas() == ()
    assert shop.began == []


async def test_a_saga_is_its_callers_and_the_operators(fleet: Fleet) -> None:
    shop = Shop()
    role = await fleet.master()
    await shop.open(fleet)
    kinds = {"web": Kind.PUBLISHER, "other": Kind.PUBLISHER, "ops": Kind.OPERATOR}
    people = {name: IdentityRecord(name=name, kind=kind) for name, kind in kinds.items()}
    role.access.replace(role.access.current.with_identities(people))
    web, other, ops = [await fleet.client(name) for name in kinds]
    shop.fail("send", Declined("no"))
    shop.fail("refund", Declined("no"))
    run = await web.submit(checkout(), ANN, id="order-1", wait=True)
    assert run.is_parked

    assert await other.sagas() == ()
    assert await other.sagas(caller="web") == ()
    for ask in (other.saga("order-1").view(), other.saga("order-1").cancel(), other.saga("order-1").skip()):
        with pytest.raises(UnknownSaga):
            await ask
    with pytest.raises(UnknownSaga):
        await other.saga("order-2").view()
    for order in ("retry", "skip", "resolve", "abandon"):
        with pytest.raises(NotAllowed, match="only an operator"):
            await run.order(order)

    assert [one.id for one in await ops.sagas(caller="web", state="parked", name="checkout")] == ["order-1"]
    assert [one.id for one in await web.sagas()] == ["order-1"]
    assert await ops.sagas(caller="other") == ()
    assert await ops.sagas(name="payroll") == ()
    await ops.saga("order-1").skip(text="written off")
    assert (await run.ended()).left == ("charge",)
    assert [one.state for one in await ops.sagas(state=SagaState.COMPENSATED)] == [SagaState.COMPENSATED]
    assert await ops.sagas(state=SagaState.COMPLETED) == ()


async def test_the_policy_counts_for_steps_and_for_what_undoes_them(fleet: Fleet) -> None:
    shop, web = await opened(fleet)
    ops = await fleet.client("ops")
    await ops.set_policy(action=[ActionRule(who=("web",), actions=("verify", "charge", "send"))])
    with pytest.raises(NotAllowed, match="charge: you may not run refund on bank"):
        await web.submit(checkout(), ANN)
    codes = {(one.step, one.code) for one in (await web.validate(checkout())).problems}
    assert codes == {("charge", "not_allowed")}
    assert (await web.submit(Saga("look").step("verify", node="users"), wait=True)).is_over
    assert shop.done == ["verify"]


async def test_nobody_is_there(fleet: Fleet) -> None:
    web = await fleet.client()
    with pytest.raises(NoResponders):
        await web.submit(checkout(), ANN)
