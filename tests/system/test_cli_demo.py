"""`antiphon demo` as a real run: five node processes, merged sources, one demo a directory, nothing left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import BOUND_S, Fabric, fabric, until

from antiphon.bus.process import command_line


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Fabric]:
    with fabric(tmp_path) as made:
        yield made


def test_once_as_json(here: Fabric) -> None:
    done = here.run("demo", "--once", "-o", "json")
    assert done.code == 0, done.err
    assert done.err == ""
    document = done.json
    assert len(document["answers"]) == 3
    assert len(document["nodes"]) == 5
    assert len({one["node"] for one in document["nodes"]}) == 4
    for answer in document["answers"]:
        assert answer["complete"]
        assert answer["coverage"]["answered"] == 4
        assert answer["hits"]
    hits = [hit for answer in document["answers"] for hit in answer["hits"]]
    assert len({hit["node"] for hit in hits}) > 1
    assert any(hit["also"] for hit in hits), "what lies on two nodes is shown once, with both"
    first = document["answers"][0]["hits"]
    assert first[0]["doc"]["title"].startswith("json"), "and the answer is a good one"
    marks = document["since_start_ms"]
    print({name: f"{ms} ms" for name, ms in marks.items()})
    assert list(marks) == sorted(marks, key=marks.__getitem__)


def test_a_question_of_ones_own(here: Fabric) -> None:
    done = here.run("demo", "read a csv file", "--once")
    assert done.code == 0, done.err
    assert "? read a csv file" in done.out
    assert "csv" in done.out
    assert "4/4 nodes in" in done.err
    assert "first answer" in done.err


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.split()
    return [int(one) for one, parent in zip(found[::2], found[1::2], strict=True) if int(parent) == pid]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_stays_up_and_leaves_nothing(here: Fabric, how: signal.Signals) -> None:
    demo = here.start("demo")
    until(lambda: "stays up" in here.log(demo) or demo.poll() is not None)
    found = here.run("search", "compress data with gzip", "-o", "json")
    assert found.code == 0, "found without being told where, although it is not the user's own server"
    assert found.json["coverage"]["answered"] == 4
    second = here.run("demo")
    assert second.code == 6
    assert f"process {demo.pid}" in second.err

    family = children(demo.pid)
    assert len(family) == 7, "the server, five nodes and the recorder"
    until(lambda: "compress data with gzip" in here.run("requests", "tail").out)
    asked = [line.rpartition("\t")[2] for line in here.run("requests", "tail").out.splitlines()]
    assert len(asked) == 4, "its own questions are recorded, too"
    demo.send_signal(how)
    assert demo.wait(BOUND_S) == (-how if how is signal.SIGKILL else 0)
    if how is not signal.SIGKILL or sys.platform == "linux":
        until(lambda: not any(command_line(pid) for pid in family))
    assert "Traceback" not in here.log(demo)
    if how is signal.SIGKILL:
        assert here.run("demo", "gzip", "--once", "-o", "json").code == 0, "and the next one works"
