"""Identities on a real server: who gets in and who does not, tokens that renew, and everything that takes them away."""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client as NatsClient

from antiphon import Client, Hit, Node
from antiphon import app as composition
from antiphon.bus.assets import identity_of
from antiphon.bus.bus import Bus
from antiphon.bus.endpoint import resolve
from antiphon.bus.protocol import KeyValue
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.client import user_name
from antiphon.decide.grants import grants
from antiphon.errors import (
    AntiphonError,
    InvalidSetting,
    NotAllowed,
    NotAuthenticated,
    SecretsUnusable,
    UnknownIdentity,
)
from antiphon.identity import credential as files
from antiphon.identity.connect import connect
from antiphon.identity.desk import Desk
from antiphon.identity.keypair import KeyPair, Role
from antiphon.identity.login import LoggedIn, log_in
from antiphon.identity.server_config import configuration
from antiphon.identity.session import Place
from antiphon.identity.sources import FileSource, JoinSource
from antiphon.identity.vault import Vault
from antiphon.messages.base import Kind
from antiphon.messages.identities import IdentityAudited
from antiphon.messages.search import SearchAsk
from antiphon.settings import Settings
from arena import Arena, happens, opened

BOUND_S = 15


@dataclass
class Fabric:
    """A fabric as `antiphon up` runs it, and what a test opens on it."""

    arena: Arena
    desk: Desk
    folder: Path
    stack: AsyncExitStack
    told: list[IdentityAudited]

    @property
    def home(self) -> Path:
        return self.arena.home

    @property
    def url(self) -> str:
        return self.arena.server.url

    def machine(self, name: str) -> Path:
        """The data directory of another machine."""
        return self.folder / name

    def place(self, name: str, kind: Kind = Kind.PUBLISHER, instance: str | None = None) -> Place:
        return Place(resolve(self.url), "antiphon", name, kind, instance)

    async def login(self, name: str, *, kind: str = "publisher", machine: str = "b") -> LoggedIn:
        """An identity with an API key that has logged in on another machine."""
        await self.desk.create(name, kind)
        made = await self.desk.create_key(name)
        return await log_in(self.place(name), made.key, self.machine(machine))

    async def client(self, data: Path, name: str | None = None) -> Client:
        client = Client(self.url, data=data, name=name)
        await client.connect()
        self.stack.push_async_callback(client.close)
        return client

    async def node(self, data: Path, name: str = "docs", instance: str | None = None) -> Node:
        node = a_node(name, instance)
        await node.start(self.url, data=data)
        self.stack.push_async_callback(node.stop)
        async with asyncio.timeout(BOUND_S):
            await node.joined()
        return node

    async def heard(self, what: str, **fields: Any) -> bool:
        """Whether the audit tells it."""
        return await happens(lambda: self.has_told(what, **fields), BOUND_S)

    def has_told(self, what: str, **fields: Any) -> bool:
        return any(
            one.what == what and all(getattr(one, key) == value for key, value in fields.items()) for one in self.told
        )


def a_node(name: str = "docs", instance: str | None = None) -> Node:
    node = Node(name, instance=instance)

    @node.search
    async def search(query: object) -> list[Hit]:
        return [Hit(id="1", title="Whales", text="whales sing")]

    return node


@asynccontextmanager
async def fabric_on(folder: Path, **settings: Any) -> AsyncIterator[Fabric]:
    defaults = {"caller_per_minute": 0, "tokens_per_minute": 0, "failures_per_minute": 0}
    async with opened(folder / "data", **(defaults | settings)) as arena, AsyncExitStack() as stack:
        told: list[IdentityAudited] = []

        def hear(fact: IdentityAudited, _keys: dict[str, str]) -> None:
            told.append(fact)

        await arena.role.bus.hear(IdentityAudited, hear)
        await arena.role.bus.transport.flush()
        yield Fabric(arena, Desk(arena.operator), folder, stack, told)


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fabric]:
    for name in ("ANTIPHON_TOKEN", "ANTIPHON_CREDENTIALS", "ANTIPHON_NAME", "ANTIPHON_DATA"):
        monkeypatch.delenv(name, raising=False)
    async with fabric_on(tmp_path) as one:
        yield one


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def is_let_in(url: str, **options: Any) -> bool:
    client = NatsClient()

    async def quiet(_error: Exception) -> None:
        pass

    try:
        await client.connect(url, allow_reconnect=False, connect_timeout=5, error_cb=quiet, **options)
    except nats.errors.Error:
        return False
    finally:
        with suppress(nats.errors.Error):
            await client.close()
    return True


