"""Attacks by whoever has a copy of a credential, or is shown one that is meant for somebody else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from antiphon import Client
from antiphon.actors.census import Census
from antiphon.bus.assets import identity_of
from antiphon.bus.codec import encode
from antiphon.bus.connect import connect as connect_with
from antiphon.bus.endpoint import resolve
from antiphon.bus.server import EmbeddedServer
from antiphon.bus.strict import StrictClient
from antiphon.client import user_name
from antiphon.decide import families, login
from antiphon.errors import AntiphonError, NotAllowed, NotAuthenticated
from antiphon.identity import credential as files
from antiphon.identity import opaque
from antiphon.identity.authority import Write
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.login import log_in
from antiphon.identity.opaque import Sort
from antiphon.identity.session import Fixed, Place
from antiphon.messages.base import Kind
from antiphon.messages.identities import IdentityOrder, IdentityUpdate, KeyCreate
from antiphon.messages.tokens import KeysAsk, TokenGrant
from arena import Party, Scene, believe_any_record, both, bought, claims_of, happens, token_ask, yes
from tokens import tokens_in

pytestmark = pytest.mark.asyncio(loop_scope="module")


@both
async def test_t82_an_api_key_of_a_node_makes_instances(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has got an API key of a node. Wants: to be any of its instances, a living one, or all at once.

    Defence: a node has no API keys: its instances join, and are counted and told apart by that. Source: RFC 9700, 2.2
    (binding to a key); `decide/login.py`, `judge_api_key`.
    """
    if not is_defended:
        monkeypatch.setattr(login, "_keyless", lambda _who: None)
    owner = await scene.party(Kind.NODE)
    await scene.operator.ask(IdentityUpdate(name=owner.name, instances_max=1))
    with pytest.raises(NotAllowed, match="node invite"):
        await scene.operator.ask(KeyCreate(identity=owner.name))
    assert scene.role.gate is not None
    identity, now_ms = scene.role.gate.identity, scene.role.bus.clock.wall_ms()
    made, record = identity.authority.new_key(owner.name, label="", keep_ms=None, nkey=None, now_ms=now_ms)
    await identity.ledger.change(lambda: (Write(record, 0),))  # as if an operator's tool had made it all the same
    key = KeyPair.make(Role.USER)
    grant: TokenGrant | None = None
    try:
        bus = await scene.bus(Party(owner.name, None, key, owner.grant), made.reveal())
        grant = await bought(bus, key, made.reveal(), "two")
    except NotAuthenticated:
        assert is_defended
    assert (grant is None) is is_defended
    if grant is not None:
        thief = await scene.raw(Party(owner.name, None, key, grant))
        lanes = await thief.listen(scene.subject(f"node.{owner.name}.*.search"))
        assert not thief.errors, "an instance that is none hears them all"
        await lanes.unsubscribe()


@both
async def test_t83_a_server_that_asks_nobody_is_named_to_a_client(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_defended: bool
) -> None:
    """Attacker: whoever listens on a server that a user names by mistake, or is made to. Wants: his credential.

    Defence: a credential remembers whether it was made on a server that asks, and is not shown on one that asks
    nobody. Source: RFC 9700, 4.9 and 2.6 (credentials to whom they are meant for); `identity/session.py`, `may_show`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.identity.session.may_show", yes)
        monkeypatch.setattr("antiphon.identity.connect.may_show", yes)
    party = await scene.party()
    key = (await scene.operator.ask(KeyCreate(identity=party.name))).key
    place = Place(resolve(scene.server.url), scene.role.bus.prefix, party.name, Kind.PUBLISHER)
    await log_in(place, key, tmp_path / "data")
    keys = await scene.operator.ask(KeysAsk())  # anybody has them
    document = encode(keys)
    async with await EmbeddedServer.start(tmp_path / "bare") as bare:
        listener = StrictClient()
        await listener.connect(bare.url)
        heard: list[bytes] = []

        async def hear(message: Any) -> None:
            heard.append(message.data + repr(message.headers).encode() if message.data else message.subject.encode())
            if message.subject.startswith(scene.subject("identity.keys.")):
                await listener.publish(message.reply, document)

        await listener.subscribe(">", cb=hear)
        await listener.flush()
        file = tmp_path / "data" / "credentials" / f"{party.name}.json"
        aged = files.read(file).model_copy(update={"access": None, "access_expires_ms": 0})
        for credential in (files.read(file), aged):  # one with a token that is good, and one that has to ask for it
            files.write(file, credential)
            with pytest.raises(AntiphonError):
                async with Client(bare.url, name=party.name, data=tmp_path / "data") as client:
                    await client.search("whales", deadline_ms=300)
            await listener.publish("that.is.all")
            assert await happens(lambda: b"that.is.all" in heard)
            is_stolen = any(
                tokens_in(one.replace(document, b"").decode("latin-1")) or key.encode() in one for one in heard
            )
            assert is_stolen is not is_defended
            heard.clear()
        await listener.close()


@both
async def test_t84_a_copied_credential_renews_beside_its_owner(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever has copied a credential and starts beside its owner. Wants: to renew when he does, unseen.

    Defence: a refresh token is answered twice only while no access token of the answer was used; renewals are jittered;
    each second answer is told to the audit. Source: RFC 9700, 4.14.2; `decide/families.py`, `judge`.
    """
    if not is_defended:
        monkeypatch.setattr(families, "_is_lost", yes)
    assert scene.role.gate is not None
    book, owner = scene.role.gate.identity.ledger.book, await scene.party()
    stolen = owner.grant.refresh
    assert stolen is not None
    family = claims_of(owner.grant.access)["fam"]
    bus = await scene.bus(owner)
    renewed = await bought(bus, owner.key, stolen)
    assert renewed.access != owner.grant.access
    live = await scene.raw(owner.key, renewed.access)

    def is_noted() -> bool:
        record = book.family(family)
        return record is not None and record.is_used

    assert await happens(is_noted)
    try:
        copied = await bought(bus, owner.key, stolen)
    except NotAuthenticated:
        assert is_defended
        await live.ended.wait()  # of two who have it nobody can tell which is the thief
        assert not await scene.is_let_in(owner.key, renewed.access)
    else:
        assert not is_defended
        assert await scene.is_let_in(owner.key, copied.access)
        assert any(one.why == "asked_again" and one.who == owner.name for one in scene.arena.audited)


