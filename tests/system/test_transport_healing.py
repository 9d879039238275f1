"""A connection that the server has ended comes back by itself, with a login that is asked for anew; on real servers."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.errors import ConnectionClosedError
from structlog.testing import capture_logs

from antiphon import subjects
from antiphon.bus.nats import NatsTransport
from antiphon.bus.protocol import Bucket, Delivery, Entry, Login, Logins
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.errors import InvalidSetting, NotAuthenticated, NotConnected
from antiphon.identity.keypair import KeyPair, Role
from fabrics import until
from locks import SYSTEM, Given, Lock, Tokens, at, connections, kick, lock, none_left, system_client


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Lock]:
    async with lock(tmp_path / "door") as opened:
        yield opened


async def transport(url: str, name: str, logins: Logins | None = None, **fields: str) -> NatsTransport:
    inbox = subjects.inbox(name, secrets.token_hex(4))
    return await NatsTransport.connect(at(url, **fields), name=name, inbox=inbox, logins=logins)


class Back:
    """When a transport has come back."""

    def __init__(self, transport: NatsTransport) -> None:
        self.times = 0
        self._event = asyncio.Event()
        transport.on_reconnect(self._back)

    def _back(self) -> None:
        self.times += 1
        self._event.set()

    async def once(self) -> None:
        async with asyncio.timeout(20):
            await self._event.wait()
        self._event.clear()


class Heard:
    """What a subscription received."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.deliveries: list[Delivery] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.data.append(delivery.data)
        self.deliveries.append(delivery)


async def test_a_login_is_shown_and_signed_and_asked_for_anew_at_every_connection(opened: Lock) -> None:
    logins = Tokens(KeyPair.make(Role.USER))
    alpha = await transport(opened.url, "alpha", logins)
    assert opened.tokens == ["token-0"]
    back, heard = Back(alpha), Heard()
    await alpha.subscribe("x", heard)
    async with system_client(opened.url) as system:
        assert await kick(system, "alpha") == 1
        await back.once()
        assert opened.tokens == logins.shown == ["token-0", "token-1"]
        assert (alpha.losses, alpha.is_connected, alpha.reason) == (1, True, None)
        await alpha.publish("x", b"after")
        await until(lambda: heard.data == [b"after"])
        assert len(await connections(system, "alpha")) == 1
    await alpha.close()


class Refusing:
    """A source of logins that has one for so many connections, and then an error."""

    def __init__(self, error: Exception, good: int) -> None:
        self.error = error
        self.good = good
        self.asked = 0
        self._first = Login(nkey_seed=KeyPair.make(Role.USER).seed(), token="t")

    async def login(self) -> Login:
        self.asked += 1
        if self.asked > self.good:
            raise self.error
        return self._first

    def refused(self) -> None:
        """There is no other."""


@pytest.mark.parametrize("error", [NotAuthenticated("revoked"), LookupError("a bug")], ids=["refusal", "bug"])
async def test_a_source_that_has_no_login_is_asked_again_for_ever(opened: Lock, error: Exception) -> None:
    logins = Refusing(error, good=1)
    alpha = await transport(opened.url, "alpha", logins)
    back = Back(alpha)
    async with system_client(opened.url) as system:
        await kick(system, "alpha")
    await until(lambda: logins.asked >= 4)
    assert alpha.reason is not None
    assert str(error) in alpha.reason
    logins.good = 10**6
    await back.once()
    await alpha.close()
    with pytest.raises(type(error)):
        await transport(opened.url, "beta", Refusing(error, good=0))


@pytest.mark.parametrize("seed", ["", "n0t-one", "SAAAA", "SU" + "a" * 56])
async def test_a_key_that_is_none_is_a_setting_without_a_meaning(opened: Lock, seed: str) -> None:
    with pytest.raises(InvalidSetting, match="no nkey") as caught:
        await transport(opened.url, "alpha", Given(Login(nkey_seed=seed, token="t")))
    assert seed == "" or seed not in str(caught.value)


STATIC = """
    accounts {
      SYS: { users: [ { user: sys, password: "%s" } ] }
      APP: { users: [ %s ] }
    }
    system_account: SYS
"""


async def test_a_user_that_a_reload_takes_away_comes_back_when_it_is_there_again(tmp_path: Path) -> None:
    present, gone = (
        STATIC % (SYSTEM, "{user: a, password: a}, {user: b, password: b}"),
        STATIC
        % (
            SYSTEM,
            "{user: b, password: b}",
        ),
    )
    async with await EmbeddedServer.start(tmp_path / "nats", Options(more=present)) as server:
        configuration = server.data / "server.conf"
        alpha = await transport(server.url, "alpha", user="a", password="a")
        other = await transport(server.url, "other", user="b", password="b")
        back, heard = Back(alpha), Heard()
        await alpha.subscribe("x", heard)
        with capture_logs() as logs:
            configuration.write_text(configuration.read_text().replace(present, gone))
            os.kill(server.pid, signal.SIGHUP)
            await until(lambda: alpha.reason is not None and "does not let this process in" in alpha.reason)
            assert other.is_connected
            configuration.write_text(configuration.read_text().replace(gone, present))
            os.kill(server.pid, signal.SIGHUP)
            await back.once()
        assert [line["event"] for line in logs] == ["bus.disconnected", "bus.not_healed", "bus.reconnected"]
        await other.publish("x", b"again")
        await until(lambda: heard.data == [b"again"])
        await alpha.close()
        await other.close()


