"""The store on a real DuckDB file: rows and position together, dead facts, sealing, merging, snapshots, privacy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from antiphon.decide.record_rows import KINDS
from antiphon.decide.record_tables import TABLES
from antiphon.errors import InvalidSetting, RecordUnwritable
from antiphon.messages import catalogue
from antiphon.messages.base import Fact
from antiphon.messages.facts import READERS
from antiphon.messages.records import FACTS
from antiphon.stats import schema, segments, snapshot
from antiphon.stats.privacy import hidden
from antiphon.stats.store import Store
from antiphon.stats.views import VIEWS
from records import NOW_MS, message, rows, searched, store_in, write

ROOT = Path(__file__).parents[2]
HOUR_MS = 3_600_000
OLDER_FORMAT = 68
"""What DuckDB 1.5 writes, and so can read; 2.0 writes another one by default."""
EXAMPLES = sorted(
    path for path in (ROOT / "tests/golden/messages").glob("*.json") if path.name.partition(".")[0] in KINDS
)


def test_every_fact_that_masters_keep_has_rows() -> None:
    kept = {
        name
        for name, kind in catalogue().items()
        if issubclass(kind, Fact) and kind.route.read_by == READERS and name != "RecorderReported"
    }
    assert kept == set(KINDS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_golden_fact_becomes_rows(path: Path, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    count, dead = write(store, message(1, (path.name.partition(".")[0], path.read_bytes())))
    assert count > 0
    assert dead == 0, rows(store, "SELECT reason FROM dead_facts")
    store.close()


def test_a_search_is_a_row_and_a_row_for_each_node(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert write(store, message(1, searched(1), searched(2, caller="shop"))) == (8, 0)
    found = rows(
        store, "SELECT request, caller, query, took_us, expected, writer, seq, fact FROM requests ORDER BY fact"
    )
    assert found == [
        ("r1", "web", "outage", 4_000, 3, "master-1", 1, 0),
        ("r2", "shop", "outage", 4_000, 3, "master-1", 1, 1),
    ]
    replies = rows(
        store, "SELECT node, hits, contributed, took_us FROM node_replies WHERE request = 'r1' ORDER BY node"
    )
    assert replies == [("n0", 5, 3, 1_000), ("n1", 5, 2, 2_000), ("n2", 5, 0, 3_000)]
    store.close()


def test_rows_and_position_are_one(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    write(store, message(1, searched(1)))
    with pytest.raises(duckdb.Error):
        half_written(store)
    store.close()
    again = store_in(tmp_path)
    assert again.positions[FACTS].sequence == 1
    assert rows(again, "SELECT count(*) FROM fact_losses") == [(0,)]
    again.close()


def half_written(store: Store) -> None:
    """Write a row that is good, then one that no table takes, in one transaction."""
    with store.transaction():
        store._write({"fact_losses": [(None,) * 6]}, FACTS, store.positions[FACTS], NOW_MS)
        store._write({"fact_losses": [("no time", *(None,) * 5)]}, FACTS, store.positions[FACTS], NOW_MS)


def test_a_poisoned_fact_is_dead_with_its_bytes_and_stops_nobody(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    poisoned = b'{"request": 1, "query": true}'
    stranger = b'{"x":  1}'
    poison = message(1, searched(1), ("SearchFinished", poisoned), ("Unheard", stranger), searched(2))
    broken = message(2)
    broken = type(broken)(broken.subject, 2, b"\xff{nonsense", NOW_MS)
    assert write(store, poison, broken, message(3, searched(3)))[1] == 3
    dead = rows(store, "SELECT seq, fact, kind, bytes FROM dead_facts ORDER BY seq, fact")
    assert dead == [
        (1, 1, "SearchFinished", poisoned),
        (1, 2, "Unheard", stranger),
        (2, 0, "FactsKept", b"\xff{nonsense"),
    ]
    assert rows(store, "SELECT request FROM requests ORDER BY seq, fact") == [("r1",), ("r2",), ("r3",)]
    store.close()


@pytest.mark.parametrize(
    ("name", "value"), [("hits", 2**31), ("total", 2**63), ("took_us", 2**70), ("delegate", "a" * 50), ("at_ms", 2**60)]
)
def test_a_fact_that_no_column_holds_takes_no_other_with_it(tmp_path: Path, name: str, value: object) -> None:
    store = store_in(tmp_path)
    told = json.loads(searched(2).model_dump_json())
    poisoned = json.dumps(told | {name: value}).encode()
    messages = [message(at, searched(100 + at), searched(200 + at)) for at in range(1, 6)]
    messages[2] = message(3, searched(1), ("SearchFinished", poisoned), searched(3))
    dead = write(store, *messages)[1]
    assert dead == (0 if name == "delegate" else 1)
    assert rows(store, "SELECT bytes FROM dead_facts") == [(poisoned,)] * dead
    assert rows(store, "SELECT count(DISTINCT request) FROM requests") == [(11 - dead,)]
    assert rows(store, "SELECT fact FROM requests WHERE request = 'r3'") == [(2,)]
    assert store.positions[FACTS].sequence == 5
    store.close()


def test_what_the_tables_refuse_is_dead_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    refused = Refusing(store, "r2")
    monkeypatch.setattr(store, "_write", refused)
    assert write(store, *(message(at, searched(at)) for at in (1, 2, 3)))[1] == 1
    assert rows(store, "SELECT request FROM requests ORDER BY seq") == [("r1",), ("r3",)]
    assert rows(store, "SELECT seq FROM dead_facts") == [(2,)]
    store.close()


class Refusing:
    """The store's own writing, but the table takes no row of one request."""

    def __init__(self, store: Store, request: str) -> None:
        self.write = store._write
        self.request = request

    def __call__(self, some: dict[str, list[tuple[Any, ...]]], *rest: Any) -> None:
        if any(self.request in row for row in some.get("requests", ())):
            some = {"requests": [("no time", *row[1:]) for row in some["requests"]]}
        self.write(some, *rest)


