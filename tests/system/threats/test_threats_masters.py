"""Attacks on masters by what reaches them: the server's own acknowledgements, sisters' words, floods, long names."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.js.api import StreamConfig

from antiphon import Hit, Node
from antiphon.actors.registry import Registry
from antiphon.bus import assets
from antiphon.bus import bus as bus_module
from antiphon.bus.codec import decode
from antiphon.decide.grants import Grants
from antiphon.errors import AntiphonError, NoResponders, Overloaded
from antiphon.identity.keypair import KeyPair, Role
from antiphon.messages.base import Kind
from antiphon.messages.lane import Load
from antiphon.messages.operators import NodeGet
from antiphon.messages.policy import PolicySet, SearchRule
from antiphon.messages.registry import HeartBeaten, NodeLeave
from antiphon.messages.search import SearchPage
from antiphon.messages.tokens import BehalfAsk
from arena import Raw, Scene, both, drawn, happens, in_one_account, inbox, let_all, opened, yes

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def who_is_acknowledged(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> tuple[Raw, str]:
    """A node that may store on one subject, in a stream beside everybody that acknowledges."""
    stream = drawn("reports")
    await (await scene.master()).client.jetstream().add_stream(StreamConfig(stream, subjects=[f"{stream}.>"]))
    mine = f"{stream}.mine"
    party = await scene.party(Kind.NODE)
    monkeypatch.setattr("antiphon.decide.login.grants", lambda *_who, **_how: Grants((mine,), (f"_I.{party.name}.>",)))
    return await scene.raw(party), mine


@both
async def test_t72_an_acknowledgement_gives_an_order(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node that may store its reports in a stream. Wants: that there is no policy any more.

    Defence: masters drop an order whose reply is not below its caller's inbox, and one without a reply: the server's
    acknowledgement of what was stored goes wherever a writer aims it, and has none. Source: FACTS, hole 1. (That an
    order has a required field, and that no stream of a node's acknowledges, is off in both runs: t74, t73.)
    """
    monkeypatch.setattr(
        bus_module, "decode", lambda kind, data: PolicySet(search=()) if b'"seq"' in data else decode(kind, data)
    )
    rules = (SearchRule(who=(drawn("somebody"),), nodes=("*",)),)
    await scene.operator.ask(PolicySet(search=rules))
    access = scene.role.access
    assert await happens(lambda: access.current.policy.search == rules)
    if not is_defended:
        monkeypatch.setattr("antiphon.bus.opening.may_reply", yes)
    attacker, mine = await who_is_acknowledged(scene, monkeypatch)
    dropped = scene.role.bus.counters.laundered
    await attacker.send(mine, b"{}", scene.subject(f"policy.set.{scene.operator.name}"))
    assert await happens(lambda: scene.role.bus.counters.laundered > dropped or not access.current.policy.search)
    assert (access.current.policy.search == rules) is is_defended
    monkeypatch.undo()
    await scene.operator.ask(PolicySet(search=()))


@both
async def test_t73_a_nodes_report_is_acknowledged_where_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node, with nothing but the rights of a node. Wants: to write on a subject that is not its own.

    Defence: the one stream that nodes write, that of their reports, acknowledges nothing. Source: FACTS, hole 1;
    JetStream, `no_ack`; tried on nats-server 2.15.1.
    """
    if not is_defended:
        loud = lambda prefix: replace(assets.reports_of(prefix), no_ack=False)  # noqa: E731 - one line of one test
        monkeypatch.setattr("antiphon.actors.actions.reports_of", loud)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        party, insider = await scene.party(Kind.NODE), await scene.master()
        attacker = await scene.raw(party)
        order = scene.subject(f"identity.rotate.{scene.operator.name}")
        laundered = await insider.listen(order)
        for at in range(3):
            await attacker.send(scene.subject(f"job.x{at}.one.{party.name}"), b"{}", order)
        await attacker.send(scene.subject(f"job.x.one.{party.name}"), b"x" * 200_000, order)  # too large: is refused
        js, name = insider.client.jetstream(), assets.reports_of(scene.role.bus.prefix).name
        async with asyncio.timeout(5):
            while (await js.stream_info(name)).state.messages < 3:  # noqa: ASYNC110 - a stream sends no event
                await asyncio.sleep(0.01)
        assert bool(await insider.heard(laundered)) is not is_defended


@both
async def test_t74_an_acknowledgement_is_a_heartbeat(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node that may store its reports in a stream. Wants: that an instance that is dead seems alive.

    Defence: what masters hear and what gives orders has a required field that no acknowledgement of the server has.
    Source: FACTS, hole 1; `messages/registry.py`, `HeartBeaten`. (That no stream of a node's acknowledges is off in
    both runs: t73.)
    """
    heard: list[str] = []

    def hear(_fact: HeartBeaten, keys: dict[str, str]) -> None:
        heard.append(keys["instance"])

    subscription = await scene.role.bus.hear(HeartBeaten, hear)
    attacker, mine = await who_is_acknowledged(scene, monkeypatch)
    if not is_defended:
        fact = HeartBeaten(load=Load())
        monkeypatch.setattr(bus_module, "decode", lambda kind, data: fact if b'"seq"' in data else decode(kind, data))
    refused = scene.role.bus.counters.refused
    before = refused.get("malformed", 0)
    await attacker.send(mine, b"{}", scene.subject("beat.node.ghost.victim"))
    assert await happens(lambda: "ghost" in heard or refused.get("malformed", 0) > before)
    assert ("ghost" in heard) is not is_defended
    await subscription.drain()