async def test_what_had_arrived_is_received_although_the_connection_has_ended(opened: Lock) -> None:
    alpha = await transport(opened.url, "alpha", Tokens(KeyPair.make(Role.USER)))
    back = Back(alpha)
    release, data = asyncio.Event(), list[bytes]()

    async def slow(delivery: Delivery) -> None:
        await release.wait()
        data.append(delivery.data)

    await alpha.subscribe("x", slow)
    for number in range(5):
        await alpha.publish("x", str(number).encode())
    await alpha.flush()
    async with system_client(opened.url) as system:
        await kick(system, "alpha")
    await back.once()
    release.set()
    await alpha.publish("x", b"5")
    await until(lambda: len(data) == 6)
    assert data == [b"0", b"1", b"2", b"3", b"4", b"5"]
    await alpha.close()


async def test_a_subscription_that_is_made_while_there_is_no_connection_is_there_afterwards(opened: Lock) -> None:
    alpha = await transport(opened.url, "alpha", Tokens(KeyPair.make(Role.USER)))
    back, heard, drained = Back(alpha), Heard(), Heard()
    before = await alpha.subscribe("x", drained)
    opened.refuses = True
    async with system_client(opened.url) as system:
        await kick(system, "alpha")
    await until(lambda: alpha.losses == 1)
    await alpha.subscribe("x", heard)
    await before.drain()
    opened.refuses = False
    await back.once()
    await alpha.publish("x", b"1")
    await until(lambda: heard.data == [b"1"])
    assert drained.data == []
    await alpha.close()


async def test_a_watch_goes_on_over_a_kick_and_misses_nothing(opened: Lock) -> None:
    alpha = await transport(opened.url, "alpha", Tokens(KeyPair.make(Role.USER)))
    writer = await transport(opened.url, "free", user="free", password="free")
    declared = Bucket("watched", "a test", value_bytes_max=1_024, bytes_max=65_536)
    hold, written = await alpha.key_value(declared), await writer.key_value(declared)
    state: dict[str, bytes | None] = {}

    def changed(entry: Entry) -> None:
        state[entry.key] = entry.value

    await written.put("a", b"1")
    await written.put("b", b"1")
    await hold.watch(changed)
    back = Back(alpha)
    async with system_client(opened.url) as system:
        await kick(system, "alpha")
        await until(lambda: alpha.losses == 1)
        await written.put("a", b"2")
        await written.delete("b")
        await back.once()
    await until(lambda: state == {"a": b"2", "b": None})
    await written.put("c", b"1")
    await until(lambda: state == {"a": b"2", "b": None, "c": b"1"})
    assert await hold.put("d", b"1") > 0
    await alpha.close()
    await writer.close()


async def test_whoever_waits_for_the_server_is_told_at_once_when_the_connection_ends(opened: Lock) -> None:
    alpha = await transport(opened.url, "alpha", Tokens(KeyPair.make(Role.USER)))
    silent, heard = await transport(opened.url, "free", user="free", password="free"), Heard()
    await silent.subscribe("free.silent", heard)
    await silent.flush()
    asked = asyncio.ensure_future(alpha._line.link.request("free.silent", timeout=60))
    await until(lambda: heard.data)
    async with system_client(opened.url) as system:
        await kick(system, "alpha")
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionClosedError):
            await asked
    await alpha.close()
    await silent.close()


async def test_closing_ends_the_healing(opened: Lock) -> None:
    logins = Tokens(KeyPair.make(Role.USER))
    alpha = await transport(opened.url, "alpha", logins)
    opened.refuses = True
    async with system_client(opened.url) as system:
        await kick(system, "alpha")
        await until(lambda: alpha.losses == 1)
        await alpha.close()
        asked = len(logins.shown)
        opened.refuses = False
        await alpha.close()
        with pytest.raises(NotConnected, match="closed"):
            await alpha.publish("x", b"")
        with pytest.raises(NotConnected, match="closed"):
            await alpha.subscribe("x", Heard())
        await none_left(system, "alpha")
    assert len(logins.shown) == asked


async def test_one_subscription_too_many_ends_nothing(tmp_path: Path) -> None:
    async with await EmbeddedServer.start(tmp_path / "nats", Options(more="max_subscriptions: 3")) as server:
        alpha = await transport(server.url, "alpha")
        heard = Heard()
        with capture_logs() as logs:
            for number in range(6):
                await alpha.subscribe(f"x.{number}", heard)
            await alpha.flush()
        assert [line["error"] for line in logs] == ["Error: nats: maximum subscriptions exceeded"]
        await alpha.publish("x.0", b"1")
        await until(lambda: heard.data == [b"1"])
        assert alpha.losses == 0
        await alpha.close()


async def test_an_answer_to_a_ping_that_nobody_waits_for_any_more_ends_nothing(tmp_path: Path) -> None:
    async with await EmbeddedServer.start(tmp_path / "nats") as server:
        alpha = await transport(server.url, "alpha")
        heard = Heard()
        await alpha.subscribe("x", heard)
        await alpha.flush()
        os.kill(server.pid, signal.SIGSTOP)
        await until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        try:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(alpha._line.link.flush(), 0.05)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await alpha.flush()
        await alpha.publish("x", b"1")
        await until(lambda: heard.data == [b"1"])
        await alpha.close()


async def test_a_server_that_takes_us_only_to_end_us_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    accepted = 0

    async def end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true}\r\n')
        await writer.drain()
        await asyncio.sleep(0)
        await _reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await writer.drain()
        if accepted > 1:
            await _reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            await writer.drain()
        writer.close()

    fake = await asyncio.start_server(end, "127.0.0.1", 0)
    port = fake.sockets[0].getsockname()[1]
    alpha = await transport(f"nats://127.0.0.1:{port}", "alpha")
    await alpha.subscribe("x", Heard())
    await until(lambda: alpha._line._attempts >= 4, bound_s=30)
    assert max(alpha._line._wait_ms() for _ in range(50)) > 200, "each attempt lets it wait for longer"
    await alpha.close()
    fake.close()
    await fake.wait_closed()
