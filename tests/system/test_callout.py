"""The auth callout on a real nats-server: its configuration, our codec, and clients that are let in or are not."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from antiphon.bus.server import EmbeddedServer, Options
from antiphon.clock import LoopClock
from antiphon.decide.grants import grants
from antiphon.decide.identities import ApiKeyRecord, FamilyRecord, IdentityRecord, Reason
from antiphon.decide.login import AccessClaims, Login, bootstrap, full, judge_access, judge_api_key
from antiphon.identity import opaque
from antiphon.identity.callout import AuthRequest, Callout, possession
from antiphon.identity.jwks import KeySet
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.opaque import Sort
from antiphon.identity.server_config import ASK, AccountLimits, configuration
from antiphon.identity.tokens import ACCESS_MS, TOKEN_BYTES_MAX, mint_access, new_jti, verify_access
from antiphon.identity.vault import Vault
from antiphon.messages.base import Kind
from antiphon.messages.lane import GROUPS_MAX
from forged import ATTACKS, Forge

FAMILY = "a" * 16
AUDIENCE = "antiphon"


def now_ms() -> int:
    return LoopClock().wall_ms()


@dataclass
class Desk:
    """The least identity actor: one identity, one family, one API key, and a list of what it was asked."""

    vault: Vault
    forge: Forge
    nkey: str
    api_key: opaque.Opaque = field(default_factory=lambda: opaque.make(Sort.API_KEY))
    asked: list[AuthRequest] = field(default_factory=list)
    refused: list[Reason] = field(default_factory=list)

    def judge(self, request: AuthRequest) -> Login | Reason:
        if (reason := possession(request)) is not None:
            return reason
        identity = IdentityRecord(name=self.forge.name, kind=Kind(self.forge.kind))
        key = opaque.parse(request.connect.auth_token)
        if key is not None:
            return self._by_key(key, request, identity)
        now = now_ms()
        claims = verify_access(request.connect.auth_token, KeySet.of(self.forge.ring), AUDIENCE, now)
        if isinstance(claims, Reason):
            return claims
        family = FamilyRecord(
            id=FAMILY,
            identity=self.forge.name,
            instance=claims.instance,
            nkey=self.nkey,
            current="c" * 64,
            expires_ms=2**50,
        )
        return judge_access(claims, request.connect.nkey, identity, family, now) or full(claims)

    def _by_key(self, key: opaque.Opaque, request: AuthRequest, identity: IdentityRecord) -> Login | Reason:
        mac = self.api_key.mac(self.vault.pepper)
        known = ApiKeyRecord(id=self.api_key.id, identity=identity.name, mac=mac)
        record = known if key.id == known.id else None
        reason = judge_api_key(record, key.mac(self.vault.pepper), request.connect.nkey, identity, now_ms())
        return reason or bootstrap(identity.kind, identity.name, None, now_ms())

    async def serve(self, connection: Client) -> None:
        callout = Callout(self.vault.issuer, self.vault.xkey)

        async def answer(message: Msg) -> None:
            request = callout.open(message.data, message.headers)
            self.asked.append(request)
            found = self.judge(request)
            if isinstance(found, Reason):
                self.refused.append(found)
                await message.respond(callout.refuse(request, found, now_ms()))
            else:
                await message.respond(callout.admit(request, found, now_ms()))

        await connection.subscribe(ASK, "callout", cb=answer)
        await connection.flush()


@dataclass
class Place:
    """A server with its callout, and ways to knock."""

    server: EmbeddedServer
    vault: Vault
    desk: Desk
    own: KeyPair
    errors: list[str] = field(default_factory=list)
    was_told: asyncio.Event = field(default_factory=asyncio.Event)
    _open: list[Client] = field(default_factory=list)

    async def connect(self, token: str | None = None, key: KeyPair | None = None, **options: Any) -> Client:
        async def noted(error: Exception) -> None:
            self.errors.append(str(error))
            self.was_told.set()

        if key is not None:
            options["nkeys_seed_str"] = key.seed()
        if token is not None:
            options["token"] = token
        client = Client()
        self._open.append(client)  # also one that is refused: the library leaves its socket open
        await client.connect(self.server.url, allow_reconnect=False, connect_timeout=5, error_cb=noted, **options)
        return client

    async def is_refused(self, token: str | None = None, key: KeyPair | None = None, **options: Any) -> bool:
        """Whether the server keeps somebody out, and for no other reason than that."""
        try:
            await self.connect(token, key, **options)
        except nats.errors.Error as error:
            if "authorization violation" not in str(error).lower():
                raise
            return True
        return False

    async def told(self, text: str, count: int = 1) -> None:
        """Wait until the server has said something so often; the library tells it in tasks of its own."""
        async with asyncio.timeout(5):
            while sum(text in one for one in self.errors) < count:
                self.was_told.clear()
                await self.was_told.wait()
        assert sum(text in one for one in self.errors) == count

    async def close(self) -> None:
        for client in self._open:
            with suppress(nats.errors.Error):
                await client.close()

    def token(self, **changed: Any) -> str:
        """An access token as a master mints it, in the name of the forge's identity."""
        now = now_ms()
        forge = self.desk.forge
        said: dict[str, Any] = {
            "name": forge.name,
            "kind": Kind(forge.kind),
            "groups": (),
            "nkey": self.own.public,
            "jti": new_jti(),
            "issued_ms": now,
            "expires_ms": now + ACCESS_MS,
            "family": FAMILY,
        }
        return mint_access(AccessClaims(**(said | changed)), forge.ring.active, AUDIENCE)