@both
async def test_t75_a_masters_record_of_a_job_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node, even one that could publish anywhere. Wants: that a job of others has never been.

    Defence: masters keep their records of jobs in an account that has nobody else in it; beside everybody lie nodes'
    reports alone. Source: FACTS, hole 2; `bus/assets.py`, `jobs_of`. (That the server lets nobody publish as a master
    is off in both runs.)
    """
    let_all(monkeypatch)
    if not is_defended:
        in_one_account(monkeypatch)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        party, client = await scene.party(Kind.NODE), await scene.client()
        node = Node(party.name, instance="one")
        node.search(lambda _query: [Hit(id="1", title="whales")])
        node.action("sync")(lambda: {"records": 1})
        await node.start(bus=await scene.bus(party))
        async with asyncio.timeout(10):
            await node.joined()
        job = await client.run("sync", nodes=[party.name])
        assert (await job.result()).is_complete
        attacker = await scene.raw(await scene.party(Kind.NODE))
        await attacker.send(scene.subject(f"job.{job.id}.{scene.role.bus.name}"), b"{}")
        is_there = True
        async with asyncio.timeout(10):
            while is_there and not is_defended:
                is_there = await is_known(client, job.id)
        assert await is_known(client, job.id) is is_defended
        await node.stop()


async def is_known(client: Any, job: str) -> bool:
    """Whether a job can be asked for."""
    try:
        await client.job(job).news()
    except AntiphonError:
        return False
    return True


@both
@pytest.mark.parametrize("where", ["body", "subject"])
async def test_t76_an_instance_speaks_for_its_sister(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, where: str
) -> None:
    """Attacker: one instance of a node. Wants: that a sister is asked no more, or counts for millions of documents.

    Defence: a join and a leave carry their instance in the subject, the server lets an instance publish its own, and
    masters take no other from the body. Source: DESIGN, "Identity is in the subject"; `messages/registry.py`.
    """
    if not is_defended and where == "body":
        monkeypatch.setattr(Registry, "_check_instance", lambda *_how: None)
    victim = await scene.node()
    if not is_defended and where == "subject":
        let_all(monkeypatch)
    attacker = await scene.raw(await scene.party(Kind.NODE, victim.name, "evil"))
    leave = NodeLeave(instance="one").model_dump_json().encode()
    own = "evil" if where == "body" else "one"
    await attacker.send(scene.subject(f"registry.leave.{own}.{victim.name}"), leave, inbox(victim.name))

    def is_there() -> bool:
        found = scene.role.view.current.nodes.get(victim.name)
        return found is not None and "one" in found.instances

    if not is_defended:
        assert await happens(lambda: not is_there())
    await (await scene.client()).search("whales")
    assert is_there() is is_defended


@both
async def test_t77_a_node_listens_where_a_master_is_looked_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node. Wants: that a master that is gone seems to be there, so that nobody ends what it left.

    Defence: the server lets a node be discovered under its own name alone. Source: ADR-32; `decide/grants.py`.
    (Masters ask each other on subjects of their own besides: `messages/jobs.py`, `JobProbe`.)
    """
    if not is_defended:
        let_all(monkeypatch)
    spy = await scene.raw(await scene.party(Kind.NODE))
    for subject in ("$SRV.>", "$SRV.PING.antiphon-master.*", "$SRV.PING.antiphon-master.gone"):
        await spy.listen(subject)
    with pytest.raises(NoResponders if is_defended else AntiphonError) as caught:
        await scene.operator.ask_bytes("$SRV.PING.antiphon-master.gone", b"", budget_ms=500)
    assert isinstance(caught.value, NoResponders) is is_defended


