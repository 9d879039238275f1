"""Actions through real masters and nodes, on both buses: every job ends, and says what became of each node."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field

from antiphon import ActionContext, JobResult
from antiphon.actors.actions import Actions
from antiphon.actors.waits import Waits
from antiphon.errors import (
    Declined,
    HandlerFailed,
    InvalidReply,
    InvalidSetting,
    Malformed,
    NotAllowed,
    OutOfBudget,
    Overloaded,
    Oversize,
    Unconfirmed,
    UnknownAction,
    UnknownJob,
    UnknownNode,
)
from antiphon.messages.actions import ActionContract, ActionRun, JobEnd, JobGet, JobLine, RunState
from antiphon.messages.jobs import ActionFinished, JobReported
from antiphon.messages.policy import ActionRule
from antiphon.node import Node
from antiphon.responder import NodeBounds
from fabrics import until
from fleet import Fleet


class Sync(BaseModel):
    since: str = "yesterday"
    pages: int = Field(default=1, ge=1, le=100)


class Synced(BaseModel):
    records: int
    state: str = "ok"


SYNC: dict[str, Any] = {"params": Sync, "result": Synced, "aggregates": {"records": "sum", "state": "histogram"}}


async def sync(params: Sync) -> Synced:
    """Fetch what has changed."""
    return Synced(records=10 * params.pages)


def states(result: JobResult) -> dict[str, str]:
    return {line.node: str(line.state) for line in result.lines}


class Gate:
    """A handler that waits until it is let go, and tells who has come in."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.cut: list[str] = []
        self.open = asyncio.Event()

    def handler(self, node: str) -> Any:
        async def wait(context: ActionContext) -> str:
            self.inside.append(node)
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cut.append(node)
                raise
            return context.key

        return wait


async def shops(fleet: Fleet, *names: str, **actions: Any) -> None:
    for name in names:
        await fleet.node(name, actions=actions)


# -- what comes of it


async def test_one_node_answers_a_call_with_its_result(fleet: Fleet) -> None:
    await fleet.master()
    await shops(fleet, "shop", sync=(sync, SYNC))
    client = await fleet.client()
    assert await client.call("sync", Sync(pages=3), node="shop") == {"records": 30, "state": "ok"}
    assert await client.call("sync", {"pages": 2}, node="shop", returns=Synced) == Synced(records=20)


async def test_all_nodes_do_it_once_and_their_results_are_summed_up(fleet: Fleet) -> None:
    await fleet.master()
    facts = await fleet.heard(ActionFinished)
    await shops(fleet, "blog", "crm", "shop", sync=(sync, SYNC))
    client = await fleet.client()
    job = await client.run("sync", Sync(pages=2), everywhere=True)
    result = await job.result()
    assert result.results == {name: {"records": 20, "state": "ok"} for name in ("blog", "crm", "shop")}
    assert (result.end, result.is_complete, result.no_answer) == (JobEnd.DONE, True, ())
    by_field = {one.field: one for one in result.totals}
    assert (by_field["records"].value, by_field["records"].count) == (60, 3)
    assert [(one.value, one.count) for one in by_field["state"].buckets] == [("ok", 3)]
    await until(lambda: len(facts) == 1)
    assert (facts[0].job, facts[0].caller, facts[0].counts.succeeded) == (job.id, "web", 3)
    assert all(line.result is None for line in facts[0].nodes), "facts keep no results"


async def test_what_a_handler_raises_comes_as_a_typed_error_and_keeps_its_secrets(fleet: Fleet) -> None:
    async def buggy() -> None:
        raise RuntimeError("password=hunter2")

    async def declining() -> None:
        raise Declined("no such product")

    await fleet.master()
    await shops(fleet, "shop", buggy=buggy, declining=declining)
    client = await fleet.client()
    with pytest.raises(HandlerFailed, match="RuntimeError") as failed:
        await client.call("buggy", node="shop")
    assert "hunter2" not in failed.value.text
    with pytest.raises(Declined, match="no such product"):
        await client.call("declining", node="shop")