@asynccontextmanager
async def opened(data: Path, *, name: str = "web", kind: str = "publisher", more: str = "") -> AsyncIterator[Place]:
    vault, own = Vault.open(data), KeyPair.make(Role.USER)
    text = more or configuration(vault.public)
    async with await EmbeddedServer.start(data, Options(more=text)) as server:
        desk = Desk(vault, Forge(own.public, now_ms=now_ms(), name=name, kind=kind), own.public)
        place = Place(server, vault, desk, own)
        try:
            await desk.serve(await place.connect(key=vault.callout))
            yield place
        finally:
            await place.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with opened(tmp_path / "data") as one:
        yield one


async def test_the_right_token_connects_with_exactly_its_grants(place: Place) -> None:
    master = await place.connect(key=place.vault.master)
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def note(message: Msg) -> None:
        await seen.put(message.subject)

    await master.subscribe(">", cb=note)
    await master.flush()
    client = await place.connect(place.token(), place.own)
    assert place.desk.asked[-1].client.kind == "Client"

    rights = grants(Kind.PUBLISHER, "web")
    allowed = sorted({pattern.replace("*", "x") for pattern in rights.publish})
    forbidden = [
        "antiphon.v1.search.ask.other",
        "antiphon.v1.search.ask.web.x",
        "antiphon.v1.node.docs.docs-1.search",
        "antiphon.v1.identity.token.other",
        "antiphon.v1.fact.search.finished.master",
        "_I.other.session.x",
        "_I.web.session.x",
        "$JS.API.STREAM.LIST",
        "$KV.antiphon-identity.id.web",
        "$SYS.REQ.USER.AUTH",
        "$SYS.REQ.ACCOUNT.APP.CONNZ",
        "$SRV.PING",
        "anything",
    ]
    for subject in [*forbidden, *allowed]:
        await client.publish(subject, b"")
    await client.flush()
    assert [await asyncio.wait_for(seen.get(), 5) for _ in allowed] == allowed, "in order, so nothing else came before"
    await master.flush()
    assert seen.empty()
    await place.told("permissions violation for publish", len(forbidden))

    place.errors.clear()
    for subject in (
        ">",
        "*",
        "_I.>",
        "_I.*.>",
        "_I.other.>",
        "antiphon.>",
        "antiphon.v1.search.ask.*",
        "$SYS.>",
        "$SRV.>",
    ):
        await client.subscribe(subject)
    await client.subscribe("_I.web.>")
    await client.flush()
    await place.told("permissions violation for subscription", 9)


async def test_a_node_answers_what_it_was_asked_and_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "data", name="docs", kind="node") as place:
        node = await place.connect(place.token(instance="docs-1"), place.own)

        async def answer(message: Msg) -> None:
            await message.respond(b"one")
            await message.respond(b"two")

        await node.subscribe("antiphon.v1.node.docs.docs-1.search", cb=answer)
        await node.flush()
        master = await place.connect(key=place.vault.master)
        inbox = await master.subscribe("_I.master.1.>")
        await master.publish("antiphon.v1.node.docs.docs-1.search", b"", reply="_I.master.1.x")
        await master.publish("antiphon.v1.node.docs.docs-1.search", b"", reply="_I.master.1.y")
        got = [await inbox.next_msg(5) for _ in range(2)]
        assert [(message.subject[-1], message.data) for message in got] == [("x", b"one"), ("y", b"one")]
        await node.flush()
        await master.flush()
        assert inbox.pending_msgs == 0
        await place.told("permissions violation for publish", 2)


