"""TLS between clients and a real nats-server, with an authority made for the test: who is believed, and who is not."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from cli_process import fabric, until

from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.dial import context as tls_context
from antiphon.bus.endpoint import Endpoint, parse, resolve
from antiphon.bus.nats import NatsTransport
from antiphon.bus.protocol import Delivery, Login
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.errors import InvalidSetting, NotAuthenticated, NotConnected
from antiphon.identity.server_config import configuration
from antiphon.identity.vault import Vault
from certificates import Authority, Pair, tls
from doors import door_at

LANE = "antiphon.v1.node.docs.one.search"
BOUND_S = 10
PAGE = Path(__file__).parents[2] / "docs" / "security.md"
VARIABLES = ("ANTIPHON_TLS_CA", "ANTIPHON_TLS_CERT", "ANTIPHON_TLS_KEY")


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@asynccontextmanager
async def server_of(data: Path, more: str) -> AsyncIterator[str]:
    """The URL of a server of this configuration."""
    async with await EmbeddedServer.start(data, Options(more=more)) as server:
        yield server.url


async def encrypted(endpoint: Endpoint, login: Login | None = None) -> str | None:
    """Connect, use the connection, and return the version of TLS that it speaks; None in the clear."""
    async with asyncio.timeout(BOUND_S):
        bus = await connect("web", endpoint=endpoint)
        try:
            await bus.transport.flush()
            return spoken(bus)
        finally:
            await bus.close()


def spoken(bus: Bus) -> str | None:
    socket = cast("NatsTransport", bus.transport)._line.link._transport
    found = socket._io_writer.get_extra_info("ssl_object")  # type: ignore[union-attr]
    return str(found.version()) if found is not None else None


# -- servers that are to be believed


async def test_the_right_authority_is_given_by_environment_by_context_or_by_hand(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server_of(tmp_path / "data", tls(authority.sign("server"))) as url:
        assert url.startswith("tls://"), "the server says so itself"
        plain = url.replace("tls://", "nats://")
        assert await encrypted(Endpoint(url, ca=authority.ca)) == "TLSv1.3"
        assert await encrypted(Endpoint(plain, ca=authority.ca)) == "TLSv1.3", "it asks for it"

        folder = tmp_path / "config" / "nats"
        (folder / "context").mkdir(parents=True)
        (folder / "context" / "ours.json").write_text(json.dumps({"url": plain, "ca": str(authority.ca)}))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        assert await encrypted(resolve(context="ours")) == "TLSv1.3"

        monkeypatch.setenv("ANTIPHON_TLS_CA", str(authority.ca))
        assert await encrypted(resolve(url)) == "TLSv1.3"
        assert await encrypted(resolve(data=tmp_path / "data")) == "TLSv1.3", "the embedded one is found by its note"
        assert await encrypted(resolve(f"tls://127.0.0.1:1,{url}")) == "TLSv1.3"


async def test_a_server_that_offers_encryption_is_taken_by_its_word_and_one_without_it_is_told_nothing(
    tmp_path: Path, authority: Authority, nats_server: str
) -> None:
    async with server_of(tmp_path / "data", tls(authority.sign("server"), more="allow_non_tls: true")) as url:
        here = url.partition("://")[2]
        assert await encrypted(Endpoint(f"tls://{here}", ca=authority.ca)) == "TLSv1.3"
        assert await encrypted(Endpoint(f"nats://{here}")) is None
    with pytest.raises(NotConnected, match="does not encrypt"):
        await encrypted(parse(nats_server.replace("nats://", "tls://")))
    assert await encrypted(Endpoint(nats_server, ca=authority.ca)) is None, (
        "an authority for all servers hurts not here"
    )
    assert not Endpoint("nats://127.0.0.1:4222,nats://localhost:4223", ca=authority.ca).needs_tls
    assert Endpoint("nats://10.0.0.7:4222", ca=authority.ca).needs_tls
    assert Endpoint("nats://127.0.0.1:4222,nats://10.0.0.7:4222", certificate=authority.ca).needs_tls
    assert not Endpoint("nats://10.0.0.7:4222").needs_tls


async def test_whoever_stands_between_and_says_that_there_is_no_tls_hears_nothing(authority: Authority) -> None:
    heard: list[bytes] = []
    greeting = {"server_id": "N", "version": "2.15.1", "max_payload": 1_048_576, "auth_required": True, "nonce": "abc"}

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO " + json.dumps(greeting).encode() + b"\r\n")
        heard.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(between, "127.0.0.1", 0)
    async with server, asyncio.timeout(BOUND_S):
        place = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(NotConnected, match="does not encrypt"):
            await connect("web", endpoint=Endpoint(f"tls://{place}", token="a-secret", ca=authority.ca))
        until_closed = [b"", b""]
        while len(heard) < len(until_closed):  # noqa: ASYNC110 - a socket sends no event
            await asyncio.sleep(0.002)
    assert heard == until_closed


WRONG = {
    "another authority": ("their", {}, "unable to get local issuer certificate|self-signed"),
    "no authority but the system's": (None, {}, r"unable to get local issuer certificate; \$ANTIPHON_TLS_CA names"),
    "an expired certificate": ("ours", {"from_day": -3, "to_day": -1}, "certificate has expired"),
    "one of tomorrow": ("ours", {"from_day": 1, "to_day": 2}, "certificate is not yet valid"),
    "one of another host": ("ours", {"host": "nats.example"}, "IP address mismatch"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_server_that_is_not_to_be_believed_is_told_nothing(
    tmp_path: Path, authority: Authority, name: str
) -> None:
    believed, wrong, text = WRONG[name]
    ca = {"ours": authority.ca, "their": Authority(tmp_path, "theirs").ca, None: None}[believed]
    asks = tls(authority.sign("server", **wrong), more='authorization { token: "a-secret" }')  # type: ignore[arg-type]
    async with server_of(tmp_path / "data", asks) as url:
        loop = asyncio.get_running_loop()
        for login in (Endpoint(url, ca=ca), Endpoint(url, ca=ca, token="a-secret")):
            began = loop.time()
            with pytest.raises(NotConnected, match=text) as caught:
                await encrypted(login)
            assert url in caught.value.text
            assert "a-secret" not in caught.value.text
            assert loop.time() - began < 3
    log = (tmp_path / "data" / "server.log").read_text()
    assert "authentication error" not in log
    assert "TLS handshake error" in log


# -- clients that have to show something


async def test_a_server_that_asks_for_a_certificate_gets_it(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = authority.sign("web", "web"), Authority(tmp_path, "theirs").sign("stranger", "web")
    both = tmp_path / "both.pem"
    both.write_bytes(ours.certificate.read_bytes() + ours.key.read_bytes())
    for more in ("", 'authorization { token: "a-secret" }'):
        token = "a-secret" if more else None
        asks = tls(authority.sign("server"), clients=authority.ca, more=more)
        async with server_of(tmp_path / "data", asks) as url:

            def at(pair: Pair | None, url: str = url, token: str | None = token) -> Endpoint:
                shown = (pair.certificate, pair.key) if pair else (None, None)
                return Endpoint(url, ca=authority.ca, certificate=shown[0], key=shown[1], token=token)

            assert await encrypted(at(ours)) == "TLSv1.3"
            assert await encrypted(Endpoint(url, ca=authority.ca, certificate=both, token=token)) == "TLSv1.3"
            with pytest.raises(NotConnected, match=r"asks for a certificate \(\$ANTIPHON_TLS_CERT\)"):
                await encrypted(at(None))
            with pytest.raises(NotConnected, match="does not accept this process's certificate"):
                await encrypted(at(theirs))
            if token:
                with pytest.raises(NotAuthenticated):
                    await encrypted(at(ours, token="another"))
            for name, file in zip(VARIABLES, (authority.ca, ours.certificate, ours.key), strict=True):
                monkeypatch.setenv(name, str(file))
            with_token = url.replace("tls://", f"tls://{token}@") if token else url
            assert await encrypted(resolve(with_token)) == "TLSv1.3"
            for name in VARIABLES:
                monkeypatch.delenv(name)


def test_files_that_cannot_be_used_are_named_and_nobody_is_asked_for_a_password(
    tmp_path: Path, authority: Authority
) -> None:
    ours, other = authority.sign("web", "web"), authority.sign("other", "web")
    locked = authority.sign("locked", "web", password=b"a-password")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n")
    place = "tls://127.0.0.1:4222"
    for wrong in (
        Endpoint(place, ca=broken),
        Endpoint(place, ca=ours.key),
        Endpoint(place, certificate=broken, key=ours.key),
        Endpoint(place, certificate=ours.certificate, key=other.key),
        Endpoint(place, certificate=ours.certificate),
        Endpoint(place, certificate=locked.certificate, key=locked.key),
    ):
        with pytest.raises(InvalidSetting, match="TLS cannot be set up with") as caught:
            tls_context(wrong)
        named = [one for one in (wrong.ca, wrong.certificate, wrong.key) if one is not None]
        assert all(str(one) in caught.value.text for one in named)
    for name in VARIABLES:
        with pytest.raises(InvalidSetting, match=f"its .{name} file .* is missing"):
            resolve(place, environment={name: str(tmp_path / "nowhere.pem")})


# -- with everything else


async def test_tokens_renewals_and_losses_go_on_under_tls(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTIPHON_TLS_CA", str(authority.ca))
    async with door_at(tmp_path / "data", tls(authority.sign("server"))) as door:
        master, (node, _) = await door.master(), await door.node()

        async def answer(delivery: Delivery) -> None:
            await node.transport.publish(delivery.reply, delivery.data, via=node.transport.way_of(delivery))

        await node.transport.subscribe(LANE, answer)
        await node.transport.flush()
        back = asyncio.Event()
        node.transport.on_reconnect(back.set)
        for turn in range(3):
            data = str(turn).encode() * 100_000
            assert await master.ask_bytes(LANE, data, budget_ms=5_000) == data
            assert spoken(node) == spoken(master) == "TLSv1.3"
            await node.transport.renew()
        assert await door.kick("docs") >= 1
        await asyncio.wait_for(back.wait(), BOUND_S)
        assert await master.ask_bytes(LANE, b"back", budget_ms=5_000) == b"back"
        assert spoken(node) == "TLSv1.3"


def test_search_goes_through_tls_from_end_to_end(tmp_path: Path, authority: Authority) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "whale.md").write_text("# Whales\n\nA whale is no fish.\n")
    with fabric(tmp_path) as made:
        vault = Vault.open(made.data)
        more = f"{configuration(vault.public)}\n{tls(authority.sign('server'))}"
        server = asyncio.run(EmbeddedServer.start(made.data, Options(more=more)))
        try:
            made.environment["ANTIPHON_TLS_CA"] = str(authority.ca)
            master = made.start("run", "master", "--keys", str(made.data / "keys"))
            until(lambda: '"master.serves"' in made.log(master) or master.poll() is not None)
            assert master.poll() is None, made.log(master)
            made.serve("folder", str(pages))
            found = made.run("search", "whale", "-o", "json")
            assert found.code == 0, found.err
            assert [hit["doc"]["title"] for hit in found.json["hits"]] == ["Whales"]
            other = Authority(tmp_path, "theirs").ca
            refused = made.run("search", "whale", environment={"ANTIPHON_TLS_CA": str(other)})
            assert (refused.code, refused.out) == (7, "")
            assert "its certificate is not accepted" in refused.err
            assert server.url.startswith("tls://")
        finally:
            asyncio.run(server.stop())


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """A folder in which the commands of the page have been run."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    page = PAGE.read_text(encoding="utf-8")
    block = re.search(r"<!-- tls: authority and server -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    for line in block[1].splitlines():
        subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True, timeout=BOUND_S)
    return tmp_path


async def test_the_commands_of_the_page_make_a_server_that_is_believed(by_hand: Path) -> None:
    async with server_of(by_hand / "data", tls(Pair(by_hand / "server.pem", by_hand / "server.key"))) as url:
        assert await encrypted(Endpoint(url, ca=by_hand / "ca.pem")) == "TLSv1.3"
        with pytest.raises(NotConnected, match="its certificate is not accepted"):
            await encrypted(Endpoint(url))
