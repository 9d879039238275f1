"""Attacks on the door: floods, connections that are none of ours, and whoever would answer in the masters' place."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.msg import Msg

from antiphon.bus.server import EmbeddedServer, Options
from antiphon.decide.login import full
from antiphon.errors import AntiphonError, Overloaded
from antiphon.identity import credential, server_config
from antiphon.identity.callout import Callout
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.server_config import ASK
from antiphon.identity.tokens import verify_access
from antiphon.messages.base import Kind
from arena import Party, Scene, both, claims_of, first_word, forge, happens, no, opened, yes

pytestmark = pytest.mark.asyncio(loop_scope="module")

configuration = server_config.configuration


def configured(patch: pytest.MonkeyPatch, change: Any) -> None:
    """Start servers with a changed configuration from now on."""
    patch.setattr(server_config, "configuration", lambda *how: change(configuration(*how)))


async def has_room(scene: Scene, who: Party | KeyPair) -> bool:
    """Whether the server takes one more connection of somebody whom it knows."""
    with suppress(nats.errors.Error, OSError):
        return await scene.is_let_in(who)
    return False  # "maximum connections exceeded", or the end of the stream where the server was faster


@both
async def test_t45_connections_that_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: anybody who reaches the port. Wants: every place on the server, for the price of open sockets.

    Defence: whoever has not logged in within two seconds is disconnected. Source: RFC 4732, 3.1 (Slowloris); NATS,
    `authorization.timeout`.
    """
    places, patience = "max_connections: 12", "timeout: 2" if is_defended else "timeout: 600"
    configured(monkeypatch, lambda text: text.replace("timeout: 2", patience) + f"\n{places}\n")
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        party = await scene.party()
        host, port = scene.server.url.removeprefix("nats://").split(":")
        sockets = [await asyncio.open_connection(host, int(port)) for _ in range(12)]
        for reader, writer in sockets:
            await reader.readline()  # its greeting, or that there is no place: now it is counted
            writer.write(b"CONN")
        assert not await has_room(scene, party)
        if is_defended:
            await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in sockets), return_exceptions=True), 5)
        assert await has_room(scene, party) is is_defended
        for _, writer in sockets:
            writer.close()


@both
async def test_t46_a_flood_of_connections_shuts_the_masters_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: publishers with good credentials. Wants: that a master that has to come back finds no place.

    Defence: the callout lets in fewer than the account may have, and operators even then; what is left is for masters.
    Source: FACTS, hole 5 (only the account has limits, and masters are in it); `decide/headcount.py`.
    """
    monkeypatch.setattr("antiphon.app.ROOM_FOR_MASTERS", 3)
    monkeypatch.setattr("antiphon.decide.headcount.ROOM_FOR_OPERATORS", 2)
    if not is_defended:
        monkeypatch.setattr("antiphon.decide.headcount.Headcount.admit", yes)
    async with opened(tmp_path / "data", connections_max=9) as arena, arena.scene() as scene:
        parties = [await scene.party() for _ in range(3)]
        let_in = [await has_room(scene, parties[at % 3]) for at in range(15)]
        assert 0 < sum(let_in) < 15
        boss = await scene_operator(scene)
        assert [await has_room(scene, boss), await has_room(scene, scene.vault.master)] == [is_defended] * 2


async def scene_operator(scene: Scene) -> KeyPair:
    """This machine's operator, with what he shows at the door."""
    found = credential.read(scene.home / credential.OPERATOR)
    assert found.access is not None
    scene.is_let_in = partial(scene.is_let_in, token=found.access)  # type: ignore[method-assign]  # from now on
    return found.keypair