async def test_one_node_that_fails_leaves_the_others_their_results(fleet: Fleet) -> None:
    async def failing() -> None:
        raise RuntimeError

    async def fine() -> int:
        return 1

    await fleet.master()
    await fleet.node("bad", actions={"tidy": failing})
    await fleet.node("good", actions={"tidy": fine})
    result = await (await (await fleet.client()).run("tidy", everywhere=True)).result()
    assert states(result) == {"bad": "failed", "good": "succeeded"}
    assert result.results == {"good": 1}
    assert [line.code for line in result.failed] == ["handler_failed"]


async def test_a_result_that_is_too_large_or_not_as_declared_is_refused_at_the_node(fleet: Fleet) -> None:
    async def huge() -> str:
        return "x" * 40_000

    async def other() -> dict[str, str]:
        return {"records": "many"}

    await fleet.master()
    await shops(fleet, "shop", huge=huge, other=(other, {"result": Synced}))
    client = await fleet.client()
    with pytest.raises(Oversize):
        await client.call("huge", node="shop")
    with pytest.raises(Exception, match="records"):
        await client.call("other", node="shop")


async def test_a_result_that_the_contract_does_not_allow_is_refused_by_the_master_too(fleet: Fleet) -> None:
    """A node in another language, or one that lies: it says that it has succeeded."""

    async def lying() -> dict[str, str]:
        return {"records": "many"}

    await fleet.master()
    node = await fleet.node("shop", actions={"sync": (lying, {"result": Synced, "aggregates": {"records": "sum"}})})
    action = node._actions["sync"]
    node._actions["sync"] = replace(action, result=None)  # the contract says as before
    client = await fleet.client()
    with pytest.raises(InvalidReply, match=r"result.records: .*integer"):
        await client.call("sync", node="shop")
    result = await (await client.run("sync", everywhere=True)).result()
    assert (states(result), result.totals[0].count) == ({"shop": "failed"}, 0)
    assert result.failed[0].result is None


async def test_a_plain_handler_runs_in_a_thread_and_tells_how_far_it_is(fleet: Fleet) -> None:
    names: list[str] = []

    def plain(params: Sync, context: ActionContext) -> Synced:
        names.append(threading.current_thread().name)
        context.tell(1, params.pages, "first")
        return Synced(records=context.left_ms > 0)

    await fleet.master()
    await shops(fleet, "shop", sync=(plain, SYNC))
    assert (await (await fleet.client()).call("sync", node="shop"))["records"] == 1
    assert names[0].startswith("node:shop")


async def test_a_plain_handler_is_told_of_a_cancel_and_the_job_says_that_it_may_go_on(fleet: Fleet) -> None:
    began, noticed = threading.Event(), threading.Event()

    def plain(context: ActionContext) -> None:
        began.set()
        while not context.is_cancelled:
            noticed.wait(0.005)
        noticed.set()

    await fleet.master()
    await shops(fleet, "shop", wait=plain)
    job = await (await fleet.client()).run("wait", nodes=["shop"])
    await until(began.is_set)
    await job.cancel()
    result = await job.result()
    assert states(result) == {"shop": "cancelled"}
    assert "may go on" in (result.lines[0].text or "")
    await until(noticed.is_set)


# -- what is refused before anybody is asked


async def test_bad_params_are_refused_by_the_master_and_name_the_field(fleet: Fleet) -> None:
    began: list[int] = []

    async def noting(params: Sync) -> None:
        began.append(params.pages)

    await fleet.master()
    await shops(fleet, "blog", "shop", sync=(noting, {"params": Sync}))
    client = await fleet.client()
    wrongs: tuple[dict[str, Any], ...] = ({"pages": "3"}, {"pages": 0}, {"since": 1})
    for wrong in wrongs:
        with pytest.raises(Malformed, match=f"params.{next(iter(wrong))}"):
            await client.run("sync", wrong, everywhere=True)
    assert began == []