# -- without any set-up


async def test_the_first_start_makes_secrets_and_an_operator_for_this_user_alone(tmp_path: Path) -> None:
    home = tmp_path / "data"
    async with opened(home):
        made = {path.name: path.read_bytes() for path in (home / "keys").iterdir()}
        assert sorted(made) == ["callout.seed", "issuer.seed", "master.seed", "pepper", "system.seed", "xkey.seed"]
        assert {mode(path) for path in (home / "keys").iterdir()} == {0o600}
        assert (mode(home / "keys"), mode(home / "operator.json"), mode(home)) == (0o700, 0o600, 0o700)
        operator = files.read(home / "operator.json")
        assert (operator.name, operator.kind) == (user_name(), Kind.OPERATOR)
    async with opened(home) as again:
        assert {path.name: path.read_bytes() for path in (home / "keys").iterdir()} == made
        after = files.read(home / "operator.json")
        assert (after.api_key, after.seed) == (operator.api_key, operator.seed), "a restart makes nothing new"
        assert [one.name for one in await Desk(again.operator).identities()] == [user_name()]


async def test_nobody_gets_in_without_a_credential(here: Fabric) -> None:
    assert not await is_let_in(here.url)
    assert not await is_let_in(here.url, user="antiphon", password="antiphon")
    assert not await is_let_in(here.url, token="antiphon")
    assert not await is_let_in(here.url, nkeys_seed_str=KeyPair.make(Role.USER).seed())
    operator = files.read(here.home / "operator.json")
    assert operator.access is not None
    assert not await is_let_in(here.url, token=operator.access), "a token without its key opens nothing"
    assert not await is_let_in(here.url, token=operator.access, nkeys_seed_str=KeyPair.make(Role.USER).seed())
    assert await is_let_in(here.url, token=operator.access, nkeys_seed_str=operator.seed)
    with pytest.raises(NotAuthenticated, match="antiphon login"):
        await Client(here.url, data=here.machine("stranger")).connect()
    assert await here.heard("refused", why="missing")
    assert await here.heard("refused", why="wrong_key")


async def test_what_others_may_read_is_no_secret(here: Fabric) -> None:
    (here.home / "operator.json").chmod(0o644)
    with pytest.raises(SecretsUnusable, match="chmod 600"):
        await Client(data=here.home, name="web").connect()
    (here.home / "operator.json").chmod(0o600)
    theirs = here.folder / "theirs"
    theirs.mkdir()
    (theirs / "something").touch()
    theirs.chmod(0o777)
    with pytest.raises(InvalidSetting, match="others may write"):
        Vault.open(theirs)


async def test_whoever_is_started_on_this_machine_gets_exactly_its_lanes(here: Fabric) -> None:
    publisher = await connect("web", data=here.home)
    node = await connect("docs", kind=Kind.NODE, instance="one", data=here.home)
    operator = await connect(user_name(), data=here.home)
    buses = {Kind.PUBLISHER: publisher, Kind.NODE: node, Kind.OPERATOR: operator}
    try:
        for kind, bus in buses.items():
            instance = "one" if kind is Kind.NODE else None
            assert bus.rights is not None
            assert bus.rights.whole() == grants(kind, bus.name, instance)
            await refused_beyond(bus)
    finally:
        for bus in buses.values():
            await bus.close()
    assert {one.name: one.kind for one in await here.desk.identities()} == {
        "docs": "node",
        "web": "publisher",
        user_name(): "operator",
    }


