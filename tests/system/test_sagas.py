"""Sagas through real masters and nodes, on both buses: each ends, whole or undone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from antiphon import ActionContext, Saga
from antiphon.actors.sagas import Sagas
from antiphon.bus.codec import encode
from antiphon.errors import (
    AlreadySubmitted,
    Declined,
    InvalidSaga,
    NotAllowed,
    UnknownSaga,
    WrongState,
)
from antiphon.messages.alerts import AlertCleared, AlertRaised
from antiphon.messages.policy import ActionRule
from antiphon.messages.saga import SagaCompensation, SagaDefinition, SagaRetry
from antiphon.messages.saga_desk import (
    SagaGet,
    SagaList,
    SagaOrder,
    SagaState,
    SagaSubmit,
    SagaValidate,
    SagaView,
)
from antiphon.messages.saga_facts import SagaMoved, SagaTurn
from fabrics import until
from fleet import Fleet

FAST = SagaRetry(attempts_max=1, rounds_max=1, base_ms=1, cap_ms=1)


class Charge(BaseModel):
    user: str
    cents: int = 100


class Ledger:
    """What was done, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.keys: list[str] = []
        self.fail: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.inside = asyncio.Event()

    def handler(self, name: str) -> Any:
        async def handle(params: Charge, context: ActionContext) -> dict[str, Any]:
            self.keys.append(context.key)
            if name in self.gates:
                self.inside.set()
                await self.gates[name].wait()
            if name in self.fail:
                raise Declined(f"{name} says no")
            self.done.append(name)
            undone = None if context.undo is None else context.undo.result
            return {"id": f"{name}-{params.user}", "undone": undone}

        return handle


async def shop(fleet: Fleet, ledger: Ledger) -> None:
    names = {"users": ("verify",), "bank": ("charge", "refund"), "post": ("send", "unsend")}
    for node, actions in names.items():
        await fleet.node(node, actions={name: (ledger.handler(name), {"params": Charge}) for name in actions})


def checkout(**more: Any) -> Saga:
    params = {"user": "{{input.user}}"}
    return (
        Saga("checkout")
        .step("verify", node="users", params=params)
        .step("charge", node="bank", params=params, compensate="refund", **more)
        .step("send", node="post", params=params | {"cents": 7}, retry=FAST)
    )


async def submit(fleet: Fleet, saga: Saga, name: str | None = None, *, caller: str = "web", **more: Any) -> SagaView:
    bus = await fleet.bus(caller)
    ask = SagaSubmit(id=name, definition=saga.definition, input={"user": "ann"}, wait=True, **more)
    return await bus.ask(ask, budget_ms=10_000)


async def test_it_completes_step_by_step(fleet: Fleet) -> None:
    ledger = Ledger()
    await fleet.master()
    await shop(fleet, ledger)
    view = await submit(fleet, checkout(), "order-1")
    assert (view.state, ledger.done) == (SagaState.COMPLETED, ["verify", "charge", "send"])
    assert view.results["charge"] == {"id": "charge-ann", "undone": None}
    assert ledger.keys == ["order-1/1f", "order-1/2f", "order-1/3f"]


async def test_a_failing_step_undoes_what_was_done(fleet: Fleet) -> None:
    ledger = Ledger()
    ledger.fail = {"send"}
    await fleet.master()
    await shop(fleet, ledger)
    facts = await fleet.heard(SagaMoved)
    view = await submit(fleet, checkout(), "order-2")
    assert (view.state, ledger.done) == (SagaState.COMPENSATED, ["verify", "charge", "refund"])
    assert view.cause is not None
    assert (view.cause.reason, view.cause.step, view.cause.code) == ("step_failed", "send", "declined")
    await until(lambda: len(facts) == 2)
    assert [one.turn for one in facts] == [SagaTurn.STARTED, SagaTurn.ENDED]


async def test_a_step_whose_result_is_not_what_its_contract_says_was_done_and_is_undone(fleet: Fleet) -> None:
    ledger = Ledger()

    class Receipt(BaseModel):
        number: int

    async def charge(params: Charge) -> Any:
        ledger.done.append("charge")
        return {"number": f"no number, {params.user}"}

    await fleet.master()
    await fleet.node("users", actions={"verify": (ledger.handler("verify"), {"params": Charge})})
    actions: dict[str, Any] = {
        "charge": (charge, {"params": Charge, "result": Receipt}),
        "refund": (ledger.handler("refund"), {"params": Charge}),
    }
    await fleet.node("bank", actions=actions)
    await fleet.node("post", actions={"send": (ledger.handler("send"), {"params": Charge})})
    view = await submit(fleet, checkout(), "order-9")
    assert (view.state, ledger.done) == (SagaState.COMPENSATED, ["verify", "charge", "refund"])
    assert view.cause is not None
    assert (view.cause.reason, view.cause.step, view.cause.code) == ("step_unknown", "charge", "invalid_reply")