def test_sealed_rows_are_in_exactly_one_place(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    write(store, *(message(at, searched(at)) for at in range(1, 11)))
    assert segments.seal(store, NOW_MS) == 40
    assert store.open_rows == 0
    write(store, *(message(at, searched(at)) for at in range(11, 16)))
    snapshot.write(store, NOW_MS)
    assert seen(tmp_path, "SELECT count(*), count(DISTINCT request) FROM requests") == [(15, 15)]
    assert seen(tmp_path, "SELECT requests, p50_ms FROM requests_per_minute") == [(15, pytest.approx(4, rel=0.03))]
    store.close()


def test_a_file_that_no_transaction_knows_is_swept(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    write(store, message(1, searched(1)))
    (store.segments / "requests-1-0-0.parquet").write_bytes(b"left by a kill")
    (store.segments / "requests-2-0-0.new").write_bytes(b"half")
    assert segments.sweep(store) == 2
    segments.seal(store, NOW_MS)
    assert segments.sweep(store) == 0
    store.close()


def test_small_segments_of_past_hours_become_one_and_old_files_wait_for_readers(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for at in range(1, 5):
        write(store, message(at, searched(at)))
        segments.seal(store, NOW_MS + at)
    snapshot.write(store, NOW_MS)
    opened = duckdb.connect(str(tmp_path / "antiphon.duckdb"), read_only=True)
    assert segments.compact(store, NOW_MS + HOUR_MS, 1_000) == 12
    assert segments.discard(store, NOW_MS + HOUR_MS) == 0
    assert opened.execute("SELECT count(*) FROM requests").fetchall() == [(4,)], "an open snapshot goes on"
    opened.close()
    snapshot.write(store, NOW_MS)
    assert seen(tmp_path, "SELECT count(*) FROM requests") == [(4,)]
    assert seen(tmp_path, "SELECT requests FROM requests_per_minute") == [(4,)]
    assert segments.discard(store, NOW_MS + 2 * HOUR_MS) == 12
    assert len(list(store.segments.iterdir())) == 3
    assert seen(tmp_path, "SELECT count(*) FROM node_replies") == [(12,)]
    store.close()


def test_rows_are_kept_so_long_and_roll_ups_for_ever(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    write(store, message(1, searched(1)))
    segments.seal(store, NOW_MS)
    assert segments.expire(store, NOW_MS + 91 * 24 * HOUR_MS, 90 * 24 * HOUR_MS) == 2
    snapshot.write(store, NOW_MS)
    assert seen(tmp_path, "SELECT count(*) FROM requests") == [(0,)]
    assert seen(tmp_path, "SELECT requests FROM requests_per_minute") == [(1,)]
    store.close()


def test_the_snapshot_has_every_table_and_view_in_the_older_format(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    write(store, message(1, searched(1)))
    place = snapshot.write(store, NOW_MS)
    for name in (*TABLES, *VIEWS, "stream_position", "schema_version"):
        assert seen(tmp_path, f"SELECT count(*) >= 0 FROM {name}") == [(True,)], name
    head = place.read_bytes()[:20]
    assert (head[8:12], int.from_bytes(head[12:20], "little")) == (b"DUCK", OLDER_FORMAT)
    store.close()


def test_a_snapshot_opens_one_segment_of_each_table_however_many_there_are(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for at in range(1, 6):
        write(store, message(at, searched(at)))
        segments.seal(store, NOW_MS + at)
    snapshot.write(store, NOW_MS)
    assert seen(tmp_path, "SELECT count(*) FROM requests") == [(5,)]
    kept = {path: path.read_bytes() for path in store.segments.iterdir() if f"-{NOW_MS + 1}-" not in path.name}
    assert len(kept) == 12
    for path in kept:
        path.write_bytes(b"not to be opened by whoever only names it")
    snapshot.write(store, NOW_MS)
    for path, data in kept.items():
        path.write_bytes(data)
    assert seen(tmp_path, "SELECT sum(requests) FROM requests_per_minute") == [(5,)]
    store.close()


def test_the_recent_file_has_a_day_and_names_no_other_file(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    write(store, message(1, searched(1, at_ms=NOW_MS - 25 * HOUR_MS), searched(2)))
    segments.seal(store, NOW_MS)
    snapshot.write(store, NOW_MS)
    place = snapshot.recent(tmp_path, tmp_path / "recent.duckdb", NOW_MS, 100)
    store.close()
    with duckdb.connect(str(place), read_only=True, config={"enable_external_access": False}) as opened:
        assert opened.execute("SELECT request FROM requests").fetchall() == [("r2",)]
        assert opened.execute("SELECT sum(requests) FROM requests_per_minute").fetchall() == [(2,)]
        assert opened.execute("SELECT count(*) FROM duckdb_views() WHERE sql LIKE '%parquet%'").fetchall() == [(0,)]


def test_a_file_of_a_newer_antiphon_is_refused(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.execute("INSERT INTO schema_version VALUES (?, NULL)", [schema.VERSION + 1])
    store.close()
    with pytest.raises(InvalidSetting, match="newer"):
        store_in(tmp_path)


def test_a_file_that_cannot_be_opened_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "hot.duckdb").write_bytes(b"x" * 20_000)
    with pytest.raises(RecordUnwritable):
        store_in(tmp_path)


def test_a_query_is_kept_hashed_or_not_at_all(tmp_path: Path) -> None:
    digest = hidden("hashed", tmp_path)
    assert digest("outage") == hidden("hashed", tmp_path)("outage") != digest("outages")
    other = tmp_path / "other"
    other.mkdir()
    assert hidden("hashed", other)("outage") != digest("outage")
    store = store_in(tmp_path, hidden("none", tmp_path))
    write(store, message(1, searched(1)))
    assert rows(store, "SELECT query FROM requests") == [(None,)]
    store.close()


def seen(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """What an analyst finds in the snapshot."""
    with duckdb.connect(str(folder / "antiphon.duckdb"), read_only=True) as opened:
        return opened.execute(query).fetchall()


def test_the_golden_examples_are_facts() -> None:
    assert len(EXAMPLES) >= len(KINDS)
    assert all(json.loads(path.read_bytes()) for path in EXAMPLES)


def test_a_record_of_an_older_antiphon_is_brought_forward_with_what_was_sealed(
    tmp_path: Path,
) -> None:
    added = ("reply_bytes", "hedge", "wasted_us", "cached")
    store = store_in(tmp_path)
    write(store, message(1, searched(1)))
    for column in added:  # as version 1 was
        store.execute(f"ALTER TABLE node_replies DROP COLUMN {column}")
    store.execute("UPDATE schema_version SET version = 1")
    segments.seal(store, NOW_MS)
    store.close()

    newer = store_in(tmp_path)
    for (file,) in rows(newer, "SELECT file FROM segments WHERE name = 'node_replies'"):
        place = newer.segments / str(file)
        older = f"SELECT * EXCLUDE ({', '.join(added)}) FROM read_parquet('{place}')"
        newer.execute(f"COPY ({older}) TO '{tmp_path}/older.parquet'")
        (tmp_path / "older.parquet").replace(place)
    newer.execute("UPDATE segments SET version = NULL")  # as they were registered then
    write(newer, message(2, searched(2)))
    assert rows(newer, "SELECT max(version) FROM schema_version") == [(schema.VERSION,)]
    snapshot.write(newer, NOW_MS)
    found = seen(tmp_path, f"SELECT request, {', '.join(added)} FROM node_replies WHERE node = 'n0' ORDER BY request")
    assert found == [("r1", None, None, None, None), ("r2", 0, None, 0, False)]
    segments.seal(newer, NOW_MS + 1_000)
    assert segments.compact(newer, NOW_MS + 30 * HOUR_MS, 1_000_000) > 0
    snapshot.write(newer, NOW_MS)
    assert seen(tmp_path, "SELECT count(*), count(cached) FROM node_replies") == [(6, 3)]
    assert [name for name in VIEWS if not seen(tmp_path, f"SELECT count(*) >= 0 FROM {name}")] == []
    newer.close()


def test_hedges_are_counted_with_what_they_cost(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    first, second, third = searched(1, nodes=1), searched(2, nodes=1), searched(3, nodes=1)
    [line] = first.nodes
    won = line.model_copy(update={"hedge": "won", "wasted_us": 40_000, "reply_bytes": 900})
    lost = line.model_copy(update={"hedge": "lost", "wasted_us": 2_000, "reply_bytes": 100})
    write(
        store,
        message(1, first.model_copy(update={"nodes": (won,)}), second.model_copy(update={"nodes": (lost,)}), third),
    )
    snapshot.write(store, NOW_MS)
    assert seen(tmp_path, "SELECT asked, hedged, won, win_rate, wasted_ms FROM hedges") == [(3, 2, 1, 0.5, 42.0)]
    assert seen(tmp_path, "SELECT ms_for_nobody, reply_bytes FROM wasted_work") == [(42.0, 1_000)]
    assert seen(tmp_path, "SELECT wanted, from_cache, hit_rate FROM cache_hit_rate") == [(3, 0, 0.0)]
    store.close()
