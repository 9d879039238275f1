"""Badges: a server that lets everybody in, where each message carries its sender's token and each responder reads it.

Everybody here is connected and may send anything to anybody; what keeps order is what masters and nodes look at.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli_process import fabric
from cli_process import until as until_it_is

from antiphon import Client, Hit, Node
from antiphon.app import MasterRole, master_role
from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.bus.connect import connect as connect_plainly
from antiphon.bus.endpoint import parse
from antiphon.bus.protocol import Delivery
from antiphon.bus.server import EmbeddedServer
from antiphon.client import user_name
from antiphon.decide.identities import Reason
from antiphon.decide.login import AccessClaims
from antiphon.errors import NotAuthenticated
from antiphon.identity import credential
from antiphon.identity.badge import BADGE, BadgedTransport
from antiphon.identity.connect import connect
from antiphon.identity.jws import decode64
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.tokens import mint_access, new_jti
from antiphon.identity.vault import FOLDER, Vault
from antiphon.messages.base import Kind
from antiphon.messages.identities import (
    CredentialRevoke,
    IdentityAudited,
    IdentityCreate,
    IdentityOrder,
    KeyCreate,
    KeysRotate,
    NodeInvite,
)
from antiphon.messages.lane import Load, NodeSearch
from antiphon.messages.registry import HeartBeaten, NodeList
from antiphon.messages.search import SearchAnswer, SearchAsk
from antiphon.messages.tokens import Enrol, TokenGrant, WhoAmI
from antiphon.responder import NodeBounds
from antiphon.settings import Settings
from fabrics import until
from forged import ATTACKS, Forge
from tokens import tokens_in

PREFIX = "antiphon"


@dataclass
class Party:
    """Somebody with a token of his own."""

    name: str
    grant: TokenGrant
    key: KeyPair

    @property
    def badge(self) -> str:
        return self.grant.access


@dataclass
class Open:
    """An open server, one master on it that has the fabric's keys, and whoever else is there."""

    server: EmbeddedServer
    home: Path
    stack: AsyncExitStack
    vault: Vault
    role: MasterRole
    operator: Bus
    audited: list[IdentityAudited] = field(default_factory=list)
    handled: list[str] = field(default_factory=list)

    async def master(self, name: str) -> MasterRole:
        """Start one more master."""
        return await _started(self.stack, self.vault, self.server.url, name)

    async def node(self, name: str = "blog", instance: str = "one", bounds: NodeBounds | None = None) -> Node:
        """Return a node that has joined with a join token, and notes what it is asked."""
        invite = await self.operator.ask(NodeInvite(node=name))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANTIPHON_TOKEN", invite.token)
            home = self.home / name
            bus = await connect(name, kind=Kind.NODE, instance=instance, nats=self.server.url, data=home)
        node = Node(name, instance=instance, bounds=bounds)

        @node.search
        async def search(query: Any) -> list[Hit]:
            self.handled.append(query.text)
            return [Hit(id="1", title=f"{name} whale", text="whales sing")]

        await node.start(bus=bus)
        self.stack.push_async_callback(node.stop)
        await asyncio.wait_for(node.joined(), 10)
        return node

    async def client(self, name: str = "web") -> Client:
        """Return a publisher who has come in with an API key."""
        await self.operator.ask(IdentityCreate(name=name, kind=Kind.PUBLISHER))
        key = await self.operator.ask(KeyCreate(identity=name))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ANTIPHON_TOKEN", key.key)
            client = Client(self.server.url, name=name, data=self.home / name)
            await client.connect()
        self.stack.push_async_callback(client.close)
        return client

    async def party(self, name: str, kind: Kind = Kind.PUBLISHER) -> Party:
        """Return an identity with a token, which nobody has used yet."""
        key, instance = KeyPair.make(Role.USER), "one" if kind is Kind.NODE else None
        grant = await self.operator.ask(Enrol(name=name, kind=kind, instance=instance, nkey=key.public))
        return Party(name, grant, key)

    async def stranger(self, name: str = "web") -> Bus:
        """Return the bus of somebody who has no token, and whom nothing stops from connecting under any name."""
        bus = await connect_plainly(name, endpoint=parse(self.server.url))
        self.stack.push_async_callback(bus.close)
        return bus

    async def ask(self, name: str, badge: str | None, query: str = "whale") -> SearchAnswer:
        """Search under a name, with a badge that need not be its own."""
        bus = await self.stranger(name)
        subject = SearchAsk.route.template.subject(prefix=PREFIX, caller=name)
        headers = {} if badge is None else {BADGE: badge}
        data = encode(SearchAsk(query=query))
        return SearchAnswer.model_validate_json(await bus.ask_bytes(subject, data, headers=headers, budget_ms=5_000))

    def badge(self, **changed: Any) -> str:
        """A badge that the masters might have made."""
        assert self.role.gate is not None
        now = self.role.bus.clock.wall_ms()
        said: dict[str, Any] = {
            "name": "web",
            "kind": Kind.PUBLISHER,
            "groups": (),
            "nkey": KeyPair.make(Role.USER).public,
            "jti": new_jti(),
            "issued_ms": now,
            "expires_ms": now + 60_000,
            "family": "a" * 16,
        }
        return mint_access(AccessClaims(**(said | changed)), self.role.gate.identity.authority.ring.active, PREFIX)

    async def refused(self, why: str, who: str | None = None) -> None:
        """Wait until the masters have told of a refusal for this reason."""
        await until(lambda: any(one.what == "refused" and one.why == why for one in self.audited))
        found = [one for one in self.audited if one.what == "refused"]
        assert [one.why for one in found] == [why] * len(found)
        assert who is None or {one.who for one in found} == {who}
        self.audited.clear()