async def test_anonymous_connections_and_passwords_are_refused(place: Place) -> None:
    assert await place.is_refused()
    assert await place.is_refused(user="web", password="web")
    assert await place.is_refused(place.token()), "a token without a key"
    assert await place.is_refused(key=place.own), "a key without a token"
    assert await place.is_refused("", place.own)
    assert set(place.desk.refused) == {Reason.MISSING}
    assert not await place.is_refused(place.token(), place.own)


async def test_a_stolen_token_is_worth_nothing_without_its_key(place: Place) -> None:
    assert await place.is_refused(place.token(), KeyPair.make(Role.USER))
    assert place.desk.refused == [Reason.WRONG_KEY]
    assert not await place.is_refused(place.token(), place.own)


async def test_a_public_key_is_no_proof(place: Place) -> None:
    # The thief says that he has the right key, and signs with another one, or with an old signature.
    thief = KeyPair.make(Role.USER)
    old = place.desk.asked
    await place.connect(place.token(), place.own)
    for sign in (
        thief.sign,
        lambda nonce: base64.b64decode(old[0].connect.sig),
        lambda nonce: b"",
    ):
        assert "Authorization Violation" in await raw_connect(place, place.token(), place.own.public, sign)
    assert place.desk.refused == [Reason.NO_PROOF] * 3


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode], ids=["standard", "url"])
@pytest.mark.parametrize("padding", ["", "="])
async def test_the_server_hands_signatures_over_as_the_client_wrote_them(
    place: Place, encode: Callable[[bytes], bytes], padding: str
) -> None:
    def text(raw: bytes) -> str:
        return encode(raw).decode().rstrip("=") + padding * 2

    assert "PONG" in await raw_connect(place, place.token(), place.own.public, place.own.sign, text)
    [request] = place.desk.asked
    assert request.connect.sig == text(place.own.sign(request.client.nonce.encode()))


async def raw_connect(
    place: Place,
    token: str,
    nkey: str,
    sign: Callable[[bytes], bytes],
    text: Callable[[bytes], str] = lambda raw: base64.b64encode(raw).decode(),
) -> str:
    """Connect without a library, and return what the server says to that."""
    host, port = place.server.url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        info = json.loads((await reader.readline()).removeprefix(b"INFO "))
        said = {"nkey": nkey, "sig": text(sign(info["nonce"].encode())), "auth_token": token, "verbose": False}
        writer.write(b"CONNECT " + json.dumps(said).encode() + b"\r\nPING\r\n")
        async with asyncio.timeout(5):
            while True:
                line = (await reader.readline()).decode()
                if not line.startswith("INFO"):
                    return line
    finally:
        writer.close()


SIZE = {"oversize", "not ASCII", "empty"}
"""Attacks that a client library or the server's own bound on a line stops before the callout."""


async def test_every_forged_token_is_refused(place: Place) -> None:
    place.desk.forge.now_ms = now_ms()
    assert not await place.is_refused(place.desk.forge.token(), place.own)
    for name, (make, reason) in ATTACKS.items():
        if name in SIZE:
            continue
        place.desk.refused.clear()
        assert await place.is_refused(make(place.desk.forge), place.own), name
        assert place.desk.refused == [reason], name
    assert not await place.is_refused(place.desk.forge.token(), place.own)