async def refused_beyond(bus: Bus) -> None:
    """Everything that is granted is taken by the server, and nothing else."""
    assert bus.rights is not None
    transport: Any = bus.transport
    for pattern in bus.rights.whole().publish:
        await transport.publish(pattern.replace("*", "x").replace(">", "x"), b"")
    await transport.flush()
    assert transport.violations == 0
    beyond = [
        "antiphon.v1.search.ask.somebody",
        "antiphon.v1.node.docs.two.search",
        "antiphon.v1.fact.search.finished.master",
        "antiphon.v1.identity.token.somebody",
        "_I.somebody.x",
        "$KV.antiphon-identity.id.web",
        "$JS.API.INFO",
        "$SYS.REQ.SERVER.PING",
        "else",
    ]
    assert not [subject for subject in beyond if bus.rights.may_publish(subject)]
    for subject in beyond:
        await transport.publish(subject, b"")
    await transport.flush()
    assert await happens(lambda: transport.violations == len(beyond))


async def test_a_name_is_of_one_kind_only(here: Fabric) -> None:
    bus = await connect("web", data=here.home)
    await bus.close()
    with pytest.raises(NotAuthenticated):
        await connect("web", kind=Kind.NODE, instance="one", data=here.home)
    assert await here.heard("refused", who="web", why="wrong_kind")
    with pytest.raises(NotAllowed):
        await here.desk.create("master-x", "publisher")


async def test_the_user_who_starts_it_cannot_be_shut_out_of_his_own_fabric(tmp_path: Path) -> None:
    for order in ("suspend", "revoke"):
        async with fabric_on(tmp_path) as here:
            await here.desk.order(user_name(), order)
        async with fabric_on(tmp_path) as again:
            [entry] = await again.desk.identities()
            assert (entry.name, entry.status) == (user_name(), "active")


# -- API keys, on another machine


async def test_an_api_key_logs_in_on_another_machine(here: Fabric) -> None:
    await here.node(here.home)
    made = await here.login("web")
    assert made.file == here.machine("b") / "credentials" / "web.json"
    assert (mode(made.file), mode(made.file.parent)) == (0o600, 0o700)
    client = await here.client(here.machine("b"))
    assert client.name == "web", "whoever logged in last is who asks"
    assert (await client.search("whales")).coverage.answered == 1
    who = await Desk(client.bus).whoami()
    assert (who.name, who.kind, who.mode, who.is_suspended) == ("web", Kind.PUBLISHER, "callout", False)
    with pytest.raises(NotAllowed):
        await Desk(client.bus).identities()
    with pytest.raises(NotAuthenticated):
        await Client(here.url, data=here.machine("c")).connect()


async def test_an_api_key_is_its_identitys_and_nobody_elses(here: Fabric) -> None:
    await here.desk.create("web", "publisher")
    key = (await here.desk.create_key("web")).key
    with pytest.raises(NotAuthenticated, match="--name"):
        await log_in(here.place("other"), key, here.machine("b"))
    wrong = key[:-10] + ("a" if key[-10] != "a" else "b") + key[-9:]
    with pytest.raises(InvalidSetting, match="one letter"):
        await log_in(here.place("web"), wrong, here.machine("b"))
    with pytest.raises(UnknownIdentity):
        await here.desk.create_key("nobody")
    bound = (await here.desk.create_key("web", nkey=KeyPair.make(Role.USER).public)).key
    with pytest.raises(NotAuthenticated):
        await log_in(here.place("web"), bound, here.machine("b"))
    assert await here.heard("refused", who="web", why="wrong_key")
    short = (await here.desk.create_key("web", keep_ms=1)).key
    with pytest.raises(NotAuthenticated):
        await log_in(here.place("web"), short, here.machine("b"))
    assert await here.heard("refused", who="web", why="expired")


