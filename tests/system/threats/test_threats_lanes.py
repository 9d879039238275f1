"""Attacks on subjects: listening, asking, answering and telling in somebody else's place."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from antiphon import Hit
from antiphon.actors.breaker import BreakerActor
from antiphon.decide.breaker import Reason, Record, State
from antiphon.decide.login import AccessClaims
from antiphon.errors import AntiphonError, Malformed, NotAllowed, Overloaded
from antiphon.identity import tokens
from antiphon.messages.base import Kind, Request
from antiphon.messages.breakers import BreakerList, BreakerOrder
from antiphon.messages.facts import SearchFinished
from antiphon.messages.identities import IdentityCreate, IdentityOrder, KeyCreate, KeysRotate, NodeInvite
from antiphon.messages.monitor import MonitorAsk
from antiphon.messages.operators import NodeRegister, NodeRemove, NodeUpdate
from antiphon.messages.ping import PingAsk
from antiphon.messages.policy import PolicyGet, PolicySet
from antiphon.messages.registry import NodeJoin
from antiphon.messages.search import Outcome
from antiphon.messages.tokens import Enrol
from antiphon.runtime.discovery import Discovery
from arena import Scene, both, drawn, happens, in_one_account, inbox, let_all, no, opened, yes

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHALES = orjson.dumps({"query": "whales"})


@both
async def test_t01_a_node_listens_on_the_lane_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node. Wants: the questions that another node is asked.

    Defence: the server lets a node subscribe its own lanes only. Source: ADR-26 (permissions in the callout's answer);
    `decide/grants.py`.
    """
    if not is_defended:
        let_all(monkeypatch)
    spy = await scene.raw(await scene.party(Kind.NODE))
    victim = await scene.node()
    heard = await spy.listen(scene.subject(f"node.{victim.name}.>"))
    client = await scene.client()
    assert (await client.search("whales", nodes=[victim.name])).hits
    assert bool(await spy.heard(heard)) is not is_defended


@both
async def test_t02_a_node_answers_in_the_place_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node that has learned where the answer of another is awaited. Wants: its own hit under that name.

    Defence: the server lets a node publish to the reply of a message that it was sent, and nowhere else. Source:
    `allow_responses` of NATS; FACTS, "Auth callout". (128 random bits keep it from learning the address at all.)
    """
    if not is_defended:
        let_all(monkeypatch)
    forger = await scene.raw(await scene.party(Kind.NODE))
    is_forged = asyncio.Event()

    async def slow(_query: Any) -> list[Hit]:
        await is_forged.wait()
        return [Hit(id="true", title="true whales", text="whales sing")]

    victim = await scene.node(slow)
    insider = await (await scene.master()).listen(scene.subject(f"node.{victim.name}.one.search"))
    client = await scene.client()
    searching = asyncio.ensure_future(client.search("whales", nodes=[victim.name]))
    leaked = await insider.next_msg(5)
    answer = {"request": orjson.loads(leaked.data)["request"], "hits": [{"id": "forged", "doc": {"title": "whales"}}]}
    await forger.send(leaked.reply, orjson.dumps(answer))
    is_forged.set()
    assert [hit.id for hit in (await searching).hits] == (["true"] if is_defended else ["forged"])


@both
async def test_t03_a_publisher_reads_the_inbox_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: the answers that another one gets, and the tokens among them.

    Defence: the server lets an identity subscribe below `_I.<its name>.` only. Source: `decide/grants.py`; NATS,
    private inboxes.
    """
    if not is_defended:
        let_all(monkeypatch)
    spy, victim = await scene.raw(await scene.party()), await scene.client()
    heard = [await spy.listen(f"_I.{victim.name}.>"), await spy.listen("_I.*.*.>"), await spy.listen(">")]
    await victim.search("whales", nodes=[(await scene.node()).name])
    assert {bool(await spy.heard(one)) for one in heard} == {not is_defended}