@both
async def test_t85_a_question_for_a_token_is_played_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever listens on a server that asks nobody. Wants: a token for another's question, again.

    Defence: a proof says when it was made, is good for five minutes, and its nonce once. Source: RFC 9449, 11.1
    (replay of proofs); `decide/nonces.py`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.nonces.Nonces.use", lambda *_how: None)
    party = await scene.party()
    key = (await scene.operator.ask(KeyCreate(identity=party.name))).key
    bus = await scene.bus(party)
    ask = token_ask(bus, party.key, key)
    assert (await bus.ask(ask)).name == party.name
    if is_defended:
        with pytest.raises(NotAuthenticated):
            await bus.ask(ask)
    else:
        assert (await bus.ask(ask)).name == party.name
    assert (await bought(bus, party.key, key)).name == party.name, "a question of one's own is answered"


@both
async def test_t86_a_record_is_forged_in_the_bucket(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: whoever can write the identities' bucket, on a server that asks nobody. Wants: to be an operator.

    Defence: each record carries a MAC under the pepper, for its own place; another is not believed. Source: NIST SP
    800-107, 5.3 (HMAC); `identity/record_mac.py`.
    """
    if not is_defended:
        believe_any_record(monkeypatch)
    assert scene.role.gate is not None
    book, key, refresh = scene.role.gate.identity.ledger.book, KeyPair.make(Role.USER), opaque.make(Sort.REFRESH)
    now_ms = scene.role.bus.clock.wall_ms()
    forged = families.begin(
        refresh.id, refresh.digest(), identity=user_name(), instance=None, nkey=key.public, now_ms=now_ms
    )
    bucket = await scene.role.bus.transport.key_value(identity_of(scene.role.bus.prefix))
    await bucket.put(forged.key, forged.model_dump_json().encode())
    await scene.role.gate.identity.ledger.read(forged.key)
    assert (book.family(forged.id) is None) is is_defended
    assert await scene.is_let_in(key, refresh.reveal()) is not is_defended
    if not is_defended:
        return
    victim = await scene.party()
    genuine = await bucket.get(f"id.{victim.name}")
    assert genuine is not None
    assert genuine.value is not None
    await bucket.put(f"id.{user_name()}", genuine.value)  # a true record in another's place
    await bucket.put(f"id.{victim.name}", b'{"name": "x", "kind": "operator"}')
    await scene.operator.ask(IdentityOrder(name=victim.name, order="suspend"))  # which is written over what was forged
    found = book.identity(victim.name)
    assert found is not None
    assert (found.kind, found.status) == (Kind.PUBLISHER, "suspended")
    await scene.operator.ask(IdentityUpdate(name=user_name(), groups=()))


async def test_two_connections_of_one_instance_are_told(scene: Scene) -> None:
    owner = await scene.party(Kind.NODE)
    [census] = [child for child in scene.role.supervisor.children if isinstance(child, Census)]
    for _ in range(2):
        await scene.raw(owner)
    for _ in range(2):
        await census.list_all()
    assert await happens(lambda: any(one.what == "doubled" and one.who == owner.name for one in scene.arena.audited))


async def test_a_server_that_asks_for_no_login_is_told_no_token() -> None:
    said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "x", "version": "2.15.0", "headers": true, "max_payload": 1048576}\r\n')
        said.set_result(await reader.readline())
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(AntiphonError):
            await connect_with("web", endpoint=resolve(url), logins=Fixed(KeyPair.make(Role.USER), "ak_secret"))
    line = await said
    assert line.startswith(b"CONNECT")
    assert b"ak_secret" not in line
