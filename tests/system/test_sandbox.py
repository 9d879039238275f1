"""The query endpoint's worker: hostile statements are refused, what takes too much is ended, what reads is answered."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from antiphon.decide.record_bounds import SandboxBounds
from antiphon.errors import InvalidQuery, Overloaded, QueryLimit, RecordUnwritable
from antiphon.stats import reading, segments, snapshot
from antiphon.stats.sandbox import Sandbox
from records import NOW_MS, message, searched, store_in, write

HOSTILE = {
    "a delete": "DELETE FROM requests",
    "an insert": "INSERT INTO requests SELECT * FROM requests",
    "an update": "UPDATE requests SET query = 'x'",
    "a truncate": "TRUNCATE requests",
    "a drop": "DROP TABLE requests",
    "a new table": "CREATE TABLE mine AS SELECT 1",
    "a new view": "CREATE OR REPLACE VIEW top_queries AS SELECT 1",
    "a macro": "CREATE MACRO requests() AS TABLE SELECT 1",
    "a changed table": "ALTER TABLE requests ADD COLUMN x INT",
    "a delete in a common table expression": "WITH x AS (DELETE FROM requests RETURNING *) SELECT * FROM x",
    "an insert in a common table expression": "WITH x AS (INSERT INTO gaps FROM gaps RETURNING *) SELECT * FROM x",
    "an update in a common table expression": "WITH x AS (UPDATE requests SET hits = 0 RETURNING *) SELECT * FROM x",
    "a copy in a common table expression": "WITH x AS (COPY requests TO '/tmp/stolen.csv') SELECT * FROM x",
    "a copy to a file": "COPY requests TO 'stolen.csv'",
    "a copy of a query to a file": "COPY (SELECT * FROM requests) TO '/tmp/stolen.parquet'",
    "a copy from a file": "COPY requests FROM '/etc/passwd'",
    "an export": "EXPORT DATABASE '/tmp/stolen'",
    "an import": "IMPORT DATABASE '/tmp/evil'",
    "a file as a table": "SELECT * FROM '/etc/passwd'",
    "a segment as a table": "SELECT * FROM 'segments/requests.parquet'",
    "reading text": "SELECT * FROM read_text('/etc/passwd')",
    "reading bytes": "SELECT content FROM read_blob('/etc/shadow')",
    "reading CSV": "SELECT * FROM read_csv('/etc/passwd', header = false)",
    "reading Parquet": "SELECT * FROM read_parquet('segments/*.parquet')",
    "reading JSON": "SELECT * FROM read_json_auto('/etc/hosts')",
    "reading in a subquery": "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
    "reading in a lateral join": "SELECT * FROM requests r, LATERAL (SELECT * FROM read_text(r.query))",
    "listing files": "SELECT * FROM glob('/**')",
    "sniffing a file": "SELECT * FROM sniff_csv('/etc/passwd')",
    "the hot file": "ATTACH 'hot.duckdb' AS hot",
    "another file": "ATTACH '/tmp/other.duckdb' (READ_ONLY)",
    "detaching": "DETACH recent",
    "another database": "USE memory",
    "an address": "SELECT * FROM 'https://example.org/x.csv'",
    "an extension": "INSTALL httpfs",
    "loading an extension": "LOAD httpfs",
    "a setting": "SET enable_external_access = true",
    "a reset": "RESET memory_limit",
    "a pragma": "PRAGMA database_list",
    "a pragma of settings": "PRAGMA enable_external_access = true",
    "a pragma as a table": "SELECT * FROM pragma_database_list()",
    "settings as a table": "SELECT * FROM duckdb_settings()",
    "files as a table": "SELECT * FROM duckdb_databases()",
    "secrets as a table": "SELECT * FROM duckdb_secrets()",
    "a setting's value": "SELECT current_setting('temp_directory')",
    "the environment": "SELECT getenv('HOME')",
    "text as a statement": "SELECT * FROM query('SELECT 1')",
    "text as a table": "SELECT * FROM query_table('requests')",
    "a parsed statement": "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "the catalogue": "SELECT * FROM information_schema.tables",
    "the other catalogue": "SELECT * FROM pg_catalog.pg_class",
    "the tables of SQLite": "SELECT * FROM sqlite_master",
    "the catalogue under a name that is declared elsewhere": (
        "SELECT * FROM (WITH duckdb_databases AS (SELECT 1) SELECT 1), duckdb_databases"
    ),
    "the catalogue behind its own name": "WITH duckdb_databases AS (FROM duckdb_databases) FROM duckdb_databases",
    "the catalogue before its name is declared": "WITH a AS (FROM sqlite_master), sqlite_master AS (SELECT 1) FROM a",
    "a file under a name that is declared elsewhere": (
        'SELECT * FROM (WITH "/etc/passwd" AS (SELECT 1) SELECT 1), "/etc/passwd"'
    ),
    "a description of a file": "DESCRIBE '/etc/passwd'",
    "a summary of a file": "SUMMARIZE '/etc/passwd'",
    "names without end": (
        f"SELECT COLUMNS('(.*)') AS '{'x' * 180}\\1' FROM "
        f"{', '.join(f'requests r{at}' for at in range(35))} WHERE false"
    ),
    "a statement that is nested deeply": f"SELECT 1{'+1' * 900}",
    "a result that is nested deeply": f"SELECT {'[' * 400}1{']' * 400}",
    "a time with a zone": "SELECT now()",
    "a variable of the process": "SELECT * FROM asked",
    "two statements": "SELECT 1; SELECT 2",
    "a second one that drops": "SELECT 1; DROP TABLE requests",
    "none": "   ",
    "a comment": "-- SELECT 1",
    "no SQL": "hello",
    "a transaction": "BEGIN",
    "a checkpoint": "CHECKPOINT",
    "a prepared statement": "PREPARE p AS SELECT 1",
    "an execution": "EXECUTE p",
    "a call": "CALL pragma_version()",
    "a vacuum": "VACUUM",
    "an explanation that runs": "EXPLAIN ANALYZE SELECT 1",
    "a variable": "SET VARIABLE x = 1",
    "a sequence": "SELECT nextval('s')",
    "a function of another database": "SELECT * FROM other.main.requests",
}
GREEDY = {
    "time": "SELECT count(*) FROM range(1000000000000) a",
    "a join of everything": "SELECT count(*) FROM range(10000000) a, range(10000000) b",
    "memory in one value": "SELECT length(repeat('x', 3000000000))",
    "memory in many values": "SELECT sum(length(repeat(r.range::VARCHAR, 5000000))) FROM range(1000) r",
    "memory in a list": "SELECT len(list(r.range)) FROM range(2000000000) r",
    "memory in a sort": "SELECT * FROM range(500000000) ORDER BY hash(range) LIMIT 1 OFFSET 400000000",
    "an endless recursion": "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t",
}
QUICK = SandboxBounds(time_ms=1_000, memory_bytes=64 * 1024 * 1024, parallel_max=1)


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    store = store_in(tmp_path)
    write(store, message(1, *(searched(number) for number in range(50))))
    segments.seal(store, NOW_MS)
    snapshot.write(store, NOW_MS)
    store.close()
    made = Sandbox(tmp_path, QUICK)
    yield made
    made.close()


def digests(folder: Path) -> dict[str, str]:
    """What lies in the record's folder, byte for byte."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 40


