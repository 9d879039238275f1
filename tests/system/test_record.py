"""The record of real processes: `antiphon up` with its recorder, one writer, a full disk, a stream made again."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import nats
import pytest
from benchmarks.stats import recorder
from benchmarks.stats.kills import counted
from cli_process import Fabric, fabric, until

from antiphon.actors.recording import Recording
from antiphon.bus.assets import facts_of
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import resolve
from antiphon.bus.server import EmbeddedServer
from antiphon.decide.record_bounds import RecordingBounds
from antiphon.messages.facts import InstanceChanged
from antiphon.messages.records import FACTS
from antiphon.runtime.threads import Threads
from antiphon.stats.store import Store
from antiphon.stats.upkeep import Upkeep
from fabrics import until as wait_until
from records import message, searched


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Fabric]:
    with fabric(tmp_path) as made:
        yield made


def seen(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What an analyst finds in the newest snapshot; nothing before there is one."""
    place = folder / "antiphon.duckdb"
    if not place.exists():
        return []
    with duckdb.connect(str(place), read_only=True) as opened:
        return opened.execute(query).fetchall()


def recorder_of(process: int) -> int | None:
    """The pid of the recorder that a process has started."""
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        if "\0run\0recorder\0" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    return None


def test_up_records_what_happens_and_ends_its_recorder(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# An outage\n\nWhat it taught.\n")
    up = here.up()
    here.serve("folder", str(tmp_path / "docs"))
    assert here.run("search", "outage").code == 0
    record = here.data / "stats"
    query = "SELECT r.query, n.node, n.outcome FROM requests r JOIN node_replies n USING (request)"
    until(lambda: seen(record, query) == [("outage", "docs", "answered")])
    assert seen(record, "SELECT DISTINCT change FROM registry_events WHERE node = 'docs'") == [("joined",)]
    pid = recorder_of(up.pid)
    assert pid is not None
    up.send_signal(signal.SIGTERM)
    assert up.wait(40) == 0, here.log(up)
    assert not Path(f"/proc/{pid}").exists()
    assert "companion" not in here.log(up)


def test_a_recorder_that_is_killed_is_started_again(here: Fabric) -> None:
    up = here.up()
    record = here.data / "stats"
    until(lambda: bool(seen(record, "SELECT 1")))
    first = recorder_of(up.pid)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: recorder_of(up.pid) not in (None, first))
    here.run("search", "anything")
    until(lambda: seen(record, "SELECT query FROM requests") == [("anything",)])


def test_one_recorder_writes_in_a_folder(here: Fabric) -> None:
    up = here.up()
    until(lambda: bool(seen(here.data / "stats", "SELECT 1")))
    assert recorder_of(up.pid) is not None
    second = here.run("run", "recorder")
    assert second.code == 6
    assert "another recorder writes in" in second.err


def test_a_second_recorder_elsewhere_is_a_full_copy(here: Fabric, tmp_path: Path) -> None:
    here.up()
    here.run("search", "first")
    here.start("run", "recorder", "--record", str(tmp_path / "copy"))
    query = "SELECT query FROM requests"
    until(lambda: seen(tmp_path / "copy", query) == seen(here.data / "stats", query) == [("first",)])


def test_without_keys_a_recorder_has_to_be_told_to_answer_everybody(here: Fabric, tmp_path: Path) -> None:
    done = here.run("run", "recorder", "--nats", "nats://127.0.0.1:1", "--record", str(tmp_path / "open"))
    assert done.code == 2
    assert "a recorder needs the fabric's keys" in done.err
    assert not (tmp_path / "open").exists()


def test_nothing_of_the_record_is_for_others_whatever_its_folder(here: Fabric, tmp_path: Path) -> None:
    folder = tmp_path / "shown"
    folder.mkdir(mode=0o755)
    (folder / "note.txt").write_text("it was there before")
    here.environment |= {"ANTIPHON_RECORD_SEAL_MS": "100", "ANTIPHON_RECORD_QUERIES": "hashed"}
    here.up()
    here.start("run", "recorder", "--record", str(folder))
    here.run("search", "anything")
    until(lambda: bool(list(folder.glob("segments/*.parquet"))) and seen(folder, "SELECT 1 FROM requests") == [(1,)])
    modes = {path.name: path.stat().st_mode & 0o077 for path in folder.rglob("*") if path.name != "note.txt"}
    assert {name for name, mode in modes.items() if mode} == set()
    assert "query.key" in modes


def test_up_without_a_recorder(here: Fabric) -> None:
    here.environment["ANTIPHON_RECORD"] = "false"
    up = here.up()
    assert recorder_of(up.pid) is None
    assert not (here.data / "stats").exists()


def facts(made: recorder.Fabric, first: int, count: int) -> None:
    now_ms = time.time_ns() // 1_000_000
    for number in range(first, first + count):
        made.facts.tell(InstanceChanged(at_ms=now_ms, node="kill-loop", instance=f"i{number}", change="updated"))


async def test_a_full_disk_degrades_with_an_alarm_and_loses_nothing(tmp_path: Path) -> None:
    async with recorder.fabric(tmp_path) as made:
        await made.until(lambda one: one.state == "recording", 60)
        facts(made, 0, 50)
        await made.caught_up()
        resource.prlimit(made.process.pid, resource.RLIMIT_FSIZE, (16 * 1024, resource.RLIM_INFINITY))
        facts(made, 50, 2_000)
        degraded = await made.until(lambda one: one.state == "degraded", 60)
        assert degraded.reason
        resource.prlimit(made.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await made.until(lambda one: one.state == "recording", 60)
        await made.caught_up()
    count = counted(made.record)
    assert (count.rows, count.distinct, count.gaps, count.dead) == (2_050, 2_050, 0, 0)


async def test_a_stream_that_is_made_again_is_seen(tmp_path: Path) -> None:
    async with recorder.fabric(tmp_path) as made:
        await made.until(lambda one: one.state == "recording", 60)
        facts(made, 0, 50)
        await made.caught_up()
        client = await nats.connect(made.server.url)
        await client.jetstream().delete_stream("antiphon-facts")
        await client.close()
        made.keeper._journal = None  # a master that starts anew would make it; this one is told to
        facts(made, 50, 50)
        await made.until(lambda one: one.gaps == 1, 60)
        await made.caught_up()
    count = counted(made.record)
    assert (count.rows, count.distinct, count.gaps) == (100, 100, 1)


async def test_a_stream_that_is_gone_is_looked_for_in_every_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.actors.recording.ABSENT_MS", 3_600_000)
    async with await EmbeddedServer.start(tmp_path / "server") as server:
        bus = await connect("master", endpoint=resolve(server.url))
        client = await nats.connect(server.url)
        store, threads = Store(tmp_path, bus.prefix), Threads(1, "record")
        made = Recording(bus, store, threads, Upkeep(store), RecordingBounds(wait_ms=5))

        async def tell(number: int) -> None:
            journal = await bus.transport.journal(facts_of(bus.prefix))
            subject = f"{bus.prefix}.v1.record.facts.master"
            assert await journal.append(subject, message(number, searched(number)).data)

        await tell(1)
        await made.start()
        running = asyncio.ensure_future(made.run())
        await wait_until(lambda: made.rows == 4)
        await client.jetstream().delete_stream(facts_of(bus.prefix).name)
        await wait_until(lambda: made._absent.get(FACTS) is not None, 20)  # a read that nobody answers comes first
        await tell(2)
        await wait_until(lambda: made.rows == 8)
        await made.stop()
        running.cancel()
        await asyncio.wait({running})
        threads.stop(wait_s=10)
        await client.close()
        await bus.close()
