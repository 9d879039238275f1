"""What operators do with nodes, as real processes: what is written where, and what a script can tell from the end."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cli_process import ANTIPHON, BOUND_S, Fabric, fabric, until

EXAMPLE = Path(__file__).parents[2] / "examples/fleet.toml"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("operator")
    docs = folder / "docs"
    docs.mkdir()
    (docs / "one.md").write_text("# Psalm\n\nThe choir answers.\n")
    with fabric(folder) as made:
        made.up()
        made.serve("folder", str(docs), "--name", "choir", "--instance", "one")
        yield made


@pytest.fixture(autouse=True)
def nothing_is_said(here: Fabric) -> Iterator[None]:
    """Each test begins and ends with the choir alone, and no word about it."""
    yield
    for node in here.run("node", "ls", "-o", "json").json:
        if node.get("card"):
            here.run("node", "rm", node["node"])


def test_register_show_update_and_rm(here: Fabric) -> None:
    words = ("--topics", "news,python", "--metadata", "region=eu", "--metadata", "tier=a,b", "--version", "7")
    done = here.run("node", "register", "blog", "--description", "ours", *words, "-o", "json")
    assert done.code == 0, done.err
    [entry] = done.json
    assert (entry["status"], entry["topics"], entry["version"]) == ("down", ["news", "python"], "7")
    assert entry["metadata"] == {"region": "eu", "tier": "a,b"}
    assert "blog is registered" in done.err

    shown = here.run("node", "show", "blog").out.splitlines()
    assert "description\tours\toperators" in shown
    assert "status\tdown\theartbeats" in shown
    assert here.run("node", "show", "blog", "-o", "json").json["card"]["metadata"]["region"] == "eu"
    assert "instance\tone\tactive" in here.run("node", "show", "choir").out

    updated = here.run("node", "update", "blog", "--weight", "5", "--unset", "topics,metadata.tier", "-o", "json")
    assert updated.json[0]["weight"] == 5
    assert (updated.json[0]["topics"], updated.json[0]["metadata"]) == ([], {"region": "eu"})

    removed = here.run("node", "rm", "blog", "-o", "json")
    assert (removed.code, removed.json) == (
        0,
        [{"node": "blog", "was_registered": True, "forgotten": 0, "left": 0}],
    )
    gone = here.run("node", "show", "blog")
    assert (gone.code, gone.out) == (2, "")
    assert "unknown_node" in gone.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("update", "choir"), 2, "nothing to set"),
        (("update", "choir", "--weight", "-1"), 2, "malformed"),
        (("update", "choir", "--unset", "nothing"), 2, "malformed"),
        (("update", "choir", "--metadata", "region"), 2, "KEY=VALUE"),
        (("update", "choir", "--balancer", "dice"), 2, "unknown_method"),
        (("update", "nobody", "--weight", "1"), 2, "unknown_node"),
        (("register", "A"), 2, "malformed"),
        (("register", "choir", "--status", "asleep"), 2, "usage"),
        (("suspend",), 2, "name at least one"),
        (("rm",), 2, "name at least one"),
        (("rm", "choir"), 1, "choir is still there with 1 live instance"),
        (("ping",), 2, "--all"),
        (("ping", "choir", "--all"), 2, "--all"),
        (("ping", "nobody"), 2, "unknown_node"),
        (("ls", "--where", "region ~ eu"), 2, "where"),
        (("ls", "--name", "x*"), 0, "no such node"),
        (("apply", "/nowhere/fleet.toml"), 2, "invalid_setting"),
        (("ls", "--nats", "nats://127.0.0.1:1"), 7, "not_connected"),
        (("suspend", "choir", "--nats", "nats://127.0.0.1:1"), 7, "not_connected"),
    ],
)
def test_ends_and_reasons(here: Fabric, words: tuple[str, ...], code: int, said: str) -> None:
    done = here.run("node", *words)
    assert (done.code, said in done.err) == (code, True), done
    assert "Traceback" not in done.err


def test_registering_twice_and_replacing(here: Fabric) -> None:
    assert here.run("node", "register", "blog", "--weight", "1").code == 0
    assert here.run("node", "register", "blog", "--weight", "1").code == 0
    refused = here.run("node", "register", "blog", "--weight", "2")
    assert (refused.code, "already_registered" in refused.err) == (2, True)
    assert here.run("node", "register", "blog", "--weight", "2", "--replace").code == 0


def test_suspend_drain_and_resume(here: Fabric) -> None:
    for word, status in (("suspend", "suspended"), ("drain", "draining")):
        done = here.run("node", word, "choir")
        assert (done.code, done.out.split("\t")[:2]) == (0, ["choir", status])
        searched = here.run("search", "choir")
        assert searched.code == 4
        assert f"choir ({status}" in searched.err or "skipped" in searched.err
        assert [node["node"] for node in here.run("node", "ls", "--status", status, "-o", "json").json] == ["choir"]
        assert here.run("node", "resume", "choir").out.split("\t")[:2] == ["choir", "active"]
    assert here.run("search", "choir").code == 0


def test_the_list_is_filtered(here: Fabric) -> None:
    here.run("node", "register", "shop-eu", "--metadata", "region=eu", "--instances-min", "3")
    here.run("node", "register", "shop-us", "--metadata", "region=us", "--capabilities", "act")

    def names(*words: str) -> list[str]:
        return [line.split("\t")[0] for line in here.run("node", "ls", *words).out.splitlines()]

    assert names() == ["choir", "shop-eu", "shop-us"]
    assert names("--name", "shop-*") == ["shop-eu", "shop-us"]
    assert names("--where", "region=eu") == ["shop-eu"]
    assert names("--capability", "search", "--status", "down") == ["shop-eu"]
    assert "0/3" in here.run("node", "ls", "--name", "shop-eu").out


def test_ping(here: Fabric) -> None:
    done = here.run("node", "ping", "choir")
    assert (done.code, done.out.split("\t")[:2]) == (0, ["choir", "one"])
    assert "1/1 answered" in done.err
    here.run("node", "register", "blog")
    some = here.run("node", "ping", "--all", "-o", "json")
    assert some.code == 3
    assert [(one["node"], one["rtt_us"] is None) for one in some.json["lines"]] == [("blog", True), ("choir", False)]
    assert "no answer from: blog (down)" in some.err
    assert here.run("node", "ping", "blog").code == 4

    process = here.running[1]
    process.send_signal(signal.SIGSTOP)
    try:
        frozen = here.run("node", "ping", "choir", "--wait-ms", "100")
        assert (frozen.code, "choir.one (out_of_budget)" in frozen.err) == (4, True), frozen
    finally:
        process.send_signal(signal.SIGCONT)
    until(lambda: here.run("node", "ping", "choir").code == 0)


def test_a_fleet_file(here: Fabric, tmp_path: Path) -> None:
    here.run("node", "register", "old", "--weight", "3")
    file = tmp_path / "fleet.toml"
    file.write_text('[nodes.choir]\ntopics = ["song"]\nmetadata = { region = "eu" }\n[nodes.blog]\nweight = 50\n')

    dry = here.run("node", "apply", str(file), "--dry-run", "--prune", "-o", "json")
    assert dry.code == 0
    assert [(step["verb"], step["node"]) for step in dry.json] == [
        ("register", "blog"),
        ("register", "choir"),
        ("remove", "old"),
    ]
    assert dry.json[0]["details"] == [{"field": "weight", "before": None, "after": 50}]
    assert dry.json[1]["details"][1] == {"field": "metadata", "before": None, "after": {"region": "eu"}}
    assert "nothing was changed" in dry.err
    assert "blog" not in here.run("node", "ls").out

    done = here.run("node", "apply", str(file))
    assert (done.code, done.out.splitlines()) == (
        0,
        ["register blog: weight = 50", "register choir: topics = [song], metadata = {'region': 'eu'}"],
    )
    again = here.run("node", "apply", str(file))
    assert (again.code, again.out) == (0, "")
    assert "nothing to change" in again.err
    here.run("node", "update", "blog", "--weight", "60")
    assert here.run("node", "apply", "-", stdin=file.read_bytes()).out == "update blog: weight: 60 -> 50\n"
    pruned = here.run("node", "apply", str(file), "--prune")
    assert pruned.out == "remove old\n"
    assert "\nold\t" not in here.run("node", "ls").out

    for text, said in (("nodes = 3", "nodes"), ("[nodes.blog]\nwait = 1", "wait"), ("[", "fleet.toml"), ("\xff", "")):
        file.write_text(text, encoding="latin-1")
        wrong = here.run("node", "apply", str(file))
        assert (wrong.code, said in wrong.err) == (2, True), wrong
        assert "Traceback" not in wrong.err


def test_the_policy_of_a_fleet_file(here: Fabric, tmp_path: Path) -> None:
    file, rule = tmp_path / "fleet.toml", '[[policy.search]]\nwho = ["*"]\nnodes = [{}]\n'
    file.write_text("[nodes]\n" + rule.format('"*"'))
    dry = here.run("node", "apply", str(file), "--dry-run", "-o", "json")
    assert [(step["verb"], step["node"]) for step in dry.json] == [("policy", None)]
    assert dry.json[0]["details"] == [{"field": "search [*]", "before": None, "after": "[*]"}]
    done = here.run("node", "apply", str(file))
    assert (done.code, done.out) == (0, "policy: search [*]: not set -> [*]\n")
    again = here.run("node", "apply", str(file))
    assert (again.code, again.out) == (0, "")

    file.write_text("[nodes]\n")
    assert here.run("node", "apply", str(file)).out == "", "what is not mentioned stays"
    pruned = here.run("node", "apply", str(file), "--prune")
    assert pruned.out.startswith("policy: search [*]: [*] -> not set"), pruned
    file.write_text("[nodes]\n" + rule.format('"a.b"'))
    wrong = here.run("node", "apply", str(file))
    assert (wrong.code, "policy.search.0.nodes.0" in wrong.err) == (2, True), wrong


def test_the_example_is_a_fleet_file(here: Fabric) -> None:
    done = here.run("node", "apply", str(EXAMPLE), "--dry-run", "-o", "json")
    assert done.code == 0, done.err
    assert {step["verb"] for step in done.json} == {"register"}


@pytest.mark.parametrize(("typed", "code"), [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)])
def test_a_person_at_a_terminal_is_asked_first(here: Fabric, typed: bytes, code: int) -> None:
    here.run("node", "register", "blog")
    main, terminal = pty.openpty()
    os.write(main, typed)
    program = [*ANTIPHON, "node", "rm", "blog", "-o", "json"]
    done = subprocess.run(
        program, env=here.environment, stdin=terminal, capture_output=True, timeout=BOUND_S, check=False
    )
    os.close(main)
    os.close(terminal)
    assert done.returncode == code, done
    assert b"forget blog? [y/N]" in done.stderr
    assert (json.loads(done.stdout)[0]["was_registered"] if code == 0 else done.stdout) == (True if code == 0 else b"")


@pytest.mark.parametrize("words", [("ls",), ("show", "choir"), ("ping", "--all")], ids=" ".join)
def test_tables_for_people_have_colours_unless_they_are_unwanted(here: Fabric, words: tuple[str, ...]) -> None:
    here.run("node", "register", "choir", "--description", "sings \x1b[31mred", "--instances-min", "2")
    with_colours, without = on_terminal(here, words), on_terminal(here, words, NO_COLOR="1")
    assert "choir" in with_colours
    assert "\x1b[32m" in with_colours or "\x1b[31m" in with_colours
    assert "\x1b[31mred" not in with_colours, "what somebody has typed moves no terminal"
    assert "\x1b[3" not in without


def on_terminal(here: Fabric, words: tuple[str, ...], **environment: str) -> str:
    """What a verb of `antiphon node` writes to a terminal."""
    main, terminal = pty.openpty()
    settings = here.environment | {"TERM": "xterm", "COLUMNS": "110"} | environment
    process = subprocess.Popen([*ANTIPHON, "node", *words], env=settings, stdout=terminal, stderr=subprocess.DEVNULL)
    os.close(terminal)
    read = b""
    with suppress(OSError):  # the other end is closed
        while part := os.read(main, 65_536):
            read += part
    os.close(main)
    assert process.wait(BOUND_S) == 0
    return read.decode()