@both
async def test_t04_a_publisher_asks_in_the_name_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: to use up another's rate, or to be taken for him by policy and record.

    Defence: the last token of a request's subject is its caller, and the server lets only him publish it. Source:
    DESIGN, "Identity is in the subject"; FACTS, hole 1.
    """
    if not is_defended:
        let_all(monkeypatch)
    attacker, victim = await scene.raw(await scene.party()), await scene.client()
    for _ in range(60):
        await attacker.client.publish(scene.subject(f"search.ask.{victim.name}"), WHALES, inbox(victim.name))
    await attacker.client.flush()
    if is_defended:
        assert (await victim.search("whales")).query == "whales"
        assert "permissions violation" in attacker.errors[0]
    else:
        with pytest.raises(Overloaded):
            await victim.search("whales")


@both
async def test_t05_an_answer_is_aimed_at_a_lane(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: that a master, who may publish everywhere, writes where he may not.

    Defence: masters drop a request whose reply is not below its caller's inbox. Source: FACTS, hole 1: reply subjects
    are not checked by the server.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.bus.opening.may_reply", yes)
    party, victim = await scene.party(), drawn("node")
    attacker, insider = await scene.raw(party), await scene.master()
    lane = scene.subject(f"node.{victim}.one.ping")
    laundered = await insider.listen(lane)
    dropped = scene.role.bus.counters.laundered
    await attacker.send(scene.subject(f"search.ask.{party.name}"), WHALES, lane)
    assert await happens(lambda: scene.role.bus.counters.laundered > dropped or laundered.pending_msgs)
    assert bool(await insider.heard(laundered)) is not is_defended


@both
async def test_t06_a_laundered_question_is_answered_by_a_node(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: somebody whose words a master or a stream has put on a lane. Wants: a node's documents, past policy.

    Defence: a node drops a lane message whose reply is not below a master's inbox. Source: FACTS, hole 1; DESIGN, "Node
    lanes".
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.bus.opening.may_reply", yes)
    party, victim = await scene.party(), await scene.node()
    attacker, launderer = await scene.raw(party), await scene.master()
    answers = await attacker.listen(f"_I.{party.name}.>")
    question = {"request": "x", "budget_ms": 5_000, "query": "whales"}
    lane = scene.subject(f"node.{victim.name}.one.search")
    assert victim._bus is not None
    counters = victim._bus.counters
    await launderer.send(lane, orjson.dumps(question), inbox(party.name))
    assert await happens(lambda: counters.laundered or answers.pending_msgs)
    assert bool(await attacker.heard(answers)) is not is_defended


@both
async def test_t07_a_name_that_is_a_pattern(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: somebody who may choose the name that he is enrolled under. Wants: the rights of everybody.

    Defence: a name is matched in full by one grammar, when it is given (messages) and again when rights are made of it;
    the second is switched off here, as if a master had signed for `*`. Source: FACTS, hole 7: `re.fullmatch`, never
    `match` with `$`.
    """
    for name in ("*", ">", "a.b", "a.>", "web\n", "-web", "Web", "", "a" * 64):
        said = {"name": name, "node": name, "kind": "publisher", "nkey": scene.vault.master.public}
        for ask in ("enrol", "create", "invite"):
            subject = scene.subject(f"identity.{ask}.{scene.operator.name}")
            with pytest.raises(Malformed):
                await scene.operator.ask_bytes(subject, orjson.dumps(said), budget_ms=5_000)
    party, victim, verify = await scene.party(), await scene.client(), tokens.verify_access

    def signed(*how: Any) -> Any:
        claims = verify(*how)
        return replace(claims, name="*") if isinstance(claims, AccessClaims) and claims.name == party.name else claims

    monkeypatch.setattr(tokens, "verify_access", signed)
    monkeypatch.setattr("antiphon.decide.login.judge_access", lambda *_how, **_more: None)
    if not is_defended:
        for module in ("subjects", "decide.grants"):
            monkeypatch.setattr(f"antiphon.{module}.token", lambda text: text)
    assert await scene.is_let_in(party) is not is_defended
    if not is_defended:
        spy = await scene.raw(party)
        heard = await spy.listen("_I.*.>")
        await victim.search("whales")
        assert await spy.heard(heard)


