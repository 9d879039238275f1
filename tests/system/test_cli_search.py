"""`antiphon search` as a real process: every exit code, every output, hostile answers, closed pipes."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import ANTIPHON, BOUND_S, Fabric, fabric, until

HOSTILE = r"""return [Hit(id="1", title="\x1b]0;pwned\x07\x1b[31mred\u202eder", url="http://x/\x1b[2J",
        snippet="one\r\ntwo\x9b31m three [bold]four[/bold] hostile")]"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("search")
    docs = folder / "docs"
    docs.mkdir()
    for number in range(30):
        (docs / f"{number:02}.md").write_text(f"# Psalm {number}\n\nThe choir answers the cantor, verse {number}.\n")
    with fabric(folder) as made:
        made.up()
        made.serve("folder", str(docs), "--name", "choir")
        made.script("hostile", HOSTILE)
        made.script("broken", "raise ValueError('a secret')")
        yield made


def test_answered_is_0_and_says_who_did_not_answer(here: Fabric) -> None:
    done = here.run("search", "choir", "--limit", "3")
    assert done.code == 0
    assert "Psalm" in done.out
    assert "\x1b" not in done.out
    assert "2/3 nodes in" in done.err
    assert "no answer: broken (failed: handler_failed)" in done.err
    assert "secret" not in done.err
    cursor = done.err.split("--cursor ")[1].strip()
    following = here.run("search", "--cursor", cursor, "-o", "json")
    assert following.code == 0
    assert following.json["offset"] == 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "malformed"),
        (("",), 2, "malformed"),
        (("x\x1b",), 2, "control character"),
        (("\udcff",), 2, "unicode"),
        (("choir", "--deadline", "0"), 2, "--deadline"),
        (("choir", "--deadline", "-5"), 2, "--deadline"),
        (("choir", "--limit", "0"), 2, "--limit"),
        (("choir", "--min-coverage", "1.5"), 2, "--min-coverage"),
        (("choir", "--min-coverage", "nan"), 2, "usage"),
        (("x" * 5_000,), 2, "malformed"),
        (("choir", "--limit", "1000"), 2, "--limit"),
        (("choir", "--limit", "many"), 2, "usage"),
        (("choir", "--bogus"), 2, "no option --bogus"),
        (("choir", "-o", "xml"), 2, "usage"),
        (("choir", "--nodes", "nobody"), 2, "unknown_node"),
        (("choir", "--fusion", "nothing"), 2, "unknown_method"),
        (("--cursor", "master.0123.3"), 2, "cursor_expired"),
        (("choir", "--cursor", "master.0123.3"), 2, "malformed"),
        (("choir", "--min-coverage", "1"), 3, "broken (failed"),
        (("choir", "--required", "broken"), 3, "broken (failed"),
        (("choir", "--min-coverage", "1", "--optional", "broken"), 0, "2/3 nodes"),
        (("choir", "--nodes", "broken"), 4, "0/1 nodes"),
        (("choir", "--nats", "nats://127.0.0.1:1"), 7, "not_connected"),
        (("choir", "--nats", "nonsense://"), 2, "invalid_setting"),
        (("choir", "--context", "nowhere"), 2, "invalid_setting"),
    ],
)
def test_exit_codes(here: Fabric, words: tuple[str, ...], code: int, said: str) -> None:
    done = here.run("search", *words)
    assert (done.code, said in done.err) == (code, True), done
    assert "Traceback" not in done.err
    if code in (2, 7):
        assert done.out == ""


def test_nobody_is_4_where_no_master_listens(here: Fabric, nats_server: str) -> None:
    done = here.run("search", "choir", "--nats", nats_server)
    assert done.code == 4
    assert "no_responders" in done.err


def test_the_deadline_is_5(tmp_path: Path) -> None:
    with fabric(tmp_path) as made:
        url = made.open_server()  # where a master would be asked who comes in, nobody came in
        master = made.start("run", "master", "--open", "--nats", url)
        until(lambda: '"master.serves"' in made.log(master))
        master.send_signal(signal.SIGSTOP)
        done = made.run("search", "choir", "--deadline", "300", "--nats", url)
        assert done.code == 5, done
        assert "no answer within 300 ms" in done.err


def test_no_nodes_is_4(tmp_path: Path) -> None:
    with fabric(tmp_path) as made:
        made.up()
        done = made.run("search", "choir")
        assert done.code == 4, done
        assert "no node has joined" in done.err


