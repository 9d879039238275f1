"""Where to connect: the order of the places, the shapes of URLs and contexts, and secrets that stay hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.bus.endpoint import Endpoint, parse, read_context, resolve
from antiphon.bus.home import Lock, Running, write_note
from antiphon.errors import InvalidSetting, NotConnected

PASSWORD = "not-to-be-seen"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment of its own: nothing of this machine's user is read."""
    data = tmp_path / "data"
    data.mkdir()
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "ANTIPHON_DATA": str(data)}


def context(home: dict[str, str], name: str, fields: Mapping[str, object], *, select: bool = False) -> None:
    folder = Path(home["XDG_CONFIG_HOME"]) / "nats"
    (folder / "context").mkdir(parents=True, exist_ok=True)
    (folder / "context" / f"{name}.json").write_text(json.dumps(fields))
    if select:
        (folder / "context.txt").write_text(f"{name}\n")


async def test_the_first_place_that_is_there_wins(home: dict[str, str]) -> None:
    with pytest.raises(NotConnected, match=r"antiphon up.*--nats.*--context.*ANTIPHON_NATS"):
        resolve(environment=home)

    context(home, "chosen", {"url": "nats://chosen:1"}, select=True)
    assert resolve(environment=home) == Endpoint("nats://chosen:1", source="the NATS context 'chosen'")

    data = Path(home["ANTIPHON_DATA"])
    lock = Lock(data)
    await lock.take()
    write_note(data, Running(pid=1, server_pid=1, url="nats://127.0.0.1:2", version="2.15.1", started_at_ms=0))
    assert resolve(environment=home).url == "nats://127.0.0.1:2"
    lock.give_back()
    assert resolve(environment=home).url == "nats://chosen:1", "a note without its lock is not believed"

    home["ANTIPHON_NATS"] = "nats://variable:3"
    assert resolve(environment=home).url == "nats://variable:3"

    context(home, "named", {"url": "nats://named:4"})
    assert resolve(context="named", environment=home).url == "nats://named:4"
    assert resolve("given:5", context="named", environment=home).url == "nats://given:5"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("host", Endpoint("nats://host")),
        ("host:4222", Endpoint("nats://host:4222")),
        ("nats://[::1]:4222", Endpoint("nats://[::1]:4222")),
        ("tls://host:4443/", Endpoint("tls://host:4443")),
        ("ws://host/nats", Endpoint("ws://host/nats")),
        ("nats://a:1, b:2", Endpoint("nats://a:1,nats://b:2")),
        ("nats://me:p%40ss@host", Endpoint("nats://host", user="me", password="p@ss")),
        ("nats://s3cret@host", Endpoint("nats://host", token="s3cret")),
        ("u:p@a:1,nats://u:p@b", Endpoint("nats://a:1,nats://b", user="u", password="p")),
    ],
)
def test_urls(url: str, expected: Endpoint) -> None:
    assert parse(url) == expected
    assert parse(url).urls == expected.url.split(",")


@pytest.mark.parametrize(
    "url",
    [
        "",
        " ",
        "nats://",
        "http://host",
        "host:0",
        "host:99999",
        "host:port",
        "a,,b",
        "ho st",
        "ho\nst",
        "nats://[::1",
        f"nats://a:{PASSWORD}@a,b",
        f"http://a:{PASSWORD}@host",
        "nats://host?x=1",
    ],
)
def test_what_is_no_url_is_said_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        parse(url)
    assert PASSWORD not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_a_typed_error(text: str) -> None:
    try:
        found = parse(text)
    except InvalidSetting:
        return
    assert "@" not in found.url


def test_a_context_as_the_nats_cli_writes_it(home: dict[str, str], tmp_path: Path) -> None:
    seed = tmp_path / "me.nk"
    seed.write_text("SU...")
    empty = dict.fromkeys(("token", "creds", "cert", "key", "ca", "nsc", "user_jwt", "inbox_prefix"), "")
    fields = {"url": "tls://a:1,tls://b:2", "user": "me", "password": PASSWORD, "nkey": str(seed), "new": [1]}
    context(home, "ops", {**empty, **fields})
    found = read_context("ops", home)
    assert found.urls == ["tls://a:1", "tls://b:2"]
    assert (found.user, found.password, found.token) == ("me", PASSWORD, None)
    assert (found.credentials, found.nkey_seed_file) == (None, seed)
    assert PASSWORD not in repr(found)
    context(home, "bare", {"url": "a", "user": PASSWORD})
    assert (read_context("bare", home).user, read_context("bare", home).token) == (None, PASSWORD)
    assert PASSWORD not in repr(read_context("bare", home))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "no url"),
        ({"url": ""}, "no url"),
        ({"url": "http://x"}, "no NATS URL"),
        ({"url": ["x"]}, "url: Input should be a valid string"),
        ({"url": "x", "password": {"is": PASSWORD}}, "password: Input should be"),
        ({"url": "x", "creds": "/does/not/exist.creds"}, "creds file"),
        ({"url": "x", "nsc": "nsc://a/b/c", "user_jwt": "eyJ"}, "uses user_jwt, nsc"),
    ],
)
def test_a_broken_context_is_named(home: dict[str, str], fields: dict[str, object], text: str) -> None:
    context(home, "broken", fields)
    with pytest.raises(InvalidSetting, match=text) as caught:
        resolve(context="broken", environment=home)
    assert "'broken'" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_context_that_is_not_there_or_not_json(home: dict[str, str]) -> None:
    with pytest.raises(InvalidSetting, match="there is no NATS context 'none'"):
        read_context("none", home)
    for name in ("../x", "", "a/b", ".", "..", "a\n"):
        with pytest.raises(InvalidSetting, match="not the name"):
            read_context(name, home)
    context(home, "half", {"url": "x"}, select=True)
    (Path(home["XDG_CONFIG_HOME"]) / "nats/context/half.json").write_bytes(b'{"url": "\xff')
    with pytest.raises(InvalidSetting, match="'half' is broken"):
        resolve(environment=home)
