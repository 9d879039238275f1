"""Attacks on what the server keeps and counts: buckets, streams, ids, subscriptions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import orjson
import pytest
from nats.js.api import StreamConfig

from antiphon.bus.protocol import Bucket
from antiphon.decide.grants import Grants
from antiphon.decide.identities import IdentityRecord
from antiphon.identity.server_config import AccountLimits
from antiphon.messages.base import Kind
from arena import Scene, believe_any_record, both, drawn, happens, in_one_account, inbox, let_all, opened

pytestmark = pytest.mark.asyncio(loop_scope="module")


@both
async def test_t16_one_key_wipes_a_bucket(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: somebody who was granted one key of a shared bucket. Wants: that all others are gone.

    Defence: buckets are made without `allow_rollup_hdrs`, so `Nats-Rollup: all` is refused. Source: FACTS, hole 2;
    ADR-8. (That nobody is granted a key is t14's defence; it is off in both runs.)
    """
    name, js = drawn("bucket"), (await scene.master()).client.jetstream()
    if is_defended:
        await (await scene.transport()).key_value(Bucket(name, "a test's", value_bytes_max=100, bytes_max=10_000))
    else:
        subjects = [f"$KV.{name}.>"]
        await js.add_stream(
            StreamConfig(f"KV_{name}", subjects=subjects, max_msgs_per_subject=1, allow_rollup_hdrs=True)
        )
    for key in ("one", "two", "three"):
        await js.publish(f"$KV.{name}.{key}", b"precious")
    mine = f"$KV.{name}.mine"
    monkeypatch.setattr("antiphon.decide.login.grants", lambda *_who, **_how: Grants((mine,), ("_I.>",)))
    attacker = await scene.raw(await scene.party())
    await attacker.send(mine, b"", headers={"Nats-Rollup": "all"})
    left = (await js.stream_info(f"KV_{name}")).state.messages
    assert left == (3 if is_defended else 1)


@both
async def test_t17_a_publisher_uses_jetstream(scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a publisher. Wants: to read what streams hold, or to delete one.

    Defence: `$JS.API.>` is granted to masters only. Source: FACTS, "Holes"; `decide/grants.py`. (A consumer's
    `deliver_subject` would also launder stored messages onto anybody's lane.)
    """
    if not is_defended:
        let_all(monkeypatch)
    party, js = await scene.party(), (await scene.master()).client.jetstream()
    attacker, mine = await scene.raw(party), drawn("precious")
    await js.add_stream(StreamConfig(mine, subjects=[f"{mine}.>"]))
    await js.publish(f"{mine}.x", b"precious")
    answers, wanted = await attacker.listen(f"_I.{party.name}.>"), orjson.dumps({"last_by_subj": f"{mine}.x"})
    await attacker.send(f"$JS.API.STREAM.MSG.GET.{mine}", wanted, inbox(party.name))
    if not is_defended:  # the server works on both at once, so the second one waits for the first one's answer
        assert b'"message"' in (await answers.next_msg(5)).data
    await attacker.send(f"$JS.API.STREAM.DELETE.{mine}", b"", inbox(party.name))
    if not is_defended:
        assert b'"success":true' in (await answers.next_msg(5)).data
    assert await attacker.heard(answers) == 0
    assert (mine in [one.config.name for one in await js.streams_info()]) is is_defended


@both
async def test_t18_a_guessed_message_id_suppresses_a_message(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node that may write its own facts into a shared stream. Wants: that a master's fact is not stored.

    Defence: ids that are drawn are 128 random bits, so nobody is first with another's; it holds the drawing alone, for
    no stream of the product knows messages by an id. Source: FACTS, hole 3: a stream's window of duplicates is one for
    all its writers.
    """
    if not is_defended:
        numbers = iter(range(1_000_000))
        monkeypatch.setattr("antiphon.bus.bus.Bus.draw", lambda _self: f"{next(numbers):032x}")
    name, js = drawn("facts"), (await scene.master()).client.jetstream()
    await js.add_stream(StreamConfig(name, subjects=[f"{name}.>"]))
    mine = f"{name}.of.attacker"
    monkeypatch.setattr("antiphon.decide.login.grants", lambda *_who, **_how: Grants((mine,), ("_I.>",)))
    attacker = await scene.raw(await scene.party())
    seen = int(scene.role.bus.draw(), 16)
    for guess in range(seen + 1, seen + 100):
        await attacker.client.publish(mine, b"poison", headers={"Nats-Msg-Id": f"{guess:032x}"})
    await attacker.client.flush()
    stored = await js.publish(f"{name}.of.master", b"a fact", headers={"Nats-Msg-Id": scene.role.bus.draw()})
    assert bool(stored.duplicate) is not is_defended


@both
async def test_t19_a_publisher_makes_a_million_subscriptions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: the server's memory; each subscription below his inbox costs some.

    Defence: the account's `max_subscriptions`, which the server reads as a bound of each connection: 1,000.
    Source: FACTS, hole 5 (the limits in a user's JWT are ignored); tried on nats-server 2.15.1.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.app.AccountLimits", partial(AccountLimits, subscriptions=1_000_000))
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        party = await scene.party()
        attacker = await scene.raw(party)
        for at in range(1_500):
            await attacker.client.subscribe(f"_I.{party.name}.{at}")
        await attacker.client.flush()
        # the server refuses each one too many, and leaves the connection as it is
        assert attacker.errors == (["nats: maximum subscriptions exceeded"] * len(attacker.errors))
        assert (len(attacker.errors) >= 500) is is_defended
        assert scene.role.bus.transport.is_connected


@both
async def test_t64_the_servers_own_answer_is_aimed_at_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a node that may store its own reports in a stream, and read them again. Wants: to be an operator.

    Defence: the masters' buckets are in an account that has nobody else in it, for the server's own answers go, and are
    stored, wherever an asker aims them. Source: FACTS, hole 1, for JetStream's acknowledgements and direct gets;
    tried on nats-server 2.15.1.
    """
    believe_any_record(monkeypatch)  # else a second defence is in the way
    if not is_defended:
        in_one_account(monkeypatch)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        assert scene.role.gate is not None
        book, attacker, victim = scene.role.gate.identity.ledger.book, await scene.party(Kind.NODE), await scene.party()
        stream, bucket = drawn("reports"), f"$KV.{scene.role.bus.prefix}-identity.id"
        js = (await scene.master()).client.jetstream()
        await js.add_stream(StreamConfig(stream, subjects=[f"{stream}.>"], allow_direct=True))
        mine = f"{stream}.of.{attacker.name}"
        rights = Grants((f"$JS.API.DIRECT.GET.{stream}.{mine}", mine), (f"_I.{attacker.name}.>",))
        monkeypatch.setattr("antiphon.decide.login.grants", lambda *_who, **_how: rights)
        raw = await scene.raw(attacker)
        record = IdentityRecord(name=attacker.name, kind=Kind.OPERATOR)
        await raw.send(
            mine, record.model_dump_json().encode(), f"{bucket}.{victim.name}"
        )  # stored: the answer goes there
        await raw.send(f"$JS.API.DIRECT.GET.{stream}.{mine}", b"", f"{bucket}.{attacker.name}")

        def kind() -> Kind | None:
            found = book.identity(attacker.name)
            return found.kind if found else None

        if not is_defended:
            assert await happens(lambda: kind() is Kind.OPERATOR)
        assert await scene.is_let_in(victim)
        assert kind() is (Kind.NODE if is_defended else Kind.OPERATOR)
        kept = await (await scene.raw(scene.vault.store)).client.jetstream().streams_info()
        assert bool(kept) is is_defended