async def test_the_largest_token_fits_into_the_servers_line(place: Place) -> None:
    groups = tuple(f"{at:02}{'g' * 61}" for at in range(GROUPS_MAX))
    assert not await place.is_refused(place.token(groups=groups), place.own, name="antiphon-" + "n" * 63)
    room = TOKEN_BYTES_MAX - len(place.desk.forge.token())
    largest = place.desk.forge.token(pad="x" * (room * 3 // 4 - 12))
    assert TOKEN_BYTES_MAX - 8 <= len(largest) <= TOKEN_BYTES_MAX
    assert not await place.is_refused(largest, place.own, name="n" * 63)


async def test_an_api_key_may_only_ask_for_tokens(place: Place) -> None:
    stranger = KeyPair.make(Role.USER)
    client = await place.connect(place.desk.api_key.reveal(), stranger)
    master = await place.connect(key=place.vault.master)
    asked = await master.subscribe(">")
    await master.flush()
    await client.subscribe("_I.web.>")
    await client.publish("antiphon.v1.search.ask.web", b"")
    await client.publish("antiphon.v1.identity.token.web", b"", reply="_I.web.1.x")
    await client.flush()
    assert (await asked.next_msg(5)).subject == "antiphon.v1.identity.token.web"
    await place.told("permissions violation for publish")
    wrong = opaque.Opaque(Sort.API_KEY, place.desk.api_key.id, opaque.make(Sort.API_KEY).secret)
    for text in (wrong.reveal(), opaque.make(Sort.API_KEY).reveal(), place.desk.api_key.reveal()[:-1] + "x"):
        assert await place.is_refused(text, stranger)
    assert place.desk.refused == [Reason.WRONG_SECRET, Reason.UNKNOWN_CREDENTIAL, Reason.MALFORMED]


async def test_a_connection_ends_with_its_token(place: Place) -> None:
    closed = asyncio.Event()

    async def ended() -> None:
        closed.set()

    now = now_ms()
    client = await place.connect(place.token(expires_ms=now + 2_000), place.own, closed_cb=ended)
    await asyncio.wait_for(closed.wait(), 10)
    assert "user authentication expired" in str(client.last_error)


async def test_requests_are_sealed(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path / "data")
    plain = "\n".join(line for line in configuration(vault.public).splitlines() if "xkey:" not in line)
    async with opened(tmp_path / "data", more=plain) as place:
        # The server asks in the clear; our callout does not understand that, and nobody gets in.
        heard_in_clear = asyncio.Event()
        spy = await place.connect(key=place.vault.callout)

        async def note(message: Msg) -> None:
            Callout(vault.issuer, None).open(message.data, message.headers)
            heard_in_clear.set()

        await spy.subscribe(ASK, cb=note)
        await spy.flush()
        assert await place.is_refused(place.token(), place.own)
        await asyncio.wait_for(heard_in_clear.wait(), 5)
        assert place.desk.asked == []


async def test_what_goes_over_the_wire_shows_no_token(place: Place) -> None:
    raw: list[bytes] = []
    spy = await place.connect(key=place.vault.callout)

    async def note(message: Msg) -> None:
        raw.append(message.data)

    await spy.subscribe(ASK, cb=note)
    await spy.flush()
    token = place.token()
    assert not await place.is_refused(token, place.own)
    await spy.flush()
    assert raw
    assert raw[0].startswith(b"xkv1")
    assert token.encode() not in raw[0]


async def test_the_callouts_own_user_may_do_nothing_else(place: Place) -> None:
    callout = await place.connect(key=place.vault.callout)
    await callout.publish("antiphon.v1.search.ask.web", b"")
    await callout.publish(ASK, b"")
    await callout.subscribe(">")
    await callout.subscribe("$SYS.>")
    await callout.flush()
    await place.told("permissions violation", 4)
    assert await place.is_refused(key=KeyPair.make(Role.USER)), "and its account takes nobody else"


async def test_two_accounts_share_nothing(place: Place) -> None:
    system, master = await place.connect(key=place.vault.system), await place.connect(key=place.vault.master)
    seen = await system.subscribe(">")
    await system.flush()
    await master.publish("antiphon.v1.search.ask.web", b"")
    await master.flush()
    pinged = await system.request("$SYS.REQ.SERVER.PING.IDZ", b"", timeout=5)
    assert b"antiphon-" in pinged.data
    subjects = [message.subject for message in [await seen.next_msg(5) for _ in range(seen.pending_msgs)]]
    assert not [subject for subject in subjects if subject.startswith("antiphon.")]


async def test_the_accounts_bound_holds(tmp_path: Path) -> None:
    vault = Vault.open(tmp_path / "data")
    text = configuration(vault.public, AccountLimits(connections=2, streams=1))
    async with opened(tmp_path / "data", more=text) as place:
        master = await place.connect(key=place.vault.master)
        await place.connect(place.token(), place.own)
        with pytest.raises(nats.errors.Error, match="maximum account active connections exceeded"):
            await place.connect(place.token(), place.own)
        stream = master.jetstream()
        await stream.add_stream(name="one", subjects=["one"])
        with pytest.raises(nats.js.errors.APIError, match="maximum number of streams"):
            await stream.add_stream(name="two", subjects=["two"])
