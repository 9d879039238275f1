"""Attacks on sagas: other nodes' outcomes, histories, and starts without policy."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from antiphon import Saga
from antiphon.actors.saga_driver import SagaDriver
from antiphon.actors.sagas import Sagas
from antiphon.actors.waits import Waits
from antiphon.decide import saga_desk, saga_refs
from antiphon.decide.saga import fold, moves
from antiphon.decide.saga_log import Entry
from antiphon.decide.saga_state import Saga as State
from antiphon.errors import Overloaded, WrongState
from antiphon.messages.base import Kind
from antiphon.messages.saga_desk import SagaGet, SagaSubmit
from antiphon.messages.saga_history import SagaEnded, SagaOrdered
from antiphon.messages.steps import StepEnd, StepEnded
from arena import Scene, both, drawn, happens, in_one_account, inbox, let_all, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")


def sagas_of(scene: Scene) -> Sagas:
    return next(one for one in scene.role.supervisor.children if isinstance(one, Sagas))


def driver_of(scene: Scene) -> SagaDriver:
    return sagas_of(scene).driver


async def begun(scene: Scene, node: str) -> str:
    """A saga that waits for what a node will say of its one step."""
    name = drawn("saga")
    saga = Saga("transfer").step("pay", node=node)
    ask = SagaSubmit(id=name, definition=saga.definition)
    assert await driver_of(scene).begin(name, saga_desk.begin(ask, "web", lambda _step: None))
    return name


async def state_of(scene: Scene, name: str) -> str | None:
    end = (await driver_of(scene).loaded(name)).end
    return None if end is None else end.state


@both
async def test_t70_a_node_tells_the_outcome_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node that has learned the id of a saga. Wants: that the bank's step counts as done.

    Defence: the last token of what is told is the node that tells it, the server lets a node publish its own name only,
    and an outcome counts for a command to that node alone. Source: SAGAS, "OUTCOMES"; `decide/grants.py`.
    """
    if not is_defended:
        let_all(monkeypatch)
    bank, evil = await scene.party(Kind.NODE), await scene.party(Kind.NODE)
    attacker, name = await scene.raw(evil), await begun(scene, bank.name)
    told = StepEnded(saga=name, ticket="1f", end=StepEnd(outcome="succeeded")).model_dump_json().encode()
    for writer in (bank.name, evil.name):  # as the bank, and as himself
        await attacker.send(scene.subject(f"saga.outcome.{writer}"), told, inbox(writer))
    if not is_defended:
        assert (await driver_of(scene).ended(name, scene.role.bus.clock.now_ms() + 10_000)).end is not None
    assert await state_of(scene, name) == (None if is_defended else "completed")


@both
async def test_t71_a_node_writes_into_a_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node, even one that could publish anywhere. Wants: that a saga has ended, as he says.

    Defence: the streams of sagas lie in an account that has nobody but masters in it, so what others publish on these
    subjects is kept nowhere. Source: FACTS, hole 1; SAGAS, "Streams and subjects".
    """
    if not is_defended:
        in_one_account(monkeypatch)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        let_all(monkeypatch)  # in both runs: this defence stands behind the first one
        attacker, name = await scene.raw(await scene.party(Kind.NODE)), await begun(scene, "bank")
        end = SagaEnded(state="abandoned", name="transfer", caller="web", digest="0" * 64, started_ms=1)
        await attacker.send(scene.subject(f"saga.{name}.k.end"), end.model_dump_json().encode())
        assert await state_of(scene, name) == (None if is_defended else "abandoned")


@both
async def test_t87_a_few_bytes_name_gigabytes(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a publisher. Wants: that every master who comes to his saga puts together what its references name.

    Defence: what references bring in is counted before it is put together, and a step with more has failed.
    Source: OWASP API Security 2023, API4; STYLE, "Bounded everything".
    """
    if not is_defended:
        monkeypatch.setattr(saga_refs, "JSON_BYTES_MAX", 2**40)
    saga = Saga("bomb").step("pay", node="bank", params={"x": "{{input.a}}" * 400})
    ask = saga.submission({"a": "y" * 30_000}, id=drawn("saga"))
    start = Entry(str(ask.id), 1, 0, saga_desk.begin(ask, "web", lambda _step: None))
    tracemalloc.start()
    moves(fold(State(start.saga), start), 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (peak < 2**20) == is_defended
    del scene


@both
async def test_t88_everybody_is_kept_waiting(scene: Scene, is_defended: bool) -> None:
    """Attacker: a publisher. Wants: that nobody else is answered, and that nodes cannot tell what they have done.

    Defence: a master keeps so many requests waiting for the end of a saga, in all and of one caller; what is more is
    answered at once. Source: OWASP API Security 2023, API4; STYLE, "Bounded everything".
    """
    sagas = sagas_of(scene)
    sagas.conversations.running_max, waits = 4, sagas.waits
    sagas.waits = Waits(2, 2) if is_defended else Waits(2**20, 2**20)
    try:
        name, web = await begun(scene, "bank"), await scene.bus(await scene.party(name="web"))
        waiting = [asyncio.ensure_future(web.ask(SagaGet(id=name, wait=True), budget_ms=30_000)) for _ in range(8)]
        await happens(lambda: len(sagas.conversations) == (2 if is_defended else 4))
        other = await scene.client()
        refused = ""
        try:
            await other.sagas()
        except Overloaded as error:
            refused = error.code
        assert refused == ("" if is_defended else "overloaded")
        for one in waiting:
            one.cancel()
        await driver_of(scene).order(name, SagaOrdered(order="abandon", by="ops"))
        await asyncio.gather(*waiting, return_exceptions=True)
        await happens(lambda: not len(sagas.conversations))
    finally:
        sagas.conversations.running_max, sagas.waits = 1_024, waits


@both
async def test_t89_orders_without_end(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a publisher. Wants: that the history of his saga grows until there is room for nobody's.

    Defence: a saga takes a bounded number of orders, fewer from whoever submitted it than from operators.
    Source: OWASP API Security 2023, API4; STYLE, "Bounded everything".
    """
    monkeypatch.setattr(saga_desk, "OWN_ORDERS_MAX", 4 if is_defended else 2**20)
    name, web = await begun(scene, "bank"), await scene.client(await scene.party(name="web"))
    given = 0
    with suppress(WrongState):
        for _ in range(6):
            await web.saga(name).pause()
            given += 1
    assert given == (4 if is_defended else 6)
