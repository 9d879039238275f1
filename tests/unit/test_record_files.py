"""What lies in the record's folder, whatever happens: no leftovers, no missing files, nobody who was forgotten."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from antiphon.decide.upkeep import UpkeepBounds
from antiphon.errors import InvalidSetting, RecordUnwritable
from antiphon.stats import segments, snapshot
from antiphon.stats.files import KEY
from antiphon.stats.forgetting import forget
from antiphon.stats.privacy import hidden
from antiphon.stats.store import Store
from antiphon.stats.upkeep import Upkeep
from records import NOW_MS, message, rows, searched, store_in, write

MINUTE_MS = 60_000
HOUR_MS = 3_600_000


def seen(folder: Path, query: str = "SELECT count(*) FROM requests") -> int:
    """What an analyst finds in the snapshot of now."""
    with duckdb.connect(str(folder / "antiphon.duckdb"), read_only=True) as opened:
        [(found,)] = opened.execute(query).fetchall()
    return int(found)


def reopened(store: Store) -> Store:
    store.open(NOW_MS)
    return store


def strays(store: Store) -> set[str]:
    known = {str(file) for (file,) in rows(store, "SELECT file FROM segments UNION SELECT file FROM discarded")}
    return {path.name for path in store.segments.iterdir() if path.is_file()} - known


def test_a_seal_that_fails_again_and_again_fills_no_disk(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    upkeep = Upkeep(store, UpkeepBounds(seal_ms=1))
    upkeep.work(NOW_MS)
    write(store, message(1, searched(1)))
    upkeep.work(NOW_MS + 1)
    for now_ms in range(NOW_MS + 1_000, NOW_MS + 6_000, 1_000):
        (store.segments / f"node_replies-{now_ms:013d}-0-0.new").mkdir()  # no file can be written there
        with pytest.raises(RecordUnwritable):
            upkeep.work(now_ms)
        assert len(strays(reopened(store))) <= 1
    upkeep.work(NOW_MS + 10_000)
    assert strays(store) == set()
    snapshot.write(store, NOW_MS)
    assert seen(tmp_path) == 1
    store.close()


def test_a_snapshot_never_names_a_file_that_is_gone_also_where_nothing_happens(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    upkeep = Upkeep(store, UpkeepBounds(keep_ms=5 * MINUTE_MS, discard_ms=MINUTE_MS))
    for at in range(1, 4):
        write(store, message(at, searched(at)))
        segments.seal(store, NOW_MS + at)
    counts: list[int] = []
    for now_ms in range(NOW_MS, NOW_MS + 20 * MINUTE_MS, MINUTE_MS // 2):
        upkeep.work(now_ms)
        counts.append(seen(tmp_path))
    assert (counts[0], counts[-1]) == (3, 0)
    kept = [path.name.partition("-")[0] for path in store.segments.iterdir()]
    assert kept == ["minute_rollups"] * 3
    store.close()


def test_a_clock_that_goes_backward_stops_no_job(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    upkeep = Upkeep(store, UpkeepBounds(seal_ms=10_000))
    write(store, message(1, searched(1)))
    upkeep.work(NOW_MS)
    assert seen(tmp_path) == 1
    write(store, message(2, searched(2)))
    before_ms = NOW_MS - 5 * HOUR_MS
    for now_ms in range(before_ms, before_ms + 12_000, 1_000):
        upkeep.work(now_ms)
    assert seen(tmp_path) == 2
    assert store.open_rows == 0, "sealed as well"
    upkeep.work(NOW_MS + HOUR_MS)
    assert seen(tmp_path) == 2
    store.close()


def test_whoever_is_forgotten_is_in_no_file_of_the_folder(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    secret, question = "mallory-was-here", "where-is-the-treasure"
    for at in range(1, 4):
        write(store, message(at, searched(at, caller=secret, query=question), searched(100 + at)))
        segments.seal(store, NOW_MS + at)
    assert segments.compact(store, NOW_MS + HOUR_MS, 1_000), "files that were merged wait for readers"
    write(store, message(4, searched(4, caller=secret, query=question)))
    snapshot.write(store, NOW_MS)
    snapshot.recent(tmp_path, tmp_path / "recent.duckdb", NOW_MS, 100)
    assert forget(store, secret, NOW_MS + HOUR_MS)[0] == 4
    snapshot.write(store, NOW_MS + HOUR_MS)
    assert seen(tmp_path) == 7
    assert seen(tmp_path, "SELECT count(*) FROM requests WHERE caller IS NULL AND query IS NULL") == 4
    write(store, message(5, searched(5, caller=secret, query=question)))
    store.close()
    named = [path.name for path in tmp_path.rglob("*") if path.is_file() and question.encode() in path.read_bytes()]
    assert named == []
    for path in tmp_path.rglob("*.duckdb"):
        with duckdb.connect(str(path), read_only=True) as opened:
            tables = {name for (name,) in opened.execute("SELECT view_name FROM duckdb_views()").fetchall()}
            if "requests" in tables or path.name == "hot.duckdb":
                assert opened.execute("SELECT count(*) FROM requests WHERE caller = ?", [secret]).fetchall() == [(0,)]


def test_who_was_being_forgotten_when_a_kill_came_is_forgotten_at_the_next_start(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for at in range(1, 4):
        write(store, message(at, searched(at, caller="mallory"), searched(100 + at)))
        segments.seal(store, NOW_MS + at)
    write(store, message(4, searched(4, caller="mallory")))
    store.execute("INSERT INTO forgotten (caller, ts) VALUES ('mallory', NULL)")  # so far it had come
    store.close()
    again = store_in(tmp_path)
    upkeep = Upkeep(again)
    for now_ms in range(NOW_MS, NOW_MS + 10_000, 2_000):
        upkeep.work(now_ms)
    assert seen(tmp_path) == 7
    assert seen(tmp_path, "SELECT count(*) FROM requests WHERE caller = 'mallory' OR query IS NULL") == 4
    assert seen(tmp_path, "SELECT count(caller) FROM requests") == 3
    assert rows(again, "SELECT count(done) FROM forgotten") == [(1,)]
    again.close()


def test_a_key_that_is_none_is_not_taken_for_one(tmp_path: Path) -> None:
    for text in ("", "zz", "00"):
        (tmp_path / KEY).write_text(text)
        with pytest.raises(InvalidSetting, match=KEY):
            hidden("hashed", tmp_path)
