"""`antiphon action` as a real process: every verb, every output, a terminal that is asked and shown a bar."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
from cli_process import ANTIPHON, BOUND_S, Fabric, fabric, until

PROGRAM = r"""
import asyncio, sys
from antiphon import ActionContext, Node
from antiphon.errors import Declined
from pydantic import BaseModel, Field

name = sys.argv[1]
node = Node(name, topics=["shops"] if name.startswith("shop") else ["texts"], metadata={"region": "eu"})

class Sync(BaseModel):
    since: str = Field(default="yesterday", description="what has changed since")
    pages: int = Field(default=1, ge=1, le=100)

class Synced(BaseModel):
    records: int
    since: str

@node.action("sync", params=Sync, result=Synced, idempotent=True, aggregates={"records": "sum", "since": "histogram"})
async def sync(params, context):
    "Fetch what has changed."
    await context.progress(1, params.pages, "\x1b[31mpage 1")
    if name == "crm":
        raise Declined("closed on \x1b]0;pwned\x07Mondays")
    return Synced(records=10 * params.pages, since=params.since)

@node.action("purge", effect="destructive", dry_run=True)
async def purge(context):
    "Throw the cache away."
    return "would throw it away" if context.dry_run else f"thrown away for {context.job}"

@node.action("hold")
async def hold(context):
    await context.progress(1, 2, "half way")
    await asyncio.sleep(3600)