@both
async def test_t47_one_identity_takes_all_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: one publisher. Wants: that the others find no place.

    Defence: one identity has at most so many connections, all its instances together. Source: FACTS, hole 5;
    `decide/headcount.py`.
    """
    of_one = 4 if is_defended else 1_000
    limits = {"connections_max": 10, "identity_connections_max": of_one}
    async with opened(tmp_path / "data", **limits) as arena, arena.scene() as scene:
        attacker, victim = await scene.party(), await scene.party()
        let_in = [await has_room(scene, attacker) for _ in range(12)]
        assert sum(let_in) in ((4,) if is_defended else (8, 9))  # this machine's operator has one, and a master counts
        assert await has_room(scene, victim) is is_defended
        facts = [fact for fact in scene.arena.audited if fact.why == "too_many_connections"]
        assert facts


@both
async def test_t48_strangers_fill_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: anybody who reaches the port. Wants: a full disk, a store that is kept busy, a record nobody can read.

    Defence: of one place so many refusals a minute are looked up and told one by one; of the others the number. Source:
    OWASP ASVS 5.0, 16.2 (logging); STYLE, "Bounded everything"; `decide/knocks.py`.
    """
    bound = 10 if is_defended else 0
    async with opened(tmp_path / "data", strangers_per_minute=bound) as arena, arena.scene() as scene:
        assert scene.role.gate is not None
        ledger, looked = scene.role.gate.identity.ledger, []
        read = ledger.read

        async def counted(key: str) -> None:
            looked.append(key)
            await read(key)

        monkeypatch.setattr(ledger, "read", counted)
        party = await scene.party()
        for _ in range(50):
            forger = forge(scene, party)
            assert not await scene.is_let_in(KeyPair.make(Role.USER), forger.by_a_stranger())
        assert await scene.is_let_in(party)
        assert await happens(lambda: arena.audited[-1].what == "connected")
        told = [fact for fact in arena.audited if fact.what == "refused"]
        assert (len(told), len(looked)) == ((10, 10) if is_defended else (50, 50))
        comer = await scene.party()
        for _ in range(20):
            assert await scene.is_let_in(comer)
        assert await scene.is_let_in(party)
        assert await happens(lambda: [fact.who for fact in arena.audited[-1:]] == [party.name])
        came = [fact for fact in arena.audited if fact.what == "connected" and fact.who == comer.name]
        assert len(came) == (10 if is_defended else 20), "whoever may come in and goes again is no better"


@both
async def test_t49_a_publisher_connects_as_a_leaf_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher, where the server has a port for leaf nodes. Wants: to be a part of the account.

    Defence: the callout lets clients in, and neither leaf nodes nor MQTT. Source: tried on nats-server 2.15.1: it asks
    the callout for leaf nodes as well, and tells them what the account listens to; `identity/callout.py`, `is_client`.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configured(monkeypatch, lambda text: f'{text}\nleafnodes {{ listen: "127.0.0.1:{port}" }}\n')
    if not is_defended:
        monkeypatch.setattr("antiphon.actors.callout.is_client", yes)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        party = await scene.party()
        said = await first_word(f"nats://127.0.0.1:{port}", party.grant.access, party.key.public, party.key.sign)
        assert said.startswith("LS+ ") is not is_defended, said
        assert await first_word(scene.server.url, party.grant.access, party.key.public, party.key.sign) == "PONG\r\n"


@both
async def test_t50_somebody_answers_in_the_callouts_place(tmp_path: Path, is_defended: bool) -> None:
    """Attacker: whoever has the callout's own seeds, and not the issuer's. Wants: to let in whom he likes.

    Defence: the server believes what the issuer has signed for this one connection: neither another's signature nor an
    answer that was given before. Source: ADR-26 (the answer's `iss`, `aud` and `sub`); FACTS, hole 6.
    """
    async with opened(tmp_path / "real") as arena, arena.scene() as scene:
        vault, party, login = scene.vault, await scene.party(), full(verified(scene, await scene.party()))
    rogue, own = (Callout(issuer, None) for issuer in (KeyPair.make(Role.ACCOUNT), vault.issuer))
    public = vault.public if is_defended else replace(vault.public, issuer=rogue._issuer.public)
    given: list[bytes] = []

    async def answer(message: Msg) -> None:
        request = Callout(vault.issuer, vault.xkey).open(message.data, message.headers)
        assert request.server.xkey is not None
        now_ms = scene.role.bus.clock.wall_ms()
        answers = (rogue.admit(request, login, now_ms), own.admit(request, login, now_ms), *given[1:])
        given.append(answers[len(given)])
        await message.respond(vault.xkey.seal(given[-1], request.server.xkey))

    server = await EmbeddedServer.start(tmp_path / "data", Options(more=configuration(public)))
    async with server, replace(arena, server=server).scene() as there:
        desk = await there.raw(vault.callout)
        await desk.client.subscribe(ASK, cb=answer)
        await desk.client.flush()
        let_in = [await there.is_let_in(party) for _ in range(3)]
    assert given[2] == given[1], "what the issuer has signed, a second time"
    assert let_in == [not is_defended, is_defended, False]