async def test_a_key_in_the_environment_needs_no_file(here: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.desk.create("web", "publisher")
    monkeypatch.setenv("ANTIPHON_TOKEN", (await here.desk.create_key("web")).key)
    monkeypatch.setenv("ANTIPHON_NAME", "web")
    client = await here.client(here.machine("b"))
    assert (await Desk(client.bus).whoami()).name == "web"
    assert not here.machine("b").exists(), "nothing is kept"


# -- join tokens


async def test_a_node_joins_by_invitation_and_needs_no_second_one(
    here: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await here.desk.invite("docs")
    client = await here.client(here.home, name="asker")
    monkeypatch.setenv("ANTIPHON_TOKEN", made.token)
    there = here.machine("b")
    node = a_node()
    await node.start(here.url, data=there)
    async with asyncio.timeout(BOUND_S):
        await node.joined()
    assert (await client.search("whales")).coverage.answered == 1
    assert [path.name for path in (there / "credentials").glob("*.json")] == [f"docs.{node.instance}.json"]

    with pytest.raises(NotAuthenticated):
        await a_node(instance="two").start(here.url, data=here.machine("c"))
    assert await here.heard("refused", who="docs", why="used_up")

    with pytest.raises(NotAuthenticated):  # while the first one runs its instance is taken, and there is no other
        await a_node().start(here.url, data=there)
    await node.stop()
    monkeypatch.delenv("ANTIPHON_TOKEN")
    third = await here.node(there)
    assert third.instance == node.instance, "a restart is the same instance, without a token"
    [family] = (await here.desk.get("docs")).families
    assert (family.instance, family.revoked) == (node.instance, None)


async def test_an_invitation_is_for_its_node_and_so_many_instances(here: Fabric) -> None:
    made = await here.desk.invite("docs", instances=2)
    with pytest.raises(NotAuthenticated):
        await log_in(here.place("shop", Kind.NODE, "one"), made.token, here.machine("b"))
    with pytest.raises(InvalidSetting):
        await log_in(here.place("docs"), made.token, here.machine("b"))
    for instance in ("one", "two"):
        await log_in(here.place("docs", Kind.NODE, instance), made.token, here.machine(instance))
    with pytest.raises(NotAuthenticated):
        await log_in(here.place("docs", Kind.NODE, "three"), made.token, here.machine("three"))
    with pytest.raises(NotAuthenticated):
        await log_in(here.place("docs", Kind.NODE, "one"), (await here.desk.invite("docs")).token, here.machine("x"))
    assert await here.heard("refused", who="docs", why="instance_taken"), "an invitation displaces nobody"
    for what, token in (("revoked_invite", await here.desk.invite("docs")), ("expired", None)):
        given = token or await here.desk.invite("docs", keep_ms=1)
        if token is not None:
            await here.desk.revoke("invite", given.id)
        with pytest.raises(NotAuthenticated):
            await log_in(here.place("docs", Kind.NODE, "four"), given.token, here.machine("four"))
        assert await here.heard("refused", who="docs", why=what)


async def test_a_lost_answer_to_a_join_token_may_be_asked_for_again(
    here: Fabric, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await here.desk.invite("docs")
    place = here.place("docs", Kind.NODE, "one")
    path = files.path_of(here.machine("b"), "docs", "one")
    seed = KeyPair.make(Role.USER).seed()
    files.write(path, files.Credential(name="docs", kind=Kind.NODE, instance="one", seed=seed))
    await place.ask(None, files.read(path).keypair, made.token)  # and the process dies before it is written down
    monkeypatch.setenv("ANTIPHON_TOKEN", made.token)
    node = await here.node(here.machine("b"))
    assert node.instance == "one"
    alive = [one for one in (await here.desk.get("docs")).families if one.revoked is None]
    assert len(alive) == 1
    assert (await here.desk.get("docs")).invites[0].instances_left == 0


async def test_a_refused_join_leaves_nothing_behind(here: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await here.desk.invite("docs")
    await here.desk.revoke("invite", made.id)
    monkeypatch.setenv("ANTIPHON_TOKEN", made.token)
    with pytest.raises(NotAuthenticated):
        await a_node().start(here.url, data=here.machine("b"))
    assert list((here.machine("b") / "credentials").iterdir()) == []


async def test_a_credential_is_one_instances_and_one_processes(here: Fabric) -> None:
    _, _, path = await joined(here)
    with pytest.raises(InvalidSetting, match="'one', not of 'two'"):
        await a_node(instance="two").start(here.url, credentials=path)
    node = a_node()
    await node.start(here.url, credentials=path)
    assert node.instance == "one"
    with pytest.raises(InvalidSetting, match="another process"):
        await a_node().start(here.url, credentials=path)
    with pytest.raises(InvalidSetting, match="of 'docs', not of 'shop'"):
        await a_node("shop").start(here.url, credentials=path)
    await node.stop()
    again = a_node()
    await again.start(here.url, credentials=path)
    await again.stop()


async def test_instances_that_join_at_once_share_an_invitation_exactly(here: Fabric) -> None:
    made = await here.desk.invite("docs", instances=3)
    tries = [log_in(here.place("docs", Kind.NODE, f"at-{at}"), made.token, here.machine(f"at-{at}")) for at in range(6)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, LoggedIn) for one in done) == 3
    assert all(isinstance(one, (LoggedIn, NotAuthenticated)) for one in done)
    assert len((await here.desk.get("docs")).families) == 3


# -- refresh tokens


async def joined(here: Fabric) -> tuple[Place, files.Credential, Path]:
    """An instance that has joined, and its credential."""
    place = here.place("docs", Kind.NODE, "one")
    made = await log_in(place, (await here.desk.invite("docs")).token, here.machine("b"))
    return place, files.read(made.file), made.file


async def test_a_refresh_token_is_good_once_and_a_thief_ends_the_line(tmp_path: Path) -> None:
    async with fabric_on(tmp_path) as here:
        identity = here.arena.role.gate
        assert identity is not None
        place, first, path = await joined(here)
        node = await here.node(here.machine("b"))
        assert first.refresh is not None
        second = (await place.ask(None, first.keypair, first.refresh)).grant
        again = (await place.ask(None, first.keypair, first.refresh)).grant
        assert second.refresh == again.refresh != first.refresh, "a lost answer is given again for ten seconds"
        assert await here.heard("granted", who="docs", why="asked_again")
        assert second.refresh is not None
        with pytest.raises(NotAuthenticated):
            await place.ask(None, KeyPair.make(Role.USER), second.refresh)
        assert await here.heard("refused", why="wrong_key")
        third = (await place.ask(None, first.keypair, second.refresh)).grant
        with pytest.raises(NotAuthenticated):  # two tokens back: somebody else has used the line meanwhile
            await place.ask(None, first.keypair, first.refresh)
        assert await here.heard("revoked", who="docs", why="reused")
        [family] = (await here.desk.get("docs")).families
        assert family.revoked == "reused"
        assert await here.heard("kicked", who="docs", instance="one")
        assert not await is_let_in(here.url, token=third.access, nkeys_seed_str=first.seed)
        with pytest.raises(NotAuthenticated):
            await place.ask(None, first.keypair, third.refresh or "")
        bus: Any = node._bus
        assert await happens(lambda: not bus.transport.is_connected)
        path.unlink()
        await log_in(place, (await here.desk.invite("docs")).token, here.machine("b"))
        assert await is_let_in(here.url, token=files.read(path).access, nkeys_seed_str=files.read(path).seed)


async def test_processes_on_one_credential_take_turns(here: Fabric) -> None:
    place, first, path = await joined(here)
    sources = [FileSource(place, path) for _ in range(5)]
    held = await asyncio.gather(*(one.obtain(None, 0, but=first.access) for one in sources))
    assert len({one.grant.access for one in held}) == 1, "one renews, the others use what it has got"
    assert (await here.desk.get("docs")).families[0].revoked is None


async def test_short_lived_tokens_are_renewed_and_nothing_is_lost(tmp_path: Path) -> None:
    async with fabric_on(tmp_path, access_ms=2_000) as here:
        await here.node(here.home, "local")
        await log_in(here.place("docs", Kind.NODE, "one"), (await here.desk.invite("docs")).token, here.machine("b"))
        await here.node(here.machine("b"))
        await here.login("web")
        client = await here.client(here.machine("b"))
        end = asyncio.get_running_loop().time() + 5
        asked = 0
        while asyncio.get_running_loop().time() < end:
            answer = await client.search("whales")
            assert answer.coverage.answered == answer.coverage.expected == 2, answer
            asked += 1
            await asyncio.sleep(0.02)
        transport: Any = client.bus.transport
        assert transport.renewals >= 2
        assert transport.losses == 0


async def test_a_new_invite_replaces_a_credential_that_was_revoked(here: Fabric) -> None:
    place, first, path = await joined(here)
    await here.desk.order("docs", "revoke")
    with pytest.raises(NotAuthenticated):
        await log_in(place, (await here.desk.invite("shop")).token, here.machine("b"))
    assert files.read(path) == first, "an invite for another node costs nothing"
    source = JoinSource(place, (await here.desk.invite("docs", instances=2)).token, path)
    await source.obtain(None, 0)
    second = files.read(path)
    assert second.refresh not in (None, first.refresh)
    await here.desk.order("docs", "revoke")
    with pytest.raises(NotAuthenticated):
        await source.obtain(
            None, 0, but=second.access
        )  # one that was let in does not come back by what is left of its invite


# -- taking away


async def searches(client: Client) -> bool:
    with suppress(AntiphonError):
        await client.bus.ask(SearchAsk(query="whales"), budget_ms=1_000)
        return True
    return False


async def comes_back(client: Client) -> bool:
    return await becomes(lambda: searches(client))


async def becomes(true: Callable[[], Awaitable[bool]]) -> bool:
    """Whether something that has to be asked for comes to be."""
    async with asyncio.timeout(BOUND_S):
        while not await true():  # noqa: ASYNC110 - what is waited for sends no event
            await asyncio.sleep(0.05)
    return True


async def finds(client: Client) -> bool:
    return (await client.search("whales")).coverage.answered > 0


def losses(client: Client) -> int:
    transport: Any = client.bus.transport
    return int(transport.losses)


async def test_suspending_kicks_and_resuming_lets_back_in(here: Fabric) -> None:
    made = await here.login("web")
    client = await here.client(here.machine("b"))
    bystander = await here.client(here.home, name="bystander")
    entry = await here.desk.order("web", "suspend")
    assert entry.status == "suspended"
    assert await happens(lambda: losses(client) == 1)
    assert await here.heard("kicked", who="web", why="suspended")
    found = files.read(made.file)
    assert not await is_let_in(here.url, token=found.access, nkeys_seed_str=found.seed)
    with pytest.raises(NotAuthenticated):
        await here.place("web").ask(None, found.keypair, found.api_key or "")
    assert await here.heard("refused", who="web", why="suspended")
    assert not await searches(client)
    assert (await here.desk.order("web", "resume")).status == "active"
    assert await comes_back(client), "nobody has to restart it"
    assert losses(bystander) == 0


async def test_a_suspended_node_answers_nobody(here: Fabric) -> None:
    node = await here.node(here.home)
    client = await here.client(here.home, name="asker")
    assert (await client.search("whales")).coverage.answered == 1
    await here.desk.order("docs", "suspend")
    bus: Any = node._bus
    assert await happens(lambda: bus.transport.losses == 1)
    assert (await client.search("whales")).coverage.answered == 0
    await here.desk.order("docs", "resume")
    assert await becomes(lambda: finds(client))


async def test_one_token_is_revoked(here: Fabric) -> None:
    made = await here.login("web")
    client = await here.client(here.machine("b"))
    found = files.read(made.file)
    jti = next(one.credential for one in here.told if one.what == "granted" and one.why == "ak")
    assert jti is not None
    await here.desk.revoke("token", jti)
    assert await here.heard("kicked", who="web")
    assert not await is_let_in(here.url, token=found.access, nkeys_seed_str=found.seed)
    assert await comes_back(client), "its key is still good"
    for wrong in ("", "short", "x" * 23, "a.b", "*" * 22):
        with pytest.raises(AntiphonError):
            await here.desk.revoke("token", wrong)


async def test_an_api_key_is_revoked(here: Fabric) -> None:
    await here.login("web")
    client = await here.client(here.machine("b"))
    other = await here.desk.create_key("web")
    later = await log_in(here.place("web"), other.key, here.machine("c"))
    second = await here.client(here.machine("c"))
    [key, _] = (await here.desk.get("web")).keys
    await here.desk.revoke("key", key.id)
    assert await happens(lambda: losses(client) == 1)
    with pytest.raises(NotAuthenticated):
        await Client(here.url, data=here.machine("b")).connect()
    assert losses(second) == 0, "who came by another key goes on"
    assert await is_let_in(here.url, token=later.grant.access, nkeys_seed_str=files.read(later.file).seed)
    with pytest.raises(UnknownIdentity):
        await here.desk.revoke("key", "a" * 16)


async def test_a_family_is_revoked(here: Fabric) -> None:
    _, first, _ = await joined(here)
    node = await here.node(here.machine("b"))
    [family] = (await here.desk.get("docs")).families
    await here.desk.revoke("family", family.id)
    bus: Any = node._bus
    assert await happens(lambda: not bus.transport.is_connected)
    assert not await is_let_in(here.url, token=first.access, nkeys_seed_str=first.seed)


async def test_everything_of_an_identity_is_revoked_and_a_new_key_lets_it_in(here: Fabric) -> None:
    made = await here.login("web")
    client = await here.client(here.machine("b"))
    await here.desk.order("web", "revoke")
    assert await happens(lambda: losses(client) == 1)
    with pytest.raises(NotAuthenticated):
        await Client(here.url, data=here.machine("b")).connect()
    found = files.read(made.file)
    assert not await is_let_in(here.url, token=found.access, nkeys_seed_str=found.seed)
    assert (await here.desk.get("web")).keys[0].is_revoked
    key = await here.desk.create_key("web")
    await log_in(here.place("web"), key.key, here.machine("c"))
    again = await here.client(here.machine("c"))
    await here.desk.update("web", groups=["staff"])
    assert (await Desk(again.bus).whoami()).groups == ("staff",)
    await asyncio.sleep(0.3)  # an old revocation must not kick at each later change
    assert losses(again) == 0


# -- the keys that sign


async def test_nobody_notices_a_rotation(here: Fabric) -> None:
    await here.node(here.home)
    made = await here.login("web")
    client = await here.client(here.machine("b"))
    old = files.read(made.file)
    first = await here.desk.rotate()
    second = await here.desk.rotate()
    assert second.active == first.next
    assert first.active in second.retiring
    for _ in range(5):
        assert (await client.search("whales")).coverage.answered == 1
    assert await is_let_in(here.url, token=old.access, nkeys_seed_str=old.seed), "its key is retiring and believed"
    fresh = await here.client(here.home, name="fresh")
    assert (await fresh.search("whales")).coverage.answered == 1
    assert losses(client) == 0


async def test_an_expelled_key_is_believed_no_more_and_everybody_heals(here: Fabric) -> None:
    node = await here.node(here.home)
    made = await here.login("web")
    client = await here.client(here.machine("b"))
    old = files.read(made.file)
    operator = files.read(here.home / "operator.json")
    ring = await here.desk.rotate()
    [leaked] = ring.retiring
    await here.desk.rotate(expel=leaked)
    assert not await is_let_in(here.url, token=old.access, nkeys_seed_str=old.seed)
    assert not await is_let_in(here.url, token=operator.access, nkeys_seed_str=operator.seed)
    assert await happens(lambda: losses(client) == 1), "what was let in by it is ended"
    assert await comes_back(client)
    bus: Any = node._bus
    assert await happens(lambda: bus.transport.losses == 1)
    again = await here.client(here.home)
    assert await becomes(lambda: finds(again))
    with pytest.raises(NotAllowed):
        await Desk(again.bus).rotate(expel=leaked)


# -- several masters


@asynccontextmanager
async def second_master(here: Fabric) -> AsyncIterator[Any]:
    """A master with the same keys, as on another machine."""
    vault = Vault.load(here.home / "keys")
    role = await composition.master_role("master-two", Settings(), resolve(here.url), vault)
    await role.start()
    running = asyncio.ensure_future(role.run())
    try:
        yield role
    finally:
        role.supervisor.stop()
        await running


async def test_two_masters_share_everything(here: Fabric) -> None:
    async with second_master(here) as second:
        for at in range(6):  # whichever answers, the other one lets in a moment later
            await here.login(f"web-{at}", machine=f"m-{at}")
            client = await here.client(here.machine(f"m-{at}"))
            await here.desk.order(f"web-{at}", "suspend")
            assert await happens(lambda client=client: losses(client) == 1)  # type: ignore[misc]
            with pytest.raises(NotAuthenticated):
                await Client(here.url, data=here.machine(f"m-{at}")).connect()
            await here.desk.order(f"web-{at}", "resume")
            assert await comes_back(client)
        mine, theirs = here.arena.role.gate, second.gate
        assert mine is not None
        assert mine.identity.ledger.book.records == theirs.identity.ledger.book.records
        assert mine.identity.authority.ring == theirs.identity.authority.ring
        await here.desk.rotate()
        ring = mine.identity.authority
        assert await happens(lambda: ring.ring == theirs.identity.authority.ring)


async def test_one_master_more_or_less_is_not_noticed(here: Fabric) -> None:
    await here.login("web")
    async with second_master(here):
        client = await here.client(here.machine("b"))
        assert await searches(client)
    for _ in range(4):
        one = await Client(here.url, data=here.machine("b")).connect()
        await one.close()
    assert losses(client) == 0
    assert await searches(client)


async def test_one_refresh_token_at_two_masters_is_one_line(here: Fabric) -> None:
    async with second_master(here) as second:
        place, first, _ = await joined(here)
        assert first.refresh is not None
        answers = await asyncio.gather(*(place.ask(None, first.keypair, first.refresh) for _ in range(6)))
        assert len({one.grant.refresh for one in answers}) == 1
        token = answers[0].grant.refresh
        for _ in range(10):  # each answer is used at once, at whichever master
            assert token is not None
            token = (await place.ask(None, first.keypair, token)).grant.refresh
        assert second.gate.identity.ledger.book.holder("docs", "one").revoked is None


# -- what is kept and what is lost


async def test_a_bucket_that_was_lost_heals_for_this_machine(tmp_path: Path) -> None:
    async with fabric_on(tmp_path) as here:
        await here.login("web")
        before = files.read(here.home / "operator.json")
        client = await here.client(here.home, name="asker")
        assert (await Desk(client.bus).whoami()).kind == "publisher"
    shutil.rmtree(tmp_path / "data" / "jetstream")
    async with fabric_on(tmp_path) as again:
        after = files.read(again.home / "operator.json")
        assert (after.name, after.seed) == (before.name, before.seed)
        assert after.api_key != before.api_key
        client = await again.client(again.home)
        assert (await Desk(client.bus).whoami()).kind == "operator"
        await again.node(again.home)
        with pytest.raises(NotAuthenticated):
            await Client(again.url, data=again.machine("b")).connect()


async def test_what_the_server_loses_while_masters_live_is_written_back(tmp_path: Path) -> None:
    """A server of its own comes back without its data: who was shut out stays out, and keys that were made are good."""
    home = tmp_path / "data"
    vault = Vault.open(home)
    options = Options(more=configuration(vault.public))
    server = await EmbeddedServer.start(home, options)
    role = await composition.master_role("master", Settings(), resolve(server.url), vault)
    await role.start()
    assert role.gate is not None
    await role.gate.introduce(home / files.OPERATOR, "ops")
    running = asyncio.ensure_future(role.run())
    operator = await Client(server.url, data=home, credentials=home / files.OPERATOR).connect()
    desk = Desk(operator.bus)
    try:
        for name in ("web", "shop"):
            await desk.create(name, "publisher")
            place = Place(resolve(server.url), "antiphon", name, Kind.PUBLISHER)
            await log_in(place, (await desk.create_key(name)).key, tmp_path / name)
        await desk.order("web", "suspend")
        await server.stop()
        shutil.rmtree(home / "jetstream")
        server = await EmbeddedServer.start(home, options)
        assert await becomes(lambda: is_connected(server.url, tmp_path / "shop"))
        assert not await is_connected(server.url, tmp_path / "web")
        await becomes(lambda: answers(operator))
        assert {one.name: one.status for one in await desk.identities()} == {
            "ops": "active",
            "shop": "active",
            "web": "suspended",
        }
        kept = await role.bus.transport.key_value(identity_of("antiphon"))
        assert await becomes(lambda: holds(kept, "id.web"))
    finally:
        await operator.close()
        role.supervisor.stop()
        await running
        await server.stop()


async def holds(bucket: KeyValue, key: str) -> bool:
    return await bucket.get(key) is not None


async def is_connected(url: str, data: Path) -> bool:
    try:
        client = await Client(url, data=data).connect()
    except AntiphonError:
        return False
    await client.close()
    return True


async def answers(client: Client) -> bool:
    with suppress(AntiphonError):
        await Desk(client.bus).whoami()
        return True
    return False