async def _started(stack: AsyncExitStack, vault: Vault, url: str, name: str, **settings: Any) -> MasterRole:
    changed = {"caller_per_minute": 0, "tokens_per_minute": 0} | settings
    role = await master_role(name, Settings(**changed), parse(url), vault)
    await role.start()
    running = asyncio.ensure_future(role.run())

    async def stop() -> None:
        role.supervisor.stop()
        await running

    stack.push_async_callback(stop)
    return role


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[Open]:
    async with await EmbeddedServer.start(folder / "server") as server, AsyncExitStack() as stack:
        home = folder / "fabric"
        vault = Vault.open(home)
        role = await _started(stack, vault, server.url, "master", **settings)
        assert role.gate is not None
        await role.gate.introduce(home / credential.OPERATOR, user_name())
        operator = await connect(
            user_name(), kind=Kind.OPERATOR, nats=server.url, credentials=home / credential.OPERATOR
        )
        stack.push_async_callback(operator.close)
        place = Open(server, home, stack, vault, role, operator)

        def note(fact: IdentityAudited, _keys: dict[str, str]) -> None:
            place.audited.append(fact)

        await role.bus.hear(IdentityAudited, note)
        yield place


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    monkeypatch.setenv("ANTIPHON_DATA", str(tmp_path / "nobody"))
    async with opened(tmp_path) as one:
        yield one


@pytest.fixture(autouse=True)
def nothing_secret(capfd: pytest.CaptureFixture[str]) -> Any:
    """Whatever a test has written to its logs: no token is in it."""
    yield
    out, err = capfd.readouterr()
    assert tokens_in(out + err) == []


# -- who comes in


async def test_a_joined_node_is_searched_by_clients_and_operators(place: Open) -> None:
    node, client = await place.node(), await place.client()
    assert (await place.operator.ask(WhoAmI())).mode == "header"
    for asker in (client, Client(bus=place.operator)):
        answer = await asker.search("whale")
        assert answer.complete
        assert [hit.doc.title for hit in answer.hits] == ["blog whale"]
    assert [one.node for one in await client.nodes()] == ["blog"]
    answer = await place.ask("web", _badge_of(client))
    assert answer.complete, "a badge is all that it takes"
    assert _dropped(node) == 0


def _badge_of(client: Client) -> str:
    transport = client.bus.transport
    assert isinstance(transport, BadgedTransport)
    badge = transport._badge()
    assert badge is not None
    return badge


def _dropped(node: Node) -> int:
    assert node._bus is not None
    transport = node._bus.transport
    assert isinstance(transport, BadgedTransport)
    return transport.dropped