async def test_who_and_what_is_not_there_is_told_apart(fleet: Fleet) -> None:
    await fleet.master()
    await shops(fleet, "shop", sync=(sync, SYNC))
    client = await fleet.client()
    with pytest.raises(UnknownNode):
        await client.run("sync", nodes=["nobody"])
    with pytest.raises(UnknownAction):
        await client.run("nothing", nodes=["shop"])
    with pytest.raises(UnknownAction):
        await client.run("sync", where="region=mars")
    with pytest.raises(Malformed, match="say where"):
        await client.run("sync")
    with pytest.raises(UnknownJob):
        await client.job("nosuchjob").news()


async def test_what_is_destructive_has_to_be_confirmed_and_can_be_tried(fleet: Fleet) -> None:
    gone: list[str] = []

    async def purge(context: ActionContext) -> str:
        if context.dry_run:
            return "would go"
        gone.append(context.job)
        return "gone"

    await fleet.master()
    await shops(
        fleet,
        "shop",
        purge=(purge, {"effect": "destructive", "dry_run": True}),
        wipe=(purge, {"effect": "destructive"}),
    )
    client = await fleet.client()
    with pytest.raises(Unconfirmed, match="1 node: shop"):
        await client.run("purge", everywhere=True)
    assert await client.call("purge", node="shop", dry_run=True) == "would go"
    with pytest.raises(Malformed, match="no dry run"):
        await client.call("wipe", node="shop", dry_run=True)
    assert gone == []
    assert await client.call("purge", node="shop", confirmed=True) == "gone"
    assert len(gone) == 1


async def test_policy_says_who_may_run_what_where(fleet: Fleet) -> None:
    await fleet.master()
    await shops(fleet, "blog", "shop", sync=(sync, SYNC), tidy=(sync, {"params": Sync}))
    operator, web, other = await fleet.client("ops"), await fleet.client("web"), await fleet.client("other")
    await operator.set_policy(action=[ActionRule(who=("web",), actions=("sync",), nodes=("shop",))])
    assert (await web.call("sync", node="shop"))["records"] == 10
    with pytest.raises(NotAllowed):
        await web.run("sync", nodes=["blog"])
    with pytest.raises(NotAllowed):
        await web.run("tidy", everywhere=True)
    with pytest.raises(NotAllowed):
        await other.run("sync", everywhere=True)
    job = await web.run("sync", everywhere=True)
    result = await job.result()
    assert states(result) == {"shop": "succeeded"}
    assert result.view.not_allowed == ("blog",)
    assert [(one.contract.name, one.nodes) for one in await web.actions()] == [("sync", ("shop",))]
    assert await other.actions() == ()


# -- while it runs


async def test_progress_comes_in_order_and_the_end_comes_last(fleet: Fleet) -> None:
    async def slow(params: Sync, context: ActionContext) -> int:
        for page in range(params.pages):
            await context.progress(page, params.pages, f"page {page}")
            await asyncio.sleep(0.03)
        return params.pages

    await fleet.master()
    await fleet.node("shop", actions={"sync": (slow, {"params": Sync})}, bounds=NodeBounds(progress_ms=10))
    job = await (await fleet.client()).run("sync", Sync(pages=8), nodes=["shop"])
    seen: list[JobLine] = [line async for line in job]
    done = [line.done for line in seen]
    assert done == sorted(done)
    assert len(set(done)) > 2, "it was told while it ran"
    assert [line.state for line in seen if line.state is not RunState.RUNNING][-1] is RunState.SUCCEEDED
    assert seen[-1].result == 8


async def test_cancel_reaches_running_handlers_and_asks_nobody_more(fleet: Fleet) -> None:
    gate = Gate()
    await fleet.master()
    for name in ("blog", "crm", "shop"):
        await fleet.node(name, actions={"wait": gate.handler(name)})
    client = await fleet.client()
    job = await client.run("wait", everywhere=True, parallel=2)
    await until(lambda: len(gate.inside) == 2)
    view = await job.cancel()
    assert (view.end, view.by) == (JobEnd.CANCELLED, "web")
    assert sorted(gate.cut) == sorted(gate.inside)
    assert len(gate.inside) == 2, "the third was never asked"
    result = await job.result()
    assert sorted(states(result).values()) == ["cancelled", "cancelled", "skipped"]