@both
async def test_t78_names_that_nobody_has_keep_every_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: that operators cannot look after nodes.

    Defence: a name that is not known is waited for half a second, and a few times at once by one caller; the other
    look-ups are answered with what is known. Source: OWASP API Security 2023, API4; `decide/turns.py`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.actors.registry.WAITS_MAX", 1_000)
    async with opened(tmp_path / "data", conversations_max=8) as arena, arena.scene() as scene:
        party, node = await scene.party(), await scene.node()
        attacker = await scene.raw(party)
        for at in range(100):
            ask = orjson.dumps({"node": f"nobody-{at}"})
            await attacker.client.publish(scene.subject(f"registry.get.{party.name}"), ask, inbox(party.name))
        await attacker.client.flush()
        try:
            found = (await scene.operator.ask(NodeGet(node=node.name))).node
        except Overloaded:
            found = None
        assert found == (node.name if is_defended else None)


@both
async def test_t79_refusals_fill_the_audit(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a publisher. Wants: that what he does is lost among thousands of lines that he makes himself.

    Defence: refusals beyond the rate are counted, and their number is told once a minute. Source: OWASP, Logging
    (flooding); CWE-779; `actors/identity.py`, `refused`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.actors.identity.Seldom.due", lambda *_how: 1)
    bus, victim = await scene.bus(await scene.party()), await scene.party()
    for _ in range(100):
        with pytest.raises(AntiphonError):
            await bus.ask(BehalfAsk(principal=victim.name))

    def told() -> int:
        return len([fact for fact in scene.arena.audited if fact.what == "refused" and bus.name in (fact.who, fact.by)])

    await scene.role.bus.transport.flush()
    assert await happens(lambda: told() >= (60 if is_defended else 100))
    assert (told() < 70) is is_defended


@both
async def test_t80_pages_are_turned_without_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: a master's time, for a page costs nearly what a search does.

    Defence: pages have the rate that questions have, and count for themselves. Source: OWASP API Security 2023, API4;
    `actors/door.py`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.actors.door.Door.turn", lambda *_how: None)
    bus, codes = await scene.bus(await scene.party()), set[str]()
    for _ in range(70):
        try:
            await bus.ask(SearchPage(cursor=f"{scene.role.bus.name}.{'0' * 32}.10"), master=scene.role.bus.name)
        except AntiphonError as error:
            codes.add(error.code)
    assert ("overloaded" in codes) is is_defended, codes


@both
@pytest.mark.parametrize("what", ["name", "user", "lang", "nkey"])
async def test_t81_a_name_that_is_too_long_to_be_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool, what: str
) -> None:
    """Attacker: anybody who reaches the port. Wants: to knock without end, untold, and a line of the log for each.

    Defence: what a stranger says is cut, and judged as it is then: he is refused at once and counted as others are.
    Source: OWASP, Logging; CWE-779; `identity/callout.py`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.identity.callout._cut", refusing)
    connect = partial(said_of, scene.server.url, what)
    before = len(scene.arena.audited)

    def is_told() -> bool:
        return any(fact.what == "refused" for fact in scene.arena.audited[before:])

    assert "Authorization Violation" in await connect()
    if is_defended:
        assert await happens(is_told)
    await scene.role.bus.transport.flush()
    assert is_told() is is_defended


def refusing(said: object, chars_max: int) -> object:
    """What is too long is no authorization request at all."""
    if isinstance(said, str) and len(said) > chars_max:
        raise ValueError("too long")
    return said


async def said_of(url: str, what: str) -> str:
    """What the server says to somebody who says too much of himself."""
    key = KeyPair.make(Role.USER)
    host, _, port = url.removeprefix("nats://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        await reader.readline()
        said = {"nkey": key.public, "sig": "", "auth_token": "none", "verbose": False, "version": "1"} | {
            what: "x" * 1_500
        }
        writer.write(b"CONNECT " + orjson.dumps(said) + b"\r\nPING\r\n")
        async with asyncio.timeout(10):
            while True:
                line = (await reader.readline()).decode()
                if not line.startswith("INFO"):
                    return line
    finally:
        writer.close()