async def test_without_a_badge_or_with_a_wrong_one_nobody_is_served(place: Open) -> None:
    await place.node()
    web, shop = await place.party("web"), await place.party("shop", Kind.NODE)
    now = place.role.bus.clock.wall_ms()
    assert (await place.ask("web", web.badge)).complete
    wrong: dict[str, tuple[str | None, Reason]] = {
        "none": (None, Reason.MISSING),
        "an empty one": ("", Reason.MISSING),
        "somebody else's": ((await place.party("mallory")).badge, Reason.WRONG_NAME),
        "a node's": (shop.badge, Reason.WRONG_NAME),
        "one that has expired": (place.badge(issued_ms=now - 9_000, expires_ms=now - 1), Reason.EXPIRED),
        "one of a family that is none": (place.badge(), Reason.UNKNOWN_CREDENTIAL),
        "one of nobody": (place.badge(name="nobody"), Reason.UNKNOWN_IDENTITY),
        "one that says more": (place.badge(kind=Kind.OPERATOR), Reason.WRONG_KIND),
    }
    asked = len(place.handled)
    for name, (badge, reason) in wrong.items():
        with pytest.raises(NotAuthenticated):
            await place.ask("nobody" if name == "one of nobody" else "web", badge)
        await place.refused(reason)
    assert len(place.handled) == asked, "no node hears of it"


async def test_every_forged_badge_is_refused(place: Open) -> None:
    web = await place.party("web")
    assert place.role.gate is not None
    ring, now_ms = place.role.gate.identity.authority.ring, place.role.bus.clock.wall_ms()
    forge = Forge(nkey=web.key.public, now_ms=now_ms, ring=ring, name="web")
    for name, (make, _reason) in ATTACKS.items():
        badge = make(forge)
        if not badge.isascii() or not badge.isprintable() or len(badge) > 100_000:
            continue  # no header holds it
        with pytest.raises(NotAuthenticated):
            await place.ask("web", badge)
        assert place.handled == [], name


async def test_what_is_taken_away_is_refused_from_the_next_message_on(place: Open) -> None:
    await place.node()
    for what in ("token", "family"):
        party = await place.party(f"web-{what}")
        assert (await place.ask(party.name, party.badge)).complete
        claims = json.loads(decode64(party.badge.split(".")[1]))
        await place.operator.ask(CredentialRevoke(what=what, id=claims["jti" if what == "token" else "fam"]))
        with pytest.raises(NotAuthenticated):
            await place.ask(party.name, party.badge)
        await place.refused("revoked_token" if what == "token" else "revoked_family", party.name)
    client = await place.client("app")
    assert (await client.search("whale")).complete
    await place.operator.ask(IdentityOrder(name="app", order="suspend"))
    with pytest.raises(NotAuthenticated):
        await client.search("whale")
    await place.refused("suspended", "app")
    await place.operator.ask(IdentityOrder(name="app", order="resume"))
    assert (await client.search("whale")).complete, "and comes back with the same badge"
    await place.operator.ask(IdentityOrder(name="app", order="revoke"))
    with pytest.raises(NotAuthenticated):
        await client.search("whale")


async def test_a_suspended_node_is_not_heard_and_comes_back(place: Open) -> None:
    node, client = await place.node(), await place.client()
    await place.operator.ask(IdentityOrder(name="blog", order="suspend"))
    await until(lambda: any(one.why == "suspended" and one.who == "blog" for one in place.audited))
    await place.operator.ask(IdentityOrder(name="blog", order="resume"))
    assert (await client.search("whale")).complete
    assert _dropped(node) == 0


# -- lanes and facts


def _lane(name: str = "blog", instance: str = "one") -> str:
    return NodeSearch.route.template.subject(prefix=PREFIX, node=name, instance=instance)


def _question() -> bytes:
    return encode(NodeSearch(request="r-1", budget_ms=2_000, query="forged"))


