"""`antiphon saga`, as real processes: what is written where, what scripts can tell from the end, what people see."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from cli_process import ANTIPHON, BOUND_S, Done, Fabric, fabric, until

from antiphon import Client, Saga
from antiphon.cli import run
from antiphon.messages.saga_desk import SagaView

T = TypeVar("T")

NODE = """
import asyncio, sys
from pathlib import Path
from antiphon import Node
from antiphon.errors import Declined
from pydantic import BaseModel

class Order(BaseModel):
    user: str = "ann"
    cents: int = 1

node = Node("shop", description="a node of a test")
folder = Path(sys.argv[2])

async def opened(name):
    while not (folder / name).exists():
        await asyncio.sleep(0.01)

@node.action("charge", params=Order)
async def charge(params):
    return {"id": f"{params.user}-{params.cents}"}

@node.action("hold", params=Order)
async def hold(params):
    await opened(params.user)

@node.action("refund", params=Order)
async def refund(params):
    if params.user == "ann" and not (folder / "bank").exists():
        raise Declined("the \\x1b[31mbank is shut")

@node.action("send", params=Order)
async def send(params):
    raise Declined("no such address")

node.run(sys.argv[1])
"""
SAGAS = {
    "pays": """
name = "pays"
[[steps]]
name = "charge"
node = "shop"
action = "charge"
params = { user = "{{input.user}}", cents = "{{input.cents}}" }
""",
    "undone": """
name = "undone"
[[steps]]
name = "charge"
node = "shop"
action = "charge"
params = { user = "{{input.user}}" }
compensate = { action = "refund", retry = { attempts_max = 1, rounds_max = 1 } }
[[steps]]
name = "send"
node = "shop"
action = "send"
""",
    "holds": """
name = "holds"
[[steps]]
name = "hold"
node = "shop"
action = "hold"
params = { user = "{{input.gate}}" }
[[steps]]
name = "charge"
node = "shop"
action = "charge"
""",
    "wrong": """
name = "wrong"
[[steps]]
name = "fly"
node = "shop"
action = "fly"
[[steps]]
name = "charge"
node = "shop"
action = "charge"
params = { user = "{{steps.land.result.id}}" }
""",
}
NOBODY = ("--nats", "nats://127.0.0.1:1")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("saga")
    for name, text in SAGAS.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    (folder / "shop.py").write_text(NODE, encoding="utf-8")
    with fabric(folder) as made:
        made.up()
        made.program(folder / "shop.py", made.url(), str(folder))
        yield made


def file(here: Fabric, name: str) -> str:
    return str(here.data.parent / f"{name}.toml")


def saga(here: Fabric, *words: str, **how: Any) -> Done:
    return here.run("saga", *words, **how)


def asked(here: Fabric, ask: Callable[[Client], Awaitable[T]]) -> T:
    """What a client in this process is answered, where no command line is tried: a process costs a second."""

    async def asking() -> T:
        async with asyncio.timeout(BOUND_S), Client(here.url(), data=here.data) as client:
            return await ask(client)

    return asyncio.run(asking())


def shown(here: Fabric, name: str, state: str) -> SagaView:
    """Wait until a saga is in a state, and return it."""

    async def ask(client: Client) -> SagaView:
        async for view in client.saga(name):
            if view.state == state:
                return view
        raise AssertionError(f"{name} never was {state}")

    return asked(here, ask)


def submitted(here: Fabric, user: str, *names: str) -> None:
    """Submit sagas that are undone, or, where it is Ann's, cannot be."""

    async def ask(client: Client) -> None:
        for name in names:
            run = await client.submit(Saga.load(file(here, "undone")), {"user": user}, id=name, wait=True)
            assert run.is_parked == (user == "ann")

    asked(here, ask)


def test_submit_waits_and_writes_how_it_ended(here: Fabric) -> None:
    words = ("submit", file(here, "pays"), "--input", "user=ann", "--id", "pays-1")
    done = saga(here, *words, "--input", "cents=7", "-o", "json")
    assert (done.code, done.json["state"], done.json["results"]) == (0, "completed", {"charge": {"id": "ann-7"}})
    again = saga(here, *words, "--input-file", "-", stdin='{"cents": 7}')
    assert (again.code, again.out.splitlines()[:3]) == (0, ["saga\tpays-1", "name\tpays", "state\tcompleted"])
    assert "step\tcharge\tshop\tcharge\tsucceeded\t-\t1\t-" in again.out
    other = saga(here, *words, "--input", "cents=8")
    assert (other.code, other.out) == (2, "")
    assert "already_submitted" in other.err


