"""`antiphon logs`: what processes on this machine have logged, kept within bounds, in order, by role and request."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from cli_process import Fabric, fabric, until

from antiphon import logs
from antiphon.kept_logs import FILES_MAX, LogFile, files


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Fabric]:
    with fabric(tmp_path) as made:
        yield made


def test_the_logs_of_all_processes_in_order(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# An outage\n")
    here.up()
    here.serve("folder", str(tmp_path / "docs"))
    until(lambda: "recorder.records" in here.run("logs", "--role", "recorder").out)
    events = [json.loads(line) for line in here.run("logs", "-o", "json").out.splitlines()]
    assert [one["at"] for one in events] == sorted(one["at"] for one in events)
    assert {one["role"] for one in events} == {"master", "recorder", "node-folder"}
    assert {"antiphon.up", "node.joined", "recorder.records"} <= {one["event"] for one in events}
    joined = next(one for one in events if one["event"] == "node.joined")
    assert here.run("logs", "--request", joined["instance"], "-n", "1").out.count("\n") == 1
    assert here.run("logs", "--level", "error").out == ""
    assert (here.data.stat().st_mode & 0o777, (here.data / "logs").stat().st_mode & 0o777) == (0o700, 0o700)


def test_what_is_shown_and_what_is_kept_have_levels_of_their_own(tmp_path: Path) -> None:
    shown = io.StringIO()
    kept = LogFile(tmp_path, "master")
    logs.configure("warning", stream=shown, keep=kept)
    log = structlog.get_logger("test")
    log.debug("not.kept")
    log.info("only.kept", request="r1")
    log.warning("both.ways", name="a\nb")
    assert [json.loads(line)["event"] for line in kept.path.read_text().splitlines()] == ["only.kept", "both.ways"]
    assert [json.loads(line)["event"] for line in shown.getvalue().splitlines()] == ["both.ways"]
    assert kept.path.stat().st_mode & 0o777 == 0o600


def test_files_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    kept = LogFile(tmp_path, "master", bytes_max=1_000)
    for number in range(100):
        kept.write(f'{{"number": {number}}}')
    assert len(files(tmp_path)) == 2
    assert all(path.stat().st_size <= 1_000 for path in files(tmp_path))
    assert files(tmp_path)[-1].read_text().endswith('{"number": 99}\n')
    for number in range(40):
        (tmp_path / f"old-{number}.jsonl").touch()
    LogFile(tmp_path, "recorder").write("{}")
    assert len(files(tmp_path)) == FILES_MAX


def test_a_folder_that_refuses_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    LogFile(tmp_path / "file" / "logs", "master").write("{}")
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [("file", 0)], "nothing was written"