async def test_a_node_drops_what_no_master_has_sent(place: Open) -> None:
    node = await place.node()
    shop, web = await place.party("shop", Kind.NODE), await place.party("web")
    stranger = await place.stranger("master-mallory")
    now = place.role.bus.clock.wall_ms()
    expired = place.badge(kind=Kind.MASTER, name="master", issued_ms=now - 9_000, expires_ms=now - 1)
    wrong = [None, web.badge, shop.badge, expired]
    for count, badge in enumerate(wrong, 1):
        headers = {} if badge is None else {BADGE: badge}
        with pytest.raises(NotAuthenticated):
            await stranger.ask_bytes(_lane(), _question(), headers=headers, budget_ms=5_000)
        assert _dropped(node) == count
    assert place.handled == []
    answer = await Client(bus=place.operator).search("whale")
    assert answer.complete
    assert place.handled == ["whale"]


async def test_a_nodes_badge_is_no_good_for_another_nodes_facts(place: Open) -> None:
    await place.node()
    shop = await place.party("shop", Kind.NODE)
    stranger = await place.stranger("shop")

    async def beat(badge: str | None, in_flight: int, writer: str, instance: str) -> None:
        subject = HeartBeaten.route.template.subject(prefix=PREFIX, writer=writer, instance=instance)
        data = encode(HeartBeaten(load=Load(in_flight=in_flight)))
        await stranger.transport.publish(subject, data, headers=None if badge is None else {BADGE: badge})

    heard: list[tuple[str, int]] = []

    def hear(fact: HeartBeaten, keys: dict[str, str]) -> None:
        heard.append((keys["writer"], fact.load.in_flight))

    await place.role.bus.hear(HeartBeaten, hear)
    await place.role.bus.transport.flush()
    await beat(shop.badge, 77, "blog", "one")
    await place.refused("wrong_name", "blog")
    await beat(None, 77, "blog", "one")
    await place.refused("missing", "blog")
    await beat(shop.badge, 77, "shop", "two")
    await place.refused("wrong_name", "shop")
    await beat(shop.badge, 5, "shop", "one")
    await until(lambda: ("shop", 5) in heard)
    assert not [one for one in heard if one[1] == 77]


# -- keys