def test_undone_and_parked_have_exit_codes_of_their_own(here: Fabric) -> None:
    undone = saga(here, "submit", file(here, "undone"), "--input", "user=bob", "--id", "undone-1", "-o", "jsonl")
    assert undone.code == 9, undone.err
    assert '"state":"compensated"' in undone.out.splitlines()[-1]
    parked = saga(here, "submit", file(here, "undone"), "--input", "user=ann", "--id", "parked-1")
    assert parked.code == 10, parked.err
    assert "step\tcharge\tshop\tcharge\tsucceeded\tparked\t2\tdeclined: the ␛[31mbank is shut" in parked.out
    assert "cause\tsend failed: declined: no such address" in parked.out
    assert "antiphon saga retry parked-1" in parked.err
    assert saga(here, "watch", "parked-1", "-o", "json").code == 10
    listed = saga(here, "ls", "--state", "parked", "--name", "undone")
    assert [row.split("\t")[:5] for row in listed.out.splitlines()] == [
        ["parked-1", "undone", "parked", "1/2", "charge"]
    ]

    wrong = saga(here, "resolve", "parked-1", "--outcome", "failed")
    assert (wrong.code, "wrong_state" in wrong.err) == (2, True)
    (here.data.parent / "bank").touch()
    assert saga(here, "retry", "parked-1", "--step", "charge", "--text", "open again").code == 0
    shown(here, "parked-1", "compensated")
    told = saga(here, "show", "parked-1", "--history").out
    assert "\tresumed\tcharge\t" in told
    assert "retry: open again" in told
    (here.data.parent / "bank").unlink()


def test_skip_resolve_and_abandon(here: Fabric) -> None:
    submitted(here, "ann", "skip-1", "resolve-1", "abandon-1")
    assert saga(here, "skip", "skip-1").code == 0
    assert shown(here, "skip-1", "compensated").left == ("charge",)
    assert saga(here, "resolve", "resolve-1", "--result", '{"by": "hand"}').code == 0
    assert shown(here, "resolve-1", "compensated").left == ()
    ended = saga(here, "abandon", "abandon-1", "--yes", "-o", "json")
    assert (ended.code, ended.json["state"], ended.json["left"]) == (0, "abandoned", ["charge"])
    assert saga(here, "watch", "abandon-1").code == 9


def test_pause_resume_cancel_and_what_is_told_without_waiting(here: Fabric) -> None:
    begun = saga(here, "submit", file(here, "holds"), "--input", "gate=one", "--no-wait")
    name = begun.out.strip()
    assert (begun.code, len(name)) == (0, 32)
    assert f"antiphon saga watch {name}" in begun.err
    paused = saga(here, "pause", name, "-o", "json")
    assert (paused.code, paused.json["state"]) == (0, "paused")
    assert saga(here, "resume", name).code == 0
    assert saga(here, "cancel", name, "--text", "enough").code == 0
    (here.data.parent / "one").touch()
    cause = shown(here, name, "compensated").cause
    assert cause is not None
    assert (cause.reason, cause.step) == ("cancelled", None)
    assert saga(here, "cancel", name).code == 2


