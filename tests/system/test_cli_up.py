"""`antiphon up` and `antiphon run` as real processes: once a data directory, again after kill -9, clean on SIGTERM."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import BOUND_S, Fabric, fabric, until


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