async def test_rotations_go_unnoticed(place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("antiphon.identity.held_keys.LOOK_MS", 0)  # rotations do not follow each other like this
    node, client = await place.node(), await place.client()
    roles = [place.role, await place.master("master-two")]

    def everybody_signs_with(kid: str) -> bool:
        return all(role.gate is not None and role.gate.identity.authority.ring.active.kid == kid for role in roles)

    for turn in range(4):  # the node was told of the first two keys; of the others it has to ask
        ring = await place.operator.ask(KeysRotate(order="rotate"))
        async with asyncio.timeout(5):
            while not everybody_signs_with(ring.active):  # noqa: ASYNC110 - a watch sends this test no event
                await asyncio.sleep(0.002)
        for _ in range(6):  # by whichever master
            answer = await client.search(f"turn {turn}")
            assert answer.complete, answer.nodes
    listed = await place.operator.ask(NodeList())
    assert [one.status for one in listed.nodes] == ["active"]
    assert not [one for one in place.audited if one.what == "refused"]
    assert Counter(place.handled) == {f"turn {turn}": 6 for turn in range(4)}
    assert _dropped(node) == 0


async def test_an_expelled_key_costs_its_owners_a_renewal_and_no_more(
    place: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.identity.session.HURRY_MS", 0)
    client = await place.client()
    node = await place.node(bounds=NodeBounds(rejoin_ms=2_000))
    assert place.role.gate is not None
    before, expelled = _badge_of(client), place.role.gate.identity.authority.ring.active.kid
    beats: list[str] = []

    def hear(_fact: HeartBeaten, keys: dict[str, str]) -> None:
        beats.append(keys["writer"])

    await place.role.bus.hear(HeartBeaten, hear)
    await place.operator.ask(KeysRotate(order="rotate", expel=expelled))
    with pytest.raises(NotAuthenticated):
        await place.ask("web", before)
    with pytest.raises(NotAuthenticated):
        await client.search("whale")
    await until(lambda: _badge_of(client) != before)
    beats.clear()
    await until(lambda: "blog" in beats, 20)
    assert (await client.search("whale")).complete
    assert _dropped(node) == 0


async def test_a_token_that_another_master_has_just_made_is_looked_for(place: Open) -> None:
    await place.node()
    other = await place.master("master-two")
    assert place.role.gate is not None
    assert other.gate is not None
    for role in (place.role, other):
        role.gate.identity.ledger.book.records.clear()  # type: ignore[union-attr]  # as if it had not heard of it yet
        client = await place.client(role.bus.name.replace("master", "web"))
        assert (await client.search("whale")).complete
    assert not [one for one in place.audited if one.what == "refused"]


async def test_nobody_fills_the_log_with_refusals(place: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = await place.stranger()
    subject = SearchAsk.route.template.subject(prefix=PREFIX, caller="web")
    for _ in range(2_000):
        await stranger.transport.publish(subject, b"{}")
    transport = place.role.bus.transport
    assert isinstance(transport, BadgedTransport)
    await until(lambda: transport.dropped == 2_000)
    assert len([one for one in place.audited if one.what == "refused"]) <= 601
    assert (await Client(bus=place.operator).nodes()) == ()


# -- what this mode cannot do


async def test_whoever_listens_has_the_badges_that_he_sees(place: Open) -> None:
    """The limit that docs/security.md states: if this fails, the page is too modest."""
    await place.node()
    client, listener = await place.client(), await place.stranger("mallory")
    seen: list[str] = []

    async def overhear(delivery: Delivery) -> None:
        seen.append((delivery.headers or {}).get(BADGE, ""))

    await listener.transport.subscribe(f"{PREFIX}.v1.search.>", overhear)
    await listener.transport.flush()
    await client.search("whale")
    await until(lambda: seen)
    assert (await place.ask("web", seen[0])).complete, "a badge proves nothing about who shows it"


async def test_answers_and_the_servers_own_subjects_carry_no_badge(place: Open) -> None:
    await place.node()
    client, listener = await place.client(), await place.stranger("mallory")
    shown: dict[str, bool] = {}

    async def overhear(delivery: Delivery) -> None:
        shown[delivery.subject.partition(".")[0]] = BADGE in (delivery.headers or {})

    await listener.transport.subscribe(">", overhear)
    await listener.transport.flush()
    await client.search("whale")
    await place.operator.transport.publish("$SRV.PING", b"", reply=f"{place.operator.inbox}.x")
    await until(lambda: {"antiphon", "_I", "$SRV"} <= shown.keys())
    assert shown["antiphon"]
    assert not shown["_I"]
    assert not shown["$SRV"]


# -- from the command line


def test_the_command_line_works_on_a_server_that_asks_nobody(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "whale.md").write_text("# Whales\n\nA whale is no fish.\n")
    server = asyncio.run(EmbeddedServer.start(tmp_path / "server"))
    try:
        with fabric(tmp_path) as made:
            home = tmp_path / "fabric"
            Vault.open(home)
            made.environment["ANTIPHON_NATS"] = server.url
            operator = str(home / credential.OPERATOR)
            master = made.start("run", "master", "--keys", str(home / FOLDER), "--log-level", "debug")
            until_it_is(lambda: '"master.serves"' in made.log(master) or master.poll() is not None)
            assert master.poll() is None, made.log(master)
            invited = made.run("node", "invite", "pages", "--credentials", operator)
            assert invited.code == 0, invited.err
            made.environment["ANTIPHON_TOKEN"] = invited.out.strip().splitlines()[-1]
            node = made.serve("folder", str(pages), "--name", "pages", "--log-level", "debug")
            del made.environment["ANTIPHON_TOKEN"]
            found = made.run("search", "whale", "-o", "json", "--credentials", operator)
            assert found.code == 0, found.err
            assert [hit["doc"]["title"] for hit in found.json["hits"]] == ["Whales"]
            refused = made.run("search", "whale")
            assert (refused.code, refused.out) == (8, "")
            assert "antiphon login" in refused.err
            doctor = made.run("doctor", "--credentials", operator)
            assert "header" in doctor.out
            written = made.log(master) + made.log(node) + found.err + refused.err + doctor.out + doctor.err
            assert tokens_in(written) == [], "no badge is ever logged"
    finally:
        asyncio.run(server.stop())