def test_it_begins_later(here: Fabric) -> None:
    words = ("submit", file(here, "pays"), "--input", "user=ann", "--input", "cents=1")
    later = saga(here, *words, "--delay", "1h", "--id", "later-1")
    assert (later.code, later.out) == (0, "later-1\n")
    at = (datetime.now().astimezone() + timedelta(hours=2)).isoformat(timespec="seconds")
    assert saga(here, *words, "--at", at, "--id", "later-2").code == 0
    first = saga(here, "ls", "--state", "scheduled", "--limit", "1")
    assert first.out.startswith("later-1\t")
    assert (len(first.out.splitlines()), "--limit" in first.err) == (1, True)
    rows = [row.split("\t")[0] for row in saga(here, "ls", "--state", "scheduled").out.splitlines()]
    assert rows == ["later-1", "later-2"]

    async def cancel(client: Client) -> None:
        for name in rows:
            await client.saga(name).cancel()

    asked(here, cancel)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit", "/nowhere.toml"), 2, "invalid_saga"),
        (("submit", "FILE", "--input", "user"), 2, "name=value"),
        (("submit", "FILE", "--at", "tomorrow"), 2, "--at"),
        (("submit", "FILE", "--at", "0001-01-01"), 2, "--at"),
        (("submit", "FILE", "--input", "user=ann", "--input", "cents=1", "--at", "2300-01-01"), 2, "--at"),
        (("submit", "FILE", "--input", "user=ann", "--input", "cents=" + "[" * 20_000, *NOBODY), 7, "not_connected"),
        (("submit", "FILE", "--delay", "soon"), 2, "--delay"),
        (("submit", "FILE", "--input-file", "/nowhere.json"), 2, "--input-file"),
        (("submit", "FILE", "--id", "a.b", "--input", "user=ann", "--input", "cents=1"), 2, "id"),
        (("submit", "FILE", *NOBODY), 2, "the input has no such name"),
        (("submit", "FILE", "--input", "user=ann", "--input", "cents=1", *NOBODY), 7, "not_connected"),
        (("ls", "--state", "asleep"), 2, "usage"),
        (("resolve", "order", "--result", '{"id": '), 2, "--result"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    here: Fabric, words: tuple[str, ...], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process: nothing is asked of anybody."""
    assert run(["saga", *(file(here, "pays") if word == "FILE" else word for word in words)]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


def test_what_a_master_refuses_is_told_with_what_to_do(here: Fabric) -> None:
    nobody = saga(here, "show", "nobody")
    assert (nobody.code, nobody.out) == (2, "")
    assert "antiphon saga ls" in nobody.err
    unknown = saga(here, "submit", file(here, "pays"))
    assert (unknown.code, unknown.out) == (2, "")
    assert "invalid_saga: charge: " in unknown.err
    assert "no such saga" in saga(here, "ls", "--caller", "nobody").err


def test_validate_by_itself_and_against_the_fleet(here: Fabric) -> None:
    right = saga(here, "validate", file(here, "undone"), "--input", "user=ann")
    assert (right.code, right.out) == (0, "1\tcharge\n2\tsend\n")
    assert "not against" not in right.err
    wrong = saga(here, "validate", file(here, "wrong"))
    assert wrong.code == 2
    assert {tuple(row.split("\t")[:2]) for row in wrong.out.splitlines()} >= {
        ("fly", "unknown_action"),
        ("charge", "unknown_reference"),
    }
    alone = saga(here, "validate", file(here, "wrong"), "-o", "json", *NOBODY)
    assert (alone.code, alone.json["is_checked_by_master"]) == (2, False)
    assert {one["step"] for one in alone.json["problems"]} == {"charge"}
    assert "not against the nodes: not_connected" in alone.err
    assert saga(here, "validate", file(here, "pays"), *NOBODY).code == 0


class Terminal:
    """A command on a terminal of 80 columns, which is read and typed into."""

    def __init__(self, here: Fabric, *words: str) -> None:
        self.text = ""
        self._end, theirs = pty.openpty()
        os.set_blocking(self._end, False)
        environment = here.environment | {"TERM": "xterm", "COLUMNS": "80"}
        self.process = subprocess.Popen(
            [*ANTIPHON, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def read(self) -> str:
        with suppress(BlockingIOError, OSError):  # nothing now, or it has ended
            self.text += os.read(self._end, 65_536).decode(errors="replace")
        return self.text

    def answer(self, question: str, word: str) -> None:
        """Wait for a question, and type the answer."""
        until(lambda: question in self.read())
        os.write(self._end, f"{word}\n".encode())

    def code(self) -> int:
        end = time.monotonic() + BOUND_S
        while self.process.poll() is None:
            self.read()
            assert time.monotonic() < end, self.text
            time.sleep(0.01)
        self.read()
        os.close(self._end)
        return self.process.returncode


def test_a_person_sees_its_steps_and_may_leave_it_running(here: Fabric) -> None:
    words = ("saga", "submit", file(here, "holds"), "--input", "gate=two", "--id", "seen-1")
    watching = Terminal(here, *words)
    until(lambda: "waiting" in watching.read())
    assert "▸" in watching.text
    watching.process.send_signal(signal.SIGINT)
    assert watching.code() == 130
    assert "the saga goes on: `antiphon saga watch seen-1`" in watching.text
    (here.data.parent / "two").touch()
    shown(here, "seen-1", "completed")

    submitted(here, "bob", "seen-2")
    drawn = Terminal(here, "saga", "show", "seen-2", "--history")
    assert drawn.code() == 0
    for text in ("↺", "undo: refund", "undone", "turned back because send failed: declined: no such address"):
        assert text in drawn.text


def test_abandon_asks_a_person(here: Fabric) -> None:
    submitted(here, "ann", "asked-1")
    for answer, code in (("n", 1), ("y", 0)):
        terminal = Terminal(here, "saga", "abandon", "asked-1")
        terminal.answer("[y/N]", answer)
        assert terminal.code() == code
    shown(here, "asked-1", "abandoned")
