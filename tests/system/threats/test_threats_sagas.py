"""Attacks on sagas: other nodes' outcomes, histories, and starts without policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon import Saga
from antiphon.actors.saga_driver import SagaDriver
from antiphon.actors.sagas import Sagas
from antiphon.decide import saga_desk
from antiphon.messages.base import Kind
from antiphon.messages.saga_desk import SagaSubmit
from antiphon.messages.saga_history import SagaEnded
from antiphon.messages.steps import StepEnd, StepEnded
from arena import Scene, both, drawn, in_one_account, inbox, let_all, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")


def driver_of(scene: Scene) -> SagaDriver:
    return next(one for one in scene.role.supervisor.children if isinstance(one, Sagas)).driver


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