node.run(sys.argv[2])
"""
NODES = ("crm", "shop-eu", "shop-us")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    with fabric(tmp_path_factory.mktemp("action")) as made:
        made.up()
        for name in NODES:
            made.start(name, made.url(), command=(sys.executable, "-c", PROGRAM))
        until(lambda: all(f"{name}\tactive" in made.run("node", "ls").out for name in NODES))
        yield made


def test_what_there_is_is_listed_and_shown(here: Fabric) -> None:
    assert here.run("action", "ls").out.splitlines() == [
        "hold\twrite\tcrm, shop-eu, shop-us\t",
        "purge\tdestructive\tcrm, shop-eu, shop-us\tThrow the cache away.",
        "sync\twrite\tcrm, shop-eu, shop-us\tFetch what has changed.",
    ]
    shown = here.run("action", "show", "sync").out
    assert 'param\tsince string = "yesterday" - what has changed since' in shown
    assert "param\tpages integer >= 1 <= 100 = 1" in shown
    assert "in all\tsum of records" in shown
    [told] = here.run("action", "show", "sync", "-o", "json").json
    assert told["contract"]["params"]["properties"]["pages"]["maximum"] == 100
    assert here.run("action", "show", "nothing").code == 2
    assert "action\tpurge\tdestructive\tThrow the cache away." in here.run("node", "show", "crm").out


def test_run_on_all_says_who_failed_why_and_what_it_comes_to(here: Fabric) -> None:
    done = here.run("action", "run", "sync", "--all", "--param", "pages=3", "--param", "since=7")
    assert done.code == 3, done.err
    *well, failed = [line.split("\t") for line in done.out.splitlines()]
    assert [(one[0], one[1], one[3]) for one in well] == [
        (name, "succeeded", '{"records": 30, "since": "7"}') for name in NODES[1:]
    ]
    assert failed[:2] == ["crm", "failed"]
    assert failed[3].startswith("declined: closed on")
    assert "\x1b" not in done.out + done.err
    assert "2/3 nodes in" in done.err
    assert "1 failed" in done.err
    assert "sum of records: 60 (of 2 nodes)" in done.err
    assert "since: 7: 2" in done.err


def test_json_and_json_lines_say_the_same_and_a_job_is_read_again(here: Fabric) -> None:
    whole = here.run("action", "run", "sync", "--topic", "shops", "-o", "json")
    assert whole.code == 0
    assert [line["result"]["records"] for line in whole.json["lines"]] == [10, 10]
    streamed = here.run("action", "run", "sync", "--match", "shop-*", "--json-params", '{"pages": 2}', "-o", "jsonl")
    *lines, end = map(json.loads, streamed.out.splitlines())
    assert {line["node"] for line in lines} == set(NODES[1:])
    assert (end["end"], end["counts"]["succeeded"], end["totals"][0]["value"]) == ("done", 2, 40)
    again = here.run("action", "attach", end["job"], "-o", "json").json
    assert (again["job"], again["totals"]) == (end["job"], end["totals"])
    assert here.run("action", "attach", "nosuchjob").code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sync",), "say where"),
        (("sync", "--all", "--node", "crm"), "exclude each other"),
        (("sync", "--all", "--param", "pages=many"), "params.pages"),
        (("sync", "--all", "--limit", "0"), "--limit '0': write so many nodes"),
        (("sync", "--node", "nobody"), "no node 'nobody'"),
        (("nothing", "--all"), "no node has an action 'nothing'"),
        (("sync", "--all", "--dry-run"), "no dry run"),
        (("purge", "--all"), "would run on 3 nodes: crm, shop-eu, shop-us; add --yes"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_done(here: Fabric, words: tuple[str, ...], said: str) -> None:
    done = here.run("action", "run", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_limited_job_says_its_seed_and_the_seed_draws_the_same_nodes(here: Fabric) -> None:
    tried = here.run("action", "run", "purge", "--all", "--limit", "1", "--dry-run")
    [seed] = re.findall(r"--seed (\d+)", tried.err)
    assert "a dry run: nothing was done" in tried.err
    done = here.run("action", "run", "purge", "--all", "--limit", "1", "--seed", seed, "--yes")
    assert done.code == 0
    assert done.out.split("\t")[0] == tried.out.split("\t")[0]
    assert "thrown away" in done.out


def test_a_detached_job_is_cancelled_from_elsewhere_and_whoever_follows_it_is_told(here: Fabric) -> None:
    begun = here.run("action", "run", "hold", "--node", "shop-eu,shop-us", "--detach")
    job = begun.out.strip()
    following = here.start("action", "attach", job, "-o", "jsonl")
    out = here.data.parent / f"{here.running.index(following)}.out"
    until(lambda: '"half way"' in out.read_text())
    cancelled = here.run("action", "cancel", job, "-o", "json")
    assert cancelled.code == 0
    assert (cancelled.json["end"], cancelled.json["counts"]["cancelled"]) == ("cancelled", 2)
    assert following.wait(BOUND_S) == 1
    assert json.loads(out.read_text().splitlines()[-1])["by"] == cancelled.json["by"]
    assert "the job ended early: cancelled by" in here.log(following)


class Terminal:
    """A command on a terminal: what it shows, and keys for it."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process = process
        self.screen = screen
        self.seen = ""

    def until(self, text: str) -> None:
        end = time.monotonic() + BOUND_S
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            self._read()

    def press(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def ended(self) -> int:
        while self._read():
            pass
        return self.process.wait(BOUND_S)

    def _read(self) -> bool:
        if not select.select([self.screen], [], [], BOUND_S)[0]:
            raise AssertionError(self.seen)
        try:
            part = os.read(self.screen, 65_536)
        except OSError:  # Linux's word for the end of a pseudo-terminal
            return False
        self.seen += part.decode(errors="replace")
        return bool(part)


@contextmanager
def terminal(here: Fabric, *words: str) -> Generator[Terminal]:
    ours, theirs = pty.openpty()
    environment = here.environment | {"TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen([*ANTIPHON, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_on_a_terminal_something_destructive_is_asked_about(here: Fabric) -> None:
    with terminal(here, "action", "run", "purge", "--all") as asked:
        asked.until("[y/N]")
        asked.press("n\n")
        assert asked.ended() == 2
        assert "nothing was done" in asked.seen
    with terminal(here, "action", "run", "purge", "--node", "crm") as asked:
        asked.until("it would run on 1 node: crm. Go on? [y/N]")
        asked.press("y\n")
        assert asked.ended() == 0
        assert "thrown away" in asked.seen


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_ctrl_c_leaves_the_job_running(here: Fabric) -> None:
    with terminal(here, "action", "run", "hold", "--node", "crm,shop-eu", "--parallel", "1") as shown:
        shown.until("half way")
        assert "0/2 nodes" in shown.seen
        assert "1 running; 1 waiting" in shown.seen
        shown.process.send_signal(signal.SIGINT)
        assert shown.ended() == 130
    [job] = set(re.findall(r"antiphon action cancel ([0-9a-f]+)", shown.seen))
    done = here.run("action", "cancel", job)
    assert done.code == 0
    states = [line.split("\t")[:2] for line in done.out.splitlines()]
    assert states == [["shop-eu", "skipped"], ["crm", "cancelled"]]
