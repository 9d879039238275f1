"""Attacks on jobs: other nodes' reports, masters' records, other people's results, forbidden actions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from antiphon.client import Client, user_name
from antiphon.errors import NotAllowed, UnknownJob
from antiphon.messages.actions import JobEnd, JobLine, RunState
from antiphon.messages.base import Kind
from antiphon.messages.jobs import JobRecord, JobReported, RunEnd
from antiphon.messages.policy import ActionRule
from arena import Scene, both, happens, in_one_account, let_all, no, opened, yes

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Held:
    """An action that ends when it is let go."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.free = asyncio.Event()

    async def run(self) -> str:
        self.began.set()
        await self.free.wait()
        return "true"


async def refund() -> str:
    return "true"


@both
async def test_t65_a_node_forges_the_report_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node that has learned the id of a job. Wants: that another node's work counts as done.

    Defence: the last tokens of a report's subject are its instance and node, and the server lets a node publish its own
    only. Source: DESIGN, "Identity is in the subject"; `decide/grants.py`.
    """
    if not is_defended:
        let_all(monkeypatch)
    held, attacker, client = Held(), await scene.raw(await scene.party(Kind.NODE)), await scene.client()
    victim = await scene.node(refund=held.run)
    job = await client.run("refund", nodes=[victim.name])
    await held.began.wait()
    forged = JobReported(number=9, end=RunEnd(state="succeeded", result="forged"))
    subject = scene.subject(f"job.{job.id}.one.{victim.name}")
    await attacker.send(subject, forged.model_dump_json().encode())
    if not is_defended:
        await job.result()  # it is over before its node is
    held.free.set()
    assert (await job.result()).results == {victim.name: "true" if is_defended else "forged"}


@both
async def test_t66_a_node_writes_the_record_of_a_master(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node. Wants: a job that has ended otherwise than it has, in the eyes of all who read it again.

    Defence: the last token of a record's subject is the master that writes it, and the server lets a node write none.
    Source: `decide/grants.py`, from `sent_by` of each message; `decide/job.py`: only a master's record makes a job.
    (That records lie where only masters come is off in both runs: t75.)
    """
    in_one_account(monkeypatch)
    if not is_defended:
        let_all(monkeypatch)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        await forge_a_record(scene, is_defended=is_defended)


async def forge_a_record(scene: Scene, *, is_defended: bool) -> None:
    """Run a job, and write over what its master has written of it."""
    attacker, client, victim = (
        await scene.raw(await scene.party(Kind.NODE)),
        await scene.client(),
        await scene.node(refund=refund),
    )
    job = await client.run("refund", nodes=[victim.name])
    assert (await job.result()).results == {victim.name: "true"}
    line = JobLine(node=victim.name, state=RunState.SUCCEEDED, result="forged")
    record = JobRecord(
        request="x",
        action="refund",
        caller=client.bus.name,
        timeout_ms=1,
        deadline_ms=1,
        started_ms=1,
        end=JobEnd.DONE,
        lines=(line,),
    )
    subject = scene.subject(f"job.{job.id}.{scene.role.bus.name}")
    await attacker.send(subject, record.model_dump_json().encode())
    again = await client.job(job.id).result()
    assert again.results == {victim.name: "true" if is_defended else "forged"}


@both
async def test_t67_a_publisher_reads_and_cancels_the_job_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher that has learned the id of a job. Wants: its results, or its end.

    Defence: masters answer for a job to its caller and to operators; for others there is none. Source: OWASP ASVS 4.2.1
    (insecure direct object references); `actors/actions.py`. (An id is 96 bits of a hash over a random request id.)
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.policy.Access.check_operator", no)
    held, owner, attacker = Held(), await scene.client(), await scene.client()
    victim = await scene.node(refund=held.run)
    job = await owner.run("refund", nodes=[victim.name])
    await held.began.wait()
    stolen = attacker.job(job.id)
    if is_defended:
        for attempt in (stolen.news, stolen.cancel):
            with pytest.raises(UnknownJob):
                await attempt()
        held.free.set()
        assert (await job.result()).results == {victim.name: "true"}
    else:
        await stolen.news()
        assert victim.name in stolen.lines
        assert (await stolen.cancel()).end is JobEnd.CANCELLED


@both
async def test_t68_a_publisher_listens_to_the_reports_of_jobs(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: what all actions of all others return.

    Defence: the server lets masters alone subscribe to reports and records. Source: `decide/grants.py`, from `read_by`
    of each message.
    """
    if not is_defended:
        let_all(monkeypatch)
    spy, client = await scene.raw(await scene.party()), await scene.client()
    heard = [await spy.listen(scene.subject("job.>")), await spy.listen(scene.subject("job.*.*.*"))]
    nodes = [await scene.node(refund=refund) for _ in range(2)]
    result = await (await client.run("refund", nodes=[node.name for node in nodes])).result()
    assert len(result.results) == 2
    if not is_defended:
        assert await happens(lambda: all(one.pending_msgs for one in heard))
    assert {bool(await spy.heard(one)) for one in heard} == {not is_defended}


@both
async def test_t69_somebody_runs_what_the_policy_forbids(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher that may run an action on one node. Wants: to run it on another tenant's, too.

    Defence: a master asks the policy for each node that is meant, however it was meant, before anybody is asked.
    Source: NIST SP 800-207 (each request is judged by itself); `decide/targets.py`.
    """
    began: list[str] = []

    def noting(name: str) -> Any:
        async def run() -> str:
            began.append(name)
            return name

        return run

    mine, other = await scene.node(wipe=noting("mine")), await scene.node(wipe=noting("other"))
    attacker, operator = await scene.client(), Client(bus=scene.operator, name=user_name())
    await operator.set_policy(action=[ActionRule(who=(attacker.bus.name,), actions=("wipe",), nodes=(mine.name,))])
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.targets.may_run", yes)
    try:
        assert (await (await attacker.run("wipe", everywhere=True)).result()).results[mine.name] == "mine"
        ways: list[dict[str, Any]] = [{"nodes": [other.name]}, {"nodes": [mine.name, other.name]}, {"name": other.name}]
        for way in ways:
            if is_defended:
                with pytest.raises(NotAllowed):
                    await attacker.run("wipe", **way)
            else:
                await (await attacker.run("wipe", **way)).result()
    finally:
        await operator.set_policy(action=[])
    assert ("other" in began) is not is_defended