async def test_a_job_is_taken_up_from_elsewhere_through_another_master_and_is_nobody_elses(fleet: Fleet) -> None:
    gate = Gate()
    await fleet.master("master-1")
    await fleet.node("shop", actions={"wait": gate.handler("shop")})
    job = await (await fleet.client("web")).run("wait", nodes=["shop"])
    await until(lambda: gate.inside)
    await fleet.master("master-2")
    again = (await fleet.client("web")).job(job.id)
    for _ in range(6):
        await again.news()
    assert again.view is not None
    assert again.view.counts.running == 1
    gate.open.set()
    result = await again.result()
    assert result.results == {"shop": f"{job.id}/shop"}
    for _ in range(4):  # whichever master is asked
        assert (await (await fleet.client("web")).job(job.id).result()).results == result.results


async def test_a_silent_node_is_no_answer_after_its_time_and_the_job_ends(fleet: Fleet) -> None:
    async def stuck() -> None:
        await asyncio.sleep(3_600)

    await fleet.master()
    await shops(fleet, "blog", "shop", wait=stuck)
    result = await (await (await fleet.client()).run("wait", everywhere=True, timeout_ms=200)).result()
    assert {line.code for line in result.lines} == {"out_of_budget"}
    assert result.end is JobEnd.DONE
    with pytest.raises(OutOfBudget):
        await (await fleet.client()).call("wait", node="shop", timeout_ms=200)


async def test_the_deadline_of_the_job_ends_it_and_skips_who_was_not_asked(fleet: Fleet) -> None:
    gate = Gate()
    await fleet.master()
    for name in ("blog", "shop"):
        await fleet.node(name, actions={"wait": gate.handler(name)})
    job = await (await fleet.client()).run("wait", everywhere=True, parallel=1, deadline_ms=300)
    result = await job.result()
    assert result.end is JobEnd.DEADLINE
    assert states(result)["shop"] == "skipped"
    assert states(result)["blog"] in ("no_answer", "failed")


async def test_a_canary_that_fails_stops_the_rest(fleet: Fleet) -> None:
    began: list[str] = []

    async def failing(context: ActionContext) -> None:
        began.append(context.key)
        raise RuntimeError

    await fleet.master()
    names = [f"shop-{number}" for number in range(5)]
    await shops(fleet, *names, deploy=failing)
    result = await (await (await fleet.client()).run("deploy", everywhere=True, canary=True)).result()
    assert (result.end, len(began)) == (JobEnd.STOPPED, 1)
    assert sorted(states(result).values()) == ["failed", "skipped", "skipped", "skipped", "skipped"]


async def test_a_breaker_held_open_skips_its_node_and_may_stop_the_job(fleet: Fleet) -> None:
    await fleet.master()
    await shops(fleet, "blog", "crm", "shop", sync=(sync, SYNC))
    client = await fleet.client()
    await client.breaker("open", "blog", verb="run")
    skipped = await (await client.run("sync", everywhere=True)).result()
    assert states(skipped) == {"blog": "skipped", "crm": "succeeded", "shop": "succeeded"}
    assert (skipped.lines[0].code, skipped.end) == ("open", JobEnd.DONE)
    stopped = await (await client.run("sync", everywhere=True, stop_after=1)).result()
    assert (set(states(stopped).values()), stopped.end) == ({"skipped"}, JobEnd.STOPPED)
    assert (await client.search("anything")).coverage.expected == 0


async def test_suspended_nodes_are_skipped_and_count_as_no_failure(fleet: Fleet) -> None:
    await fleet.master()
    await shops(fleet, "blog", "shop", sync=(sync, SYNC))
    client = await fleet.client()
    await client.suspend("blog")
    result = await (await client.run("sync", everywhere=True, canary=True)).result()
    assert states(result) == {"blog": "skipped", "shop": "succeeded"}
    assert result.end is JobEnd.DONE


