"""The laws of recording, from a memory server and from a real nats-server alike, into a real DuckDB file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from antiphon.actors.recording import Recording
from antiphon.actors.saga_book import SagaBook
from antiphon.bus.assets import breakers_of, facts_of, outcomes_of, sagas_of
from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Journal
from antiphon.decide.record_bounds import RecordingBounds
from antiphon.runtime.threads import Threads
from antiphon.stats.store import Store
from antiphon.stats.upkeep import Upkeep
from fabrics import Buses, NatsFabric, until
from records import message, searched

QUICK = RecordingBounds(wait_ms=5, retry_ms=5)


@asynccontextmanager
async def recording(bus: Bus, folder: Path, bounds: RecordingBounds = QUICK) -> AsyncIterator[Recording]:
    """A recording that runs; its store can be read once it has stopped."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240 - a test
    threads = Threads(1, "record")
    store = Store(folder, bus.prefix)
    made = Recording(bus, store, threads, Upkeep(store), bounds)
    await made.start()
    running = asyncio.ensure_future(made.run())
    try:
        yield made
    finally:
        await made.stop()
        running.cancel()
        await asyncio.wait({running})
        threads.stop(wait_s=10)


async def stream(bus: Bus, bytes_max: int = 10**8) -> Journal:
    return await bus.transport.journal(replace(facts_of(bus.prefix), bytes_max=bytes_max, message_bytes_max=100_000))


async def tell(bus: Bus, journal: Journal, *numbers: int) -> None:
    for number in numbers:
        subject = f"{bus.prefix}.v1.record.facts.master-1"
        assert await journal.append(subject, message(number, searched(number)).data) is not None


def requests(folder: Path, query: str = "SELECT request FROM requests ORDER BY seq, fact") -> list[tuple[object, ...]]:
    store = Store(folder, "antiphon")
    store.open(0)
    found = store.execute(query)
    store.close()
    return found


async def test_what_was_told_before_during_and_after_is_recorded_once(buses: Buses, tmp_path: Path) -> None:
    bus = await buses.open("master")
    journal = await stream(bus)
    await tell(bus, journal, 1, 2, 3)
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.rows == 12)
        await tell(bus, journal, 4)
        await until(lambda: made.rows == 16)
    await tell(bus, journal, 5)
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.rows == 4)
        assert made.lag == 0
    assert requests(tmp_path) == [(f"r{number}",) for number in range(1, 6)]


async def test_a_stream_that_is_not_there_yet_is_waited_for(
    buses: Buses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("antiphon.actors.recording.ABSENT_MS", 5)
    bus = await buses.open("master")
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.has_looked)
        await tell(bus, await stream(bus), 1)
        await until(lambda: made.rows == 4)


async def test_what_the_stream_gave_up_before_it_was_read_is_a_gap(buses: Buses, tmp_path: Path) -> None:
    bus = await buses.open("master")
    journal = await stream(bus, bytes_max=20_000)
    await tell(bus, journal, 1, 2)
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.rows == 8)
    await tell(bus, journal, *range(3, 60))
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.lag == 0 and made.rows > 0)
    [(first, last, reason)] = requests(tmp_path, "SELECT first_seq, last_seq, reason FROM gaps")
    assert (first, reason) == (3, "retention")
    found = [int(str(one)[1:]) for (one,) in requests(tmp_path)]
    assert found == [1, 2, *range(int(str(last)) + 1, 60)]


async def test_while_the_server_is_away_nothing_is_lost(losable: Buses, tmp_path: Path) -> None:
    bus = await losable.open("master")
    journal = await stream(bus)
    await tell(bus, journal, 1)
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.rows == 4)
        await losable.fabric.lose()
        await losable.fabric.bring_back()
        await tell(bus, journal, 2)
        await until(lambda: made.rows == 8)
    assert requests(tmp_path) == [("r1",), ("r2",)]


async def test_the_streams_of_sagas_are_read_too(buses: Buses, tmp_path: Path) -> None:
    bus = await buses.open("master")
    golden = Path(__file__).parents[1] / "golden" / "messages"
    chain = await bus.transport.journal(sagas_of(bus.prefix))
    outcomes = await bus.transport.journal(outcomes_of(bus.prefix))
    of = f"{bus.prefix}.v1"
    await chain.append(f"{of}.saga.s1.k.start", (golden / "SagaStarted.json").read_bytes())
    await chain.append(f"{of}.saga.s1.k.c.shop.1f", (golden / "StepCommanded.json").read_bytes())
    await outcomes.append(f"{of}.outcome.s1.1f.shop", (golden / "StepOutcome.json").read_bytes())
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.rows == 3)
        await chain.purge(f"{of}.saga.s1.k.c.>")
        await chain.append(f"{of}.saga.s1.k.end", (golden / "SagaEnded.json").read_bytes())
        await until(lambda: made.rows == 4)
    found = requests(tmp_path, "SELECT event FROM saga_events ORDER BY ts, seq")
    assert sorted(str(one) for (one,) in found) == ["commanded", "ended", "outcome", "started"]
    assert requests(tmp_path, "SELECT count(*) FROM gaps") == [(0,)]


async def test_sagas_of_every_shard_are_recorded(buses: Buses, tmp_path: Path) -> None:
    bus = await buses.open("master")
    book = await SagaBook.open(bus, keep_ms=1_000, shards=3, bytes_max=10**8)
    started = (Path(__file__).parents[1] / "golden" / "messages" / "SagaStarted.json").read_bytes()
    names = [f"s{number}" for number in range(20)]
    for name in names:
        shard = book.shard(name)
        assert await shard.sagas.append(shard.of(name, "k.start"), started) is not None
    async with recording(bus, tmp_path, replace(QUICK, shards=3)) as made:
        await until(lambda: made.rows == len(names))
        assert made.dead == 0
    found = requests(tmp_path, "SELECT saga FROM saga_events WHERE event = 'started'")
    assert sorted(str(one) for (one,) in found) == sorted(names)
    assert len(requests(tmp_path, "SELECT stream FROM stream_position WHERE seq > 0")) == 3


async def test_what_has_gathered_is_read_at_once_however_few_rows_a_message_has(buses: Buses, tmp_path: Path) -> None:
    bus = await buses.open("master")
    await tell(bus, await stream(bus), *range(1, 36))
    for name, bounds in (("messages", {"messages_max": 10}), ("bytes", {"bytes_max": 8_000})):
        slow = replace(RecordingBounds(wait_ms=3_600_000), **bounds)
        async with recording(bus, tmp_path / name, slow) as made:
            await until(lambda: made.rows == 140)


async def test_what_masters_write_into_their_buckets_is_recorded_as_the_server_has_it(
    nats_server: str, tmp_path: Path
) -> None:
    buses = Buses(NatsFabric(nats_server))
    bus = await buses.open("master")
    bucket = await bus.transport.key_value(breakers_of(bus.prefix))
    first = await bucket.update("blog.search", b'{"state": "open"}', 0)
    assert first is not None
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.rows == 1)
        assert await bucket.drop("blog.search", first) is not None
        await until(lambda: made.rows == 2 and made.lag == 0)
    found = requests(tmp_path, "SELECT bucket, entry, operation, value FROM bucket_writes ORDER BY seq")
    assert found == [
        ("breakers", "blog.search", "put", '{"state": "open"}'),
        ("breakers", "blog.search", "delete", None),
    ]
    async with recording(bus, tmp_path) as made:
        await until(lambda: made.has_looked and made.lag == 0)
        assert made.rows == 0, "each once"
    await buses.close()