def test_data_is_parseable(here: Fabric) -> None:
    answer = here.run("search", "choir", "-o", "json", "--explain")
    assert answer.json["coverage"]["expected"] == 3
    assert answer.json["hits"][0]["explain"]
    assert answer.err == ""
    lines = [json.loads(line) for line in here.run("search", "choir", "-o", "jsonl").out.splitlines()]
    assert [hit["rank"] for hit in lines] == list(range(1, 11))
    rows = list(csv.DictReader(io.StringIO(here.run("search", "choir", "-o", "csv").out)))
    assert [row["title"] for row in rows] == [hit["doc"]["title"] for hit in lines]


def test_a_question_without_quotes(here: Fabric) -> None:
    done = here.run("search", "the", "choir", "-n", "2", "answers", "-o", "json")
    assert (done.json["query"], len(done.json["hits"])) == ("the choir answers", 2)


def test_a_question_from_stdin(here: Fabric) -> None:
    assert here.run("search", "-", "-o", "json", stdin="choir\n").json["query"] == "choir"
    assert here.run("search", "-", stdin=b"\xff\xfe").code == 2
    assert here.run("search", "-", stdin=b"x" * 100_000).code == 2


def on_a_terminal(here: Fabric, *words: str, **environment: str) -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*ANTIPHON, *words],
        env=here.environment | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    with os.fdopen(ours, "rb", buffering=0) as screen:
        while True:
            try:
                part = screen.read(65_536)
            except OSError:  # Linux's word for the end of a pseudo-terminal
                break
            if not part:
                break
            seen += part
    process.wait(BOUND_S)
    return seen.decode()


@pytest.mark.parametrize("output", ["table", "json", "jsonl", "csv"])
def test_a_hostile_node_cannot_drive_the_terminal(here: Fabric, output: str) -> None:
    for seen in (
        on_a_terminal(here, "search", "hostile", "--nodes", "hostile", "-o", output),
        here.run("search", "hostile", "--nodes", "hostile", "-o", output).out,
    ):
        assert "\x1b]" not in seen
        assert "\x1b[31m" not in seen
        assert "\x1b[2J" not in seen
        assert "\x9b" not in seen
        assert "\x07" not in seen
        assert "pwned" in seen, "what is not harmful is shown"
        if output in ("table", "csv"):
            assert "\u202e" not in seen
            assert "[bold]four[/bold]" in seen, "markup of the terminal library is only text"


def test_matches_are_marked_on_a_terminal(here: Fabric) -> None:
    seen = on_a_terminal(here, "search", "choirs", "-n", "1")
    assert "\x1b[1;33mchoir\x1b[0m" in seen, "other forms of the word are matches, too"
    plain = on_a_terminal(here, "search", "choirs", "-n", "1", NO_COLOR="1")
    assert "\x1b[33m" not in plain
    assert "1;33" not in plain
    assert "\x1b[1;4mchoir\x1b[0m" in plain, "without colour a match is underlined"
    title = on_a_terminal(here, "search", "psalm", "-n", "1", NO_COLOR="1")
    assert "\x1b[1;4mPsalm\x1b[0m" in title, "also in a title, which is bold as a whole"
    dumb = on_a_terminal(here, "search", "choir", "-n", "1", TERM="dumb")
    assert "*choir*" in dumb
    assert "\x1b" not in dumb
    narrow = on_a_terminal(here, "search", "choirs", "-n", "1", COLUMNS="40")
    assert "Psalm" in narrow


def test_a_closed_pipe_is_quiet(here: Fabric) -> None:
    command = " ".join([*ANTIPHON, "search", "choir", "-n", "100", "-o", "jsonl"])
    script = f"{command} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env=here.environment, capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 1, "Bad file descriptor"),
        ("2>&-", 0, ""),
        ("<&- >/dev/null", 0, "nodes in"),
        (">/dev/full", 1, "No space left"),
    ],
)
def test_streams_that_cannot_be_written(here: Fabric, redirection: str, code: int, said: str) -> None:
    command = " ".join([*ANTIPHON, "search", "choir", redirection])
    done = subprocess.run(
        ["bash", "-c", command], env=here.environment, capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    assert (done.returncode, said in done.stderr) == (code, True), done
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    with fabric(tmp_path) as made:
        master = made.up()
        master.send_signal(signal.SIGSTOP)
        asking = made.start("search", "choir", "--deadline", "30000")
        # It asks once it is connected, which the server knows; that it has begun is all that is needed here.
        with pytest.raises(subprocess.TimeoutExpired):
            asking.wait(2)
        asking.send_signal(signal.SIGINT)
        assert asking.wait(BOUND_S) == 130
        assert made.log(asking) == ""
