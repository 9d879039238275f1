"""`antiphon monitor` and `antiphon breaker` as real processes: what is shown, what is done, what is said of it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_process import ANTIPHON, BOUND_S, Fabric, fabric, until

COLUMNS = 11


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("monitor")
    with fabric(folder) as made:
        made.environment["ANTIPHON_BREAKER_FAILURES_MAX"] = "2"
        made.environment["ANTIPHON_BREAKER_WAIT_MS"] = "600000"
        made.up()
        made.script("choir", "return [Hit(id='1', title='Psalm', text='The choir answers.')]")
        made.script("organ", "raise OSError('no wind')")
        yield made


def look(here: Fabric, *words: str) -> dict[str, Any]:
    done = here.run("monitor", "--once", "-o", "json", *words)
    assert done.code == 0, done.err
    [text] = done.out.splitlines()
    return dict(json.loads(text))


def node_of(view: dict[str, Any], name: str) -> dict[str, Any]:
    return next(node for node in view["nodes"] if node["node"] == name)


def is_open(here: Fabric, node: str) -> bool:
    return bool(node_of(look(here), node)["breaker"] == "open")


def test_once_for_programs_and_for_people(here: Fabric) -> None:
    view = look(here)
    assert set(view) == {
        "at_ms",
        "masters",
        "nodes",
        "alerts",
        "requests_per_second",
        "coverage",
        "suspects_itself",
        "nodes_left_out",
        "alerts_left_out",
    }
    assert view["masters"] == ["master"]
    choir = node_of(view, "choir")
    assert (choir["status"], choir["breaker"]) == ("active", "closed")
    assert [one["status"] for one in choir["instances"]] == ["active"]

    done = here.run("monitor", "--once")
    rows = [line.split("\t") for line in done.out.splitlines()]
    assert [row[0] for row in rows] == ["choir", "organ"]
    assert {len(row) for row in rows} == {COLUMNS}
    assert "seen by master" in done.err


def test_it_goes_on_line_by_line_until_it_is_told_to_stop(here: Fabric) -> None:
    command = [*ANTIPHON, "monitor", "--interval", "0.1", "-o", "json"]
    process = subprocess.Popen(command, env=here.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        views = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.wait(BOUND_S)
    assert process.returncode == 130
    assert views[0]["at_ms"] < views[1]["at_ms"] < views[2]["at_ms"]


def test_a_terminal_gets_a_table_without_colour_where_none_is_wanted(here: Fabric) -> None:
    ours, theirs = pty.openpty()
    environment = here.environment | {"NO_COLOR": "1", "COLUMNS": "140", "TERM": "xterm"}
    process = subprocess.Popen([*ANTIPHON, "monitor", "--once"], env=environment, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    process.communicate(timeout=BOUND_S)
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    head, *rows = [line.split() for line in text.splitlines()]
    assert head[:3] == ["node", "status", "instances"]
    assert [row[0] for row in rows] == ["choir", "organ"]
    assert re.search(rb"\x1b\[[0-9;]*3[0-7]m", shown) is None, "bold and dim are no colours"


def test_breakers_by_hand(here: Fabric) -> None:
    assert here.run("breaker", "ls").err == "every breaker is closed\n"
    done = here.run("breaker", "open", "choir", "-o", "json")
    assert done.code == 0, done.err
    assert done.json == {"order": "open", "node": "choir", "instance": None, "verb": "search"}
    assert "held open" in done.err
    [one] = here.run("breaker", "ls", "-o", "json").json
    assert (one["node"], one["state"], one["reason"], one["holds_ms"]) == ("choir", "open", "by_hand", None)
    assert here.run("search", "choir", "--nodes", "choir").code == 4
    assert here.run("breaker", "reset", "choir").out == ""
    assert here.run("breaker", "ls", "-o", "json").json == []
    assert here.run("search", "choir", "--nodes", "choir").code == 0
    wrong = here.run("breaker", "open", "nobody")
    assert (wrong.code, "unknown_node" in wrong.err) == (2, True)
    assert here.run("breaker", "open", "choir", "nobody").code == 2


def test_auto_recover_resets_what_answers_pings(here: Fabric) -> None:
    for _ in range(3):
        here.run("search", "organ", "--nodes", "organ")
    until(lambda: is_open(here, "organ"))
    until(lambda: [one["id"] for one in look(here)["alerts"]] == ["breaker_open:organ"])
    done = here.run("monitor", "--once", "--auto-recover")
    assert "auto-recover: organ/" in done.err
    until(lambda: not is_open(here, "organ"))
    until(lambda: look(here)["alerts"] == [])
    held = here.run("breaker", "open", "organ")
    assert held.code == 0
    assert "auto-recover" not in here.run("monitor", "--once", "--auto-recover").err, "a hand knows why"
    here.run("breaker", "reset", "organ")


def test_what_cannot_be(here: Fabric, tmp_path: Path) -> None:
    assert here.run("monitor", "--once", "--interval", "0").code == 2
    assert here.run("monitor", "--once", "--nats", "nats://127.0.0.1:1").code == 7