@pytest.mark.timeout(600)
async def test_hostile_statements_are_refused_and_touch_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    await sandbox.ask(("SELECT 1",), 10, "json", NOW_MS)
    before = digests(tmp_path)
    passed: list[str] = []
    for what, statement in HOSTILE.items():
        try:
            await sandbox.ask((statement,), 10, "json", NOW_MS)
        except InvalidQuery:
            continue
        passed.append(what)
    assert passed == []
    assert digests(tmp_path) == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", GREEDY)
async def test_what_takes_too_much_is_ended(sandbox: Sandbox, what: str) -> None:
    with pytest.raises(QueryLimit):
        await sandbox.ask((GREEDY[what],), 10, "json", NOW_MS)
    [table], _ = await sandbox.ask(("SELECT count(*) AS n FROM requests",), 10, "json", NOW_MS)
    assert table["rows"] == [[50]]


async def test_what_reads_is_answered_in_three_formats(sandbox: Sandbox) -> None:
    statement = "SELECT request, ts, degraded, took_us / 3 AS third FROM requests ORDER BY fact"
    [table], as_of_ms = await sandbox.ask((statement,), 2, "json", NOW_MS)
    assert table["columns"] == ["request", "ts", "degraded", "third"]
    assert table["rows"][0][:3] == ["r0", "2026-09-21 14:13:20", []]
    assert (table["count"], table["is_cut"], as_of_ms) == (2, True, NOW_MS)
    [lines], _ = await sandbox.ask(("SELECT request, caller FROM requests LIMIT 1",), 5, "ndjson", NOW_MS)
    assert lines["text"] == '{"request": "r0", "caller": "web"}\n'
    [text], _ = await sandbox.ask(("SELECT request, caller FROM requests LIMIT 1",), 5, "csv", NOW_MS)
    assert text["text"] == "request,caller\r\nr0,web\r\n"