async def test_what_can_neither_be_done_nor_undone_is_parked_told_and_mended(fleet: Fleet) -> None:
    ledger = Ledger()
    ledger.fail = {"send", "refund"}
    await fleet.master()
    await shop(fleet, ledger)
    raised, cleared = await fleet.heard(AlertRaised), await fleet.heard(AlertCleared)
    undo = SagaCompensation(action="refund", retry=FAST)
    definition = checkout().definition
    steps = [step.model_copy(update={"compensate": undo}) if step.compensate else step for step in definition.steps]
    bus = await fleet.bus("web")
    ask = SagaSubmit(
        id="order-3", definition=SagaDefinition(name="checkout", steps=tuple(steps)), input={"user": "ann"}
    )
    await bus.ask(ask)
    await until(lambda: [one.alert.id for one in raised] == ["saga_parked:order-3"])
    view = await bus.ask(SagaGet(id="order-3", history=True))
    assert view.state is SagaState.PARKED
    assert [line.step for line in view.steps if line.is_parked] == ["charge"]
    ledger.fail = set()
    ops = await fleet.bus("ops")
    await ops.ask(SagaOrder(id="order-3", order="retry", text="the bank is back"))
    await until(lambda: [one.kind for one in cleared] == ["saga_goes_on"])
    view = await bus.ask(SagaGet(id="order-3"))
    assert (view.state, ledger.done) == (SagaState.COMPENSATED, ["verify", "charge", "refund"])


async def test_the_same_id_is_the_same_saga_and_another_ones_is_refused(fleet: Fleet) -> None:
    ledger = Ledger()
    await fleet.master()
    await shop(fleet, ledger)
    views = await asyncio.gather(*(submit(fleet, checkout(), "order-7") for _ in range(4)))
    assert {view.state for view in views} == {SagaState.COMPLETED}
    assert ledger.done == ["verify", "charge", "send"]
    with pytest.raises(AlreadySubmitted):
        await submit(fleet, checkout(timeout_ms=9_000), "order-7")
    mine = await (await fleet.bus("web")).ask(SagaList(state=SagaState.COMPLETED))
    assert [(one.id, one.done, one.total) for one in mine.sagas] == [("order-7", 3, 3)]


async def test_those_who_wait_leave_room_for_others(fleet: Fleet) -> None:
    ledger = Ledger()
    ledger.gates["charge"] = asyncio.Event()
    role = await fleet.master()
    [sagas] = [one for one in role.supervisor.children if isinstance(one, Sagas)]
    await shop(fleet, ledger)
    web, other = await fleet.bus("web"), await fleet.bus("other")
    await web.ask(SagaSubmit(id="slow", definition=checkout().definition, input={"user": "ann"}))
    waiting = [
        asyncio.ensure_future(web.ask(SagaGet(id="slow", wait=True), budget_ms=60_000))
        for _ in range(sagas.limits.caller_waits_max)
    ]
    await until(lambda: len(sagas.conversations) == len(waiting))
    async with asyncio.timeout(10):  # one too many is answered at once
        assert (await web.ask(SagaGet(id="slow", wait=True), budget_ms=60_000)).state is SagaState.RUNNING
    begin = SagaSubmit(id="quick", definition=checkout().definition, input={"user": "ann"}, wait=True)
    quick = asyncio.ensure_future(other.ask(begin))
    await until(lambda: len(sagas.conversations) == len(waiting) + 1)
    ledger.gates["charge"].set()
    assert {view.state for view in (*await asyncio.gather(*waiting), await quick)} == {SagaState.COMPLETED}


async def test_a_page_holds_as_many_as_one_message_does(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    await fleet.master()
    await shop(fleet, Ledger())
    for name in ("one", "three", "two"):
        await submit(fleet, checkout(), name)
    client = await fleet.client("web")
    whole = await client.sagas()
    monkeypatch.setattr("antiphon.actors.sagas.LISTED_BYTES_MAX", len(encode(whole[0])) + len(encode(whole[1])) + 2)
    page = await (await fleet.bus("web")).ask(SagaList())
    assert ([one.id for one in page.sagas], page.next) == (["one", "three"], "three")
    assert await client.sagas() == whole


async def test_what_cannot_be_carried_out_or_may_not_is_refused_before_anything_happens(fleet: Fleet) -> None:
    ledger = Ledger()
    await fleet.master()
    await shop(fleet, ledger)
    with pytest.raises(InvalidSaga, match="no node 'nobody'"):
        await submit(fleet, Saga("x").step("verify", node="nobody"))
    with pytest.raises(InvalidSaga, match="has no action 'fly'"):
        await submit(fleet, Saga("x").step("fly", node="users"))
    with pytest.raises(InvalidSaga, match="cents"):
        await submit(fleet, Saga("x").step("verify", node="users", params={"user": "ann", "cents": "many"}))
    operator = await fleet.client("ops")
    everything = [ActionRule(who=("web",), actions=(name,), nodes=("*",)) for name in ("verify", "send", "refund")]
    await operator.set_policy(action=everything)
    with pytest.raises(NotAllowed, match="may not run charge on bank"):
        await submit(fleet, checkout())
    bus = await fleet.bus("web")
    verdict = await bus.ask(SagaValidate(definition=checkout().definition))
    assert [(one.code, one.step) for one in verdict.problems] == [("not_allowed", "charge")]
    braces = Saga("x").step("verify", node="users", params={"user": "{{ nobody"}).unchecked
    verdict = await bus.ask(SagaValidate(definition=braces))
    assert [(one.code, one.step) for one in verdict.problems] == [("reference", "verify")]
    assert ledger.done == []
    with pytest.raises(UnknownSaga):
        await bus.ask(SagaOrder(id="order-8", order="cancel"))
    await submit(fleet, Saga("fine").step("verify", node="users", params={"user": "ann"}), "order-9")
    with pytest.raises(WrongState, match="has ended"):
        await bus.ask(SagaOrder(id="order-9", order="cancel"))