@both
async def test_t08_a_node_takes_the_name_of_a_master(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: somebody who may choose his name. Wants: an inbox that nodes take for a master's, and their answers.

    Defence: `master` and `master-...` are no names of anybody else, neither for operators' requests nor for rights.
    Source: DESIGN, "Node lanes": an answer goes to a master's inbox only.
    """
    name = drawn("master-evil")
    asks: tuple[Request[Any], ...] = (
        Enrol(name=name, kind=Kind.NODE, instance="one", nkey=scene.vault.master.public),
        Enrol(name=name, kind=Kind.PUBLISHER, nkey=scene.vault.master.public),
        IdentityCreate(name=name, kind=Kind.PUBLISHER),
        IdentityCreate(name=drawn("other"), kind=Kind.MASTER),
        NodeInvite(node=name),
    )
    if is_defended:
        for ask in asks:
            with pytest.raises(AntiphonError) as caught:
                await scene.operator.ask(ask)
            assert caught.value.code in ("not_allowed", "not_authenticated")
        return
    monkeypatch.setattr("antiphon.identity.authority.is_master", no)
    monkeypatch.setattr("antiphon.decide.grants.is_master", no)
    spy, victim = await scene.raw(await scene.party(Kind.PUBLISHER, name)), await scene.node()
    answers = await spy.listen(f"_I.{name}.>")
    question = orjson.dumps({"request": "x", "budget_ms": 5_000, "query": "whales"})
    await (await scene.master()).send(scene.subject(f"node.{victim.name}.one.search"), question, inbox(name))
    assert b"whales" in (await answers.next_msg(5)).data


@both
async def test_t09_a_node_answers_a_thousand_times(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node. Wants: to drown masters in answers to one question.

    Defence: the server lets a node answer each message once. Source: `allow_responses: {max: 1}` of NATS;
    `decide/grants.py`.
    """
    if not is_defended:
        let_all(monkeypatch)
    party = await scene.party(Kind.NODE)
    node, insider = await scene.raw(party), await scene.master()
    lane, reply = scene.subject(f"node.{party.name}.one.search"), inbox("master")
    asked, answers = await node.listen(lane), await insider.listen(reply)
    await insider.send(lane, WHALES, reply)
    question = await asked.next_msg(5)
    for _ in range(1_000):
        await node.client.publish(question.reply, b"{}")
    await node.client.flush()
    assert await insider.heard(answers) == (1 if is_defended else 1_000)


@both
async def test_t10_discovery_writes_where_an_operator_aims_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: an operator. Wants: that a master writes into a bucket of the masters, e.g. over the signing keys.

    Defence: whoever answers discovery drops what is to be answered on the fabric's or the server's own subjects.
    Source: FACTS, hole 1, for ADR-32's `$SRV.PING`, which has no caller in its subject.
    """
    if not is_defended:
        monkeypatch.setattr(Discovery, "_receive", trusting)
    bus, name = scene.operator, drawn("role")
    role = Discovery(scene.role.bus, name=name, instance="one", version="1", description="of a master", endpoints=list)
    await role.start()
    insider = await scene.master()
    key = f"$KV.{scene.role.bus.prefix}-registry.{name}"
    written, known = await insider.listen(key), await insider.listen(f"_I.{bus.name}.>")
    for reply in (key, inbox(bus.name)):
        await bus.transport.publish(f"$SRV.PING.{name}", b"", reply=reply)
    await known.next_msg(5)
    await role.stop()
    assert bool(await insider.heard(written)) is not is_defended


async def trusting(self: Discovery, delivery: Any) -> None:
    """Discovery without its check."""
    await self._bus.transport.publish(delivery.reply, orjson.dumps(self._head))


@both
async def test_t11_a_publisher_gives_orders_of_operators(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: to vouch for himself as another, suspend others, make keys.

    Defence: the server lets operators alone publish operators' requests. Source: `decide/grants.py`, from `sent_by` of
    each message. (The masters' own check is off in both runs: see t12.)
    """
    monkeypatch.setattr("antiphon.decide.policy.Access.check_operator", no)
    if not is_defended:
        let_all(monkeypatch)
    party, victim = await scene.party(), await scene.party()
    attacker = await scene.raw(party)
    answers = await attacker.listen(f"_I.{party.name}.>")
    order = IdentityOrder(name=victim.name, order="suspend").model_dump_json().encode()
    await attacker.send(scene.subject(f"identity.order.{party.name}"), order, inbox(party.name))
    if not is_defended:
        await answers.next_msg(5)
    assert await scene.is_let_in(victim) is is_defended


@both
async def test_t12_a_publisher_gives_orders_where_the_server_lets_him(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher on a server that checks nothing (the weaker mode, a mistake in its configuration).

    Wants: to vouch for himself, suspend others, make keys. Defence: masters ask the book whether the caller is an
    operator. Source: defence in depth, NIST SP 800-207; `decide/policy.py`. (The server's check is off in both runs.)
    """
    let_all(monkeypatch)
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.policy.Access.check_operator", no)
    attacker, victim, node = await scene.bus(await scene.party()), await scene.party(), (await scene.node()).name
    asks: tuple[Request[Any], ...] = (
        IdentityOrder(name=victim.name, order="suspend"),
        Enrol(name=victim.name, kind=Kind.PUBLISHER, nkey=scene.vault.master.public),
        KeyCreate(identity=victim.name),
        KeysRotate(order="rotate"),
        PolicySet(search=()),
        PolicyGet(),
        NodeRegister(node=node, description="mine"),
        NodeUpdate(node=node, description="mine still"),
        PingAsk(nodes=(node,)),
        NodeRemove(node=node),
        BreakerOrder(node=node, verb="search", order="reset"),
        BreakerList(),
        MonitorAsk(),
    )
    for ask in asks:
        if is_defended:
            with pytest.raises(NotAllowed):
                await attacker.ask(ask)
        else:
            await attacker.ask(ask)
            await scene.operator.ask(IdentityOrder(name=victim.name, order="resume"))


@both
async def test_t13_facts_are_forged_to_the_recorder(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node. Wants: a record of searches that never were, in a master's name.

    Defence: the last token of a fact is its writer, and the server lets only masters tell facts of masters. Source:
    DESIGN, "Stats": every fact's last token is its writer; `decide/grants.py`.
    """
    if not is_defended:
        let_all(monkeypatch)
    record = await scene.facts(SearchFinished)
    attacker = await scene.raw(await scene.party(Kind.NODE))
    forged = SearchFinished(request="forged", caller="victim", query="something shameful", at_ms=1, took_us=1)
    await attacker.send(scene.subject("fact.search.finished.master"), forged.model_dump_json().encode())
    await (await scene.client()).search("a true one")
    assert await happens(lambda: any(fact.query == "a true one" for fact in record))
    assert any(fact.request == "forged" for fact in record) is not is_defended


@both
async def test_t14_breakers_are_forged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a node. Wants: that its competitor is asked no more, so that its own hits come first.

    Defence: the masters' buckets are in an account that has nobody else in it. Source: FACTS, hole 2: never grant
    publish on a shared bucket. (That the server lets nobody else publish `$KV.>` is off in both runs.)
    """
    let_all(monkeypatch)
    if not is_defended:
        in_one_account(monkeypatch)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        victim, client = await scene.node(), await scene.client()
        attacker = await scene.raw(await scene.party(Kind.NODE))
        now_ms = scene.role.bus.clock.wall_ms()
        forged = Record(State.OPEN, Reason.FAILURES, by="master", opened_at_ms=now_ms, holds_ms=60_000)
        key = (victim.name, "one", "search")
        await attacker.send(f"$KV.{scene.role.bus.prefix}-breakers.{'.'.join(key)}", msgspec.json.encode(forged))
        [breakers] = [one for one in scene.role.supervisor.children if isinstance(one, BreakerActor)]
        if not is_defended:
            assert await happens(lambda: key in breakers.breakers.breakers)
        [line] = (await client.search("whales", nodes=[victim.name])).nodes
        assert line.outcome is (Outcome.ANSWERED if is_defended else Outcome.SKIPPED)


@both
async def test_t15_a_node_joins_under_the_name_of_another(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node. Wants: an instance in another node's place, so that questions wait for nobody.

    Defence: a join carries its node's name as its caller. Source: DESIGN, "Identity is in the subject".
    """
    if not is_defended:
        let_all(monkeypatch)
    victim, attacker = await scene.node(), await scene.raw(await scene.party(Kind.NODE))
    join = NodeJoin(instance="ghost", capabilities=("search",)).model_dump_json().encode()
    await attacker.send(scene.subject(f"registry.join.ghost.{victim.name}"), join, inbox(victim.name))

    def instances() -> set[str]:
        return set(scene.role.view.current.nodes[victim.name].instances)

    if not is_defended:
        assert await happens(lambda: len(instances()) > 1)
    await (await scene.client()).search("whales")
    assert instances() == ({"one"} if is_defended else {"one", "ghost"})
