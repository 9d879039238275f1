"""`antiphon node` as a real process: content with no code, found again when it changes, gone when told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_process import BOUND_S, Fabric, fabric, until

from antiphon.cli.serving import Card, follow, make
from antiphon.connectors.folder import Folder

STUBBORN = """
import asyncio, sys
from antiphon import Node
from antiphon.responder import NodeBounds

node = Node("stubborn", bounds=NodeBounds(stop_grace_ms=100))

async def stay(what):
    print(what, file=sys.stderr, flush=True)
    while True:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            pass

@node.search
async def search(query):
    await stay("searched")

@node.action("dig")
async def dig():
    await stay("dug")

@node.action("plant")
async def plant():
    await stay("planted")

node.run()
"""
SAGA = """
name = "planting"

[[steps]]
name = "plant"
node = "stubborn"
action = "plant"
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    with fabric(tmp_path_factory.mktemp("node")) as made:
        made.up()
        yield made


def titles(here: Fabric, query: str, node: str) -> list[str]:
    done = here.run("search", query, "--nodes", node, "-o", "json")
    return [hit["doc"]["title"] for hit in done.json["hits"]] if done.code == 0 else []


def test_a_folder_is_followed_and_left(here: Fabric, tmp_path: Path) -> None:
    docs = tmp_path / "Hymn Book"
    docs.mkdir()
    (docs / "first.md").write_text("# Morning\n\nThe lark ascends.\n", encoding="utf-8")
    process = here.serve("folder", str(docs), "--description", "hymns", "--topics", "song,praise")

    (entry,) = (one for one in here.run("node", "ls", "-o", "json").json if one["node"] == "hymn-book")
    assert (entry["description"], entry["topics"], entry["status"]) == ("hymns", ["song", "praise"], "active")
    assert "hymn-book\tactive\t1/1" in here.run("node", "ls").out
    assert titles(here, "lark", "hymn-book") == ["Morning"]

    (docs / "second.md").write_text("# Evening\n\nThe nightingale sings.\n", encoding="utf-8")
    until(lambda: titles(here, "nightingale", "hymn-book") == ["Evening"])
    (docs / "first.md").unlink()
    until(lambda: titles(here, "lark", "hymn-book") == [])

    process.terminate()
    assert process.wait(BOUND_S) == 0
    assert "hymn-book" not in here.run("node", "ls").out, "it has left before it ended"
    events = [json.loads(line)["event"] for line in here.log(process).splitlines()]
    assert events[-1] == "node.stopped"


def test_a_table_is_served(here: Fabric, tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE products (sku TEXT PRIMARY KEY, name TEXT, about TEXT)")
        database.execute("INSERT INTO products VALUES ('a1', 'Kettle', 'boils water')")
        database.commit()
        here.serve("sqlite", str(file), "--table", "products", "--columns", "name,about", "--poll-ms", "50")
        assert titles(here, "boiling water", "shop-products") == ["Kettle"]
        database.execute("INSERT INTO products VALUES ('b2', 'Lamp', 'sheds light')")
        database.commit()
        until(lambda: titles(here, "light", "shop-products") == ["Lamp"])


def test_an_empty_folder_is_served_and_searched(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    process = here.serve("folder", str(tmp_path / "later"))
    empty = here.run("search", "lark", "--nodes", "later", "-o", "json")
    assert (empty.json["coverage"]["answered"], empty.json["hits"]) == (1, [])
    (tmp_path / "later" / os.fsdecode(b"\xff.md")).write_text("# Lark\n")
    until(lambda: titles(here, "lark", "later") == ["Lark"])
    shutil.rmtree(tmp_path / "later")
    until(lambda: '"folder.not_followed"' in here.log(process) or process.poll() is not None)
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "one.md").write_text("# Wren\n")
    until(lambda: titles(here, "wren", "later") == ["Wren"])
    assert '"node.empty"' in here.log(process)
    assert '"actor.crashed"' not in here.log(process)


def test_handlers_that_heed_no_cancellation_keep_no_node_from_ending(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN, encoding="utf-8")
    (tmp_path / "saga.toml").write_text(SAGA, encoding="utf-8")
    process = here.start(str(tmp_path / "stubborn.py"), command=(sys.executable,))
    until(lambda: '"node.joined"' in here.log(process) or process.poll() is not None)
    assert here.run("search", "whales", "--nodes", "stubborn", "--deadline", "300").code == 4
    assert here.run("action", "run", "dig", "--node", "stubborn", "--detach").code == 0
    submitted = here.run("saga", "submit", str(tmp_path / "saga.toml"), "--no-wait")
    assert submitted.code == 0, submitted.err
    until(lambda: all(f"{what}\n" in here.log(process) for what in ("searched", "dug", "planted")))
    process.terminate()
    assert process.wait(BOUND_S) == 0
    told = [json.loads(line) for line in here.log(process).splitlines() if "task.not_ended" in line]
    assert {line["waits_in"].split(":")[0] for line in told} == {"__main__.stay"}
    assert here.run("saga", "abandon", submitted.out.strip(), "--yes").code == 0


def test_a_node_that_never_started_has_not_stopped(here: Fabric, tmp_path: Path) -> None:
    done = here.run("node", "serve", "folder", str(tmp_path / "nowhere"))
    assert done.code == 2
    assert "node.stopped" not in done.err


def test_content_that_cannot_be_served(here: Fabric, tmp_path: Path) -> None:
    for words, said in (
        (("folder", str(tmp_path / "nowhere")), "content_unreadable"),
        (("sqlite", str(tmp_path / "no.db"), "--table", "x"), "content_unreadable"),
        (("sqlite", str(tmp_path / "no.db")), "usage"),
        (("folder", str(tmp_path), "--name", "Not A Name"), "invalid_name"),
        (("folder", str(tmp_path), "--name", "master"), "invalid_setting"),
        (("folder", str(tmp_path), "--files-max", "0"), "--files-max"),
        (("sqlite", str(tmp_path / "no.db"), "--table", "x", "--poll-ms", "-1"), "--poll-ms"),
        (("nothing",), "usage"),
    ):
        done = here.run("node", "serve", *words)
        assert (done.code, said in done.err) == (2, True), done
        assert "Traceback" not in done.err


def test_a_node_without_a_server_says_so(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("# One\n", encoding="utf-8")
    done = here.run("node", "serve", "folder", str(tmp_path), "--nats", "nats://127.0.0.1:1")
    assert done.code == 7
    assert "not_connected" in done.err


async def test_a_follower_that_crashes_is_started_again_and_again_then_seen(
    nats_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.md").write_text("# One\n\nOnly one.\n", encoding="utf-8")
    content = Folder(tmp_path)
    content.open()
    crashes = 0

    async def watch(_self: Folder, changed: Callable[[str], None]) -> None:
        nonlocal crashes
        crashes += 1
        raise OSError("the watch is lost")

    monkeypatch.setattr(Folder, "watch", watch)
    node = make(content, Card("crashing"))
    await node.start(nats_server)
    try:
        with pytest.raises(OSError, match="the watch is lost"):
            await asyncio.wait_for(follow(node, content, asyncio.Event()), BOUND_S)
    finally:
        await node.stop()
        content.close()
    assert crashes > 1
