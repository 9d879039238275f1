"""`antiphon up` and `antiphon run` as real processes: once a data directory, again after kill -9, clean on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest
from cli_process import ANTIPHON, BOUND_S, Fabric, fabric, until

from antiphon import Client
from antiphon.errors import AntiphonError


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Fabric]:
    with fabric(tmp_path) as made:
        yield made


def test_up_a_second_up_and_sigterm(here: Fabric) -> None:
    first = here.up()
    second = here.run("up")
    assert second.code == 6
    assert second.out == ""
    assert f"process {first.pid}" in second.err
    assert here.url() in second.err
    assert "Traceback" not in second.err
    assert first.poll() is None

    for line in here.log(first).splitlines():
        assert json.loads(line)["level"] == "info", "JSON lines where stderr is no terminal"
    assert here.run("node", "ls").code == 0

    first.terminate()
    assert first.wait(BOUND_S) == 0
    assert here.run("search", "anything").code == 7, "the server is gone with it"


def test_up_again_after_kill_9(here: Fabric) -> None:
    first = here.up()
    first.kill()
    first.wait(BOUND_S)
    here.up()
    assert here.run("node", "ls", "-o", "json").json == []


def test_ctrl_c_stops_up_cleanly(here: Fabric) -> None:
    process = here.up()
    process.send_signal(signal.SIGINT)
    assert process.wait(BOUND_S) == 0
    assert "Traceback" not in here.log(process)


def test_up_on_a_terminal_shows_its_banner_and_no_more(here: Fabric) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*ANTIPHON, "up"], env=here.environment, stdout=theirs, stderr=theirs)
    here.running.append(process)  # type: ignore[arg-type]
    os.close(theirs)
    seen = b""
    with os.fdopen(ours, "rb", buffering=0) as screen:
        while part := read(screen):
            seen += part
            if b"Ctrl-C" in seen:
                process.send_signal(signal.SIGINT)
    assert process.wait(BOUND_S) == 0
    assert b"Antiphon is up" in seen
    assert b"antiphon.up" not in seen
    assert b" info " not in seen


def read(screen: FileIO) -> bytes:
    """Return what came, and nothing at the end, for which Linux has an error on a pseudo-terminal."""
    try:
        return screen.read(65_536) or b""
    except OSError:
        return b""


async def test_a_node_and_a_client_come_back_after_kill_9(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/one.md").write_text("# Antiphony\n\nA call and a response.\n", encoding="utf-8")
    first = here.up()
    here.serve("folder", str(tmp_path / "docs"))
    async with Client(nats=here.url(), data=here.data) as client:
        assert [hit.title for hit in (await client.search("response")).hits] == ["Antiphony"]
        first.kill()
        await asyncio.to_thread(first.wait, BOUND_S)
        url = here.url()
        await asyncio.to_thread(here.up)
        assert here.url() == url
        async with asyncio.timeout(BOUND_S):
            while not await found(client):  # noqa: ASYNC110 - of another process nothing is heard
                await asyncio.sleep(0.5)  # an operator may ask once a second for long
    done = await asyncio.to_thread(here.run, "search", "response")
    assert done.code == 0, done


async def found(client: Client) -> bool:
    """Whether the node answers the client; neither may be connected again yet."""
    try:
        return bool((await client.search("response", deadline_ms=1_000)).hits)
    except AntiphonError:
        return False


def test_a_prefix_makes_another_fabric(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/one.md").write_text("# Antiphony\n\nA call and a response.\n", encoding="utf-8")
    here.environment["ANTIPHON_PREFIX"] = "x"
    here.up()
    here.serve("folder", str(tmp_path / "docs"))
    here.script("mine", "return [Hit(id='1', title='By hand', text='a response')]")
    asked = {hit["doc"]["title"] for hit in here.run("search", "response", "-o", "json").json["hits"]}
    assert asked == {"Antiphony", "By hand"}
    program = (
        "import asyncio; from antiphon import Client\n"
        "async def main():\n"
        "    async with Client() as client:\n"
        "        print(*sorted(node.node for node in await client.nodes()))\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=here.environment,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    assert done.stdout.split() == ["docs", "mine"]
    outside = here.run("search", "response", environment={"ANTIPHON_PREFIX": "antiphon"})
    assert outside.code == 2
    assert "the fabric 'x'" in outside.err
    assert here.run("search", "response", environment={"ANTIPHON_PREFIX": "no token"}).code == 2


def test_a_second_master_takes_over(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/one.md").write_text("# Antiphony\n\nA call and a response.\n", encoding="utf-8")
    here.up()
    other = here.start("run", "master", "--name", "master-two")
    until(lambda: "master.serves" in here.log(other))
    here.serve("folder", str(tmp_path / "docs"))
    masters = set()

    def seen() -> bool:
        masters.add(here.run("search", "response", "-o", "json").json["master"])
        return len(masters) == 2

    until(seen)
    assert masters == {"master", "master-two"}
    assert here.run("run", "master", "--name", "blog").code == 2


def test_a_setting_without_meaning(here: Fabric) -> None:
    done = here.run("up", environment={"ANTIPHON_HEARTBEAT_MS": "often"})
    assert done.code == 2
    assert "ANTIPHON_HEARTBEAT_MS: " in done.err


# -- masters beside a server that runs already


def test_a_master_without_keys_says_how_to_get_some_and_how_to_do_without(here: Fabric) -> None:
    url = here.open_server()
    for words in (("up",), ("run", "master")):
        refused = here.run(*words, "--nats", url)
        assert refused.code == 2, refused.err
        assert "antiphon nats-config" in refused.err
        assert "--open" in refused.err
        assert "Task was destroyed" not in refused.err
    keys = str(here.data.parent / "fabric" / "keys")
    assert here.run("nats-config", "--keys", keys).code == 0
    both = here.run("up", "--open", "--nats", url, environment={"ANTIPHON_KEYS": keys})
    assert both.code == 2
    assert here.run("up", "--open").code == 2, "an embedded server always asks"
    opened = here.start("up", "--open", "--nats", url)
    until(lambda: '"master.serves"' in here.log(opened))
    assert '"master.open"' in here.log(opened)


@pytest.mark.parametrize("where", ["option", "variable", "data directory"])
def test_up_beside_a_server_that_asks_nobody_checks_badges(here: Fabric, where: str) -> None:
    url = here.open_server()
    folder = here.data / "keys" if where == "data directory" else here.data.parent / "fabric" / "keys"
    assert here.run("nats-config", "--keys", str(folder)).code == 0
    if where == "variable":
        here.environment["ANTIPHON_KEYS"] = str(folder)
    started = here.start("up", "--nats", url, *(("--keys", str(folder)) if where == "option" else ()))
    until(lambda: '"master.serves"' in here.log(started) or started.poll() is not None)
    assert "identity.badges" in here.log(started)
    assert here.run("node", "ls", "--nats", url, environment={"ANTIPHON_NAME": "mallory"}).code == 8
    operator = str(folder.parent / "operator.json")
    assert here.run("node", "ls", "--nats", url, "--credentials", operator).code == 0


def test_a_user_whose_name_is_another_kind_starts_all_the_same(here: Fabric) -> None:
    first = here.up()
    assert here.run("identity", "create", "deploy", "--kind", "publisher").code == 0
    keys = here.data / "keys"
    other = here.data.parent / "copy" / "keys"
    shutil.copytree(keys, other)
    other.parent.chmod(0o700)
    here.environment["LOGNAME"] = "deploy"
    second = here.start("run", "master", "--name", "master-two", "--keys", str(other), "--nats", here.url())
    until(lambda: '"master.serves"' in here.log(second) or second.poll() is not None)
    assert '"identity.not_introduced"' in here.log(second)
    assert not (other.parent / "operator.json").exists()
    for process in (second, first):
        process.terminate()
        assert process.wait(BOUND_S) == 0
        assert "Task was destroyed" not in here.log(process)
