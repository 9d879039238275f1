"""Sagas through real masters and nodes, on both buses: each ends, whole or undone."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel

from antiphon import ActionContext, Saga
from antiphon.errors import (
    Declined,
)
from antiphon.messages.saga import SagaRetry
from antiphon.messages.saga_desk import (
    SagaState,
    SagaSubmit,
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
    bus = await fleet.buses.open(caller)
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