@pytest.mark.parametrize(
    "statement",
    [
        "FROM requests LIMIT 1",
        "WITH t AS (SELECT * FROM requests) SELECT count(*) FROM t",
        "SELECT * FROM requests_per_minute",
        "SELECT unnest([1, 2]) UNION SELECT range FROM range(3)",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 9) SELECT max(n) FROM t",
        "DESCRIBE requests",
        "SUMMARIZE requests",
        "FROM (SHOW ALL TABLES)",
        "SELECT count(*) FROM requests WHERE ts > now() - INTERVAL 1 HOUR",
        "SELECT now()::TIMESTAMP AS at",
    ],
)
async def test_analysts_words_are_understood(sandbox: Sandbox, statement: str) -> None:
    [table], _ = await sandbox.ask((statement,), 100, "json", NOW_MS)
    assert table["rows"]


async def test_now_is_utc_as_the_rows_are_whatever_the_machines_zone(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    [table], _ = await sandbox.ask(("SELECT epoch_ms(now()) - epoch_ms(now()::TIMESTAMP) AS off",), 1, "json", NOW_MS)
    assert table["rows"] == [[0]]
    with reading.opened(tmp_path / "antiphon.duckdb") as connection:
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
        assert "a time with a zone" in reading.table(connection, "SELECT [now()] AS at", 1)["error"]


async def test_an_answer_has_a_bound_in_bytes(sandbox: Sandbox) -> None:
    big = "SELECT repeat('x', 100000) FROM range(12)"
    tables, _ = await sandbox.ask((big, "SELECT 1"), 100, "json", NOW_MS)
    assert tables[0]["is_cut"]
    assert 0 < tables[0]["count"] <= 7


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
async def test_an_answer_has_the_same_bound_in_every_format(sandbox: Sandbox, form: str) -> None:
    for statement in (
        f'SELECT 1 AS "{"x" * 190}" FROM range(100000)',
        "SELECT repeat('ж', 5000) AS x FROM range(1000)",
        """SELECT repeat('"', 5000) AS x FROM range(1000)""",
        f"SELECT {', '.join(f'1 AS c{at}' for at in range(3_000))}",
    ):
        tables, _ = await sandbox.ask((statement,), 10_000, form, NOW_MS)
        assert 0 < len(orjson.dumps(tables)) <= QUICK.bytes_max + 1_000
        assert tables[0]["count"]


async def test_more_than_may_ask_at_once_are_refused(sandbox: Sandbox) -> None:
    sandbox._running = QUICK.parallel_max
    with pytest.raises(Overloaded):
        await sandbox.ask(("SELECT 1",), 1, "json", NOW_MS)


async def test_before_there_is_a_snapshot_there_is_nothing_to_ask(tmp_path: Path) -> None:
    made = Sandbox(tmp_path)
    with pytest.raises(RecordUnwritable):
        await made.ask(("SELECT 1",), 1, "json", NOW_MS)
    made.close()