def verified(scene: Scene, party: Party) -> Any:
    """A party's claims."""
    assert scene.role.gate is not None
    keys = scene.role.gate.identity.authority.keys
    return verify_access(party.grant.access, keys, scene.role.bus.prefix, scene.role.bus.clock.wall_ms())


@both
async def test_t51_an_operator_of_another_fabric(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: the operator of another fabric, e.g. of a test system. Wants: to be one here.

    Defence: each fabric makes its own keys and its own book at first start; nothing of one means anything to another.
    Source: OWASP ASVS 5.0, 13.3 (secrets of one environment); `identity/vault.py`.
    """
    async with opened(tmp_path / "data") as other:
        found = credential.read(other.home / credential.OPERATOR)
        assert other.role.gate is not None
        assert scene.role.gate is not None
        if not is_defended:  # as if both had the same keys folder and bucket
            monkeypatch.setattr(scene.role.gate.identity, "authority", other.role.gate.identity.authority)
        assert found.api_key is not None
        assert found.access is not None
        for shown in (found.api_key, found.access):
            assert await scene.is_let_in(found.keypair, shown) is not is_defended
        assert claims_of(found.access)["kind"] == Kind.OPERATOR


@both
async def test_t52_an_insider_probes_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool) -> None:
    """Attacker: a publisher who tries what he may. Wants: that nobody learns of it, for the server tells him alone.

    Defence: the server's log is followed, and each violation is a fact, of one user so many a minute. Source: NIST SP
    800-92, 2.1; `actors/violations.py`.
    """
    if not is_defended:
        monkeypatch.setattr("antiphon.actors.violations.ViolationFollower.follow", no)
    async with opened(tmp_path / "data") as arena, arena.scene() as scene:
        party = await scene.party()
        probe = await scene.raw(party)
        await probe.send("$JS.API.STREAM.LIST")
        await probe.listen("antiphon.>")
        for _ in range(100):
            await probe.client.publish("antiphon.v1.node.x.y.search")
        await probe.client.flush()

        def violated() -> list[Any]:
            return [fact for fact in arena.audited if fact.what == "violated"]

        if is_defended:
            assert await happens(lambda: len(violated()) >= 20)
            assert {(fact.who, fact.kind) for fact in violated()} == {(party.name, "publisher")}
            assert {fact.credential for fact in violated()} == {claims_of(party.grant.access)["jti"]}
            assert [fact.why for fact in violated()][:3] == ["publish", "subscribe", "publish"]
            assert violated()[0].where.endswith("$JS.API.STREAM.LIST")
    assert len(violated()) == (21 if is_defended else 0), "twenty, and one that says how many more"


@both
async def test_t53_one_caller_keeps_the_masters_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_defended: bool
) -> None:
    """Attacker: a publisher. Wants: that masters and nodes work for him alone.

    Defence: one caller may ask so often a minute; then he is refused with when to come back. Source: GCRA, ITU-T I.371;
    `decide/limit.py`.
    """

    async with opened(tmp_path / "data", caller_per_minute=20 if is_defended else 0) as arena, arena.scene() as scene:
        client = await scene.client()
        answers = await asyncio.gather(*(client.search("whales") for _ in range(60)), return_exceptions=True)
        refused = [one for one in answers if isinstance(one, AntiphonError)]
        assert len(refused) == (40 if is_defended else 0)
        assert all(isinstance(one, Overloaded) and one.retry_after_ms for one in refused)