async def test_it_runs_on_one_instance_and_the_same_request_is_the_same_job(fleet: Fleet) -> None:
    began: list[str] = []

    async def once(context: ActionContext) -> str:
        began.append(context.job)
        return context.job

    await fleet.master()
    await fleet.node("shop", instance="i1", actions={"once": once})
    await fleet.node("shop", instance="i2", actions={"once": once})
    client = await fleet.client()
    jobs = [await client.run("once", nodes=["shop"], request_id="the-same") for _ in range(3)]
    assert len({job.id for job in jobs}) == 1
    assert (await jobs[-1].result()).is_complete
    assert began == [jobs[0].id]


async def test_a_report_of_who_is_no_target_changes_nothing(fleet: Fleet) -> None:
    gate = Gate()
    await fleet.master()
    await fleet.node("shop", actions={"wait": gate.handler("shop")})
    job = await (await fleet.client()).run("wait", nodes=["shop"])
    await until(lambda: gate.inside)
    evil = await fleet.bus("evil")
    told = {"number": 9, "end": {"state": "succeeded", "result": "forged"}}
    await evil.publish(JobReported.model_validate(told), job=job.id, instance="one")
    await evil.transport.flush()
    gate.open.set()
    result = await job.result()
    assert result.results == {"shop": f"{job.id}/shop"}


async def test_any_nats_client_finds_the_contract_by_discovery(fleet: Fleet) -> None:
    await fleet.master()
    await shops(fleet, "shop", sync=(sync, SYNC))
    told = orjson.loads(await (await fleet.client()).bus.ask_bytes("$SRV.INFO.shop", b"", budget_ms=2_000))
    [metadata] = [one["metadata"] for one in told["endpoints"] if one["name"] == "run_action"]
    contract = ActionContract.model_validate_json(metadata["sync"])
    assert (contract.effect, contract.description) == ("write", "Fetch what has changed.")
    assert contract.params is not None
    assert contract.params["properties"] == {
        "since": {"default": "yesterday", "type": "string"},
        "pages": {"default": 1, "maximum": 100, "minimum": 1, "type": "integer"},
    }


async def test_an_action_that_cannot_be_one_is_refused_where_it_is_written() -> None:
    node = Node("shop")
    with pytest.raises(InvalidSetting):
        node.action("a b")(sync)
    with pytest.raises(InvalidSetting):
        node.action("sync")(lambda params, context: None)
    node.action("sync", params=Sync)(sync)
    with pytest.raises(InvalidSetting):
        node.action("sync", params=Sync)(sync)
    with pytest.raises(InvalidSetting):
        node.action("sum", params=Sync, result=Synced, aggregates={"nothing": "sum"})(sync)


async def test_those_who_wait_for_jobs_leave_room_for_others(fleet: Fleet) -> None:
    gate, role = Gate(), await fleet.master()
    [actions] = [one for one in role.supervisor.children if isinstance(one, Actions)]
    actions.waits = Waits(2, 2)
    await fleet.node("shop", actions={"hold": gate.handler("shop")})
    web = await fleet.bus("web")
    ask = ActionRun(action="hold", everywhere=True, wait_ms=30_000)
    waiting = [asyncio.ensure_future(web.ask(ask, request_id="same", budget_ms=40_000)) for _ in range(2)]
    await until(lambda: len(actions.waits) == 2)
    async with asyncio.timeout(10):
        view = await web.ask(ask, request_id="same", budget_ms=40_000)
        assert view.end is None, "one too many is answered at once"
        with pytest.raises(Overloaded):
            await web.ask(JobGet(job=view.job, wait_ms=30_000, recorded=2**40), budget_ms=40_000)
        assert (await web.ask(JobGet(job=view.job))).job == view.job, "who does not wait is answered"
    gate.open.set()
    assert {str(one.end) for one in await asyncio.gather(*waiting)} == {"done"}
