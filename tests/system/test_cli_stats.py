"""`antiphon sql`, `stats` and `requests` on a real record: who may ask, what is shown, who is forgotten."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from cli_process import Done, Fabric, fabric, until

QUESTIONS = ("outage", "outage", "a rare word")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("stats")
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("# An outage\n\nWhat it taught.\n")
    with fabric(folder) as made:
        made.environment |= {"ANTIPHON_QUERY_FRESH_MS": "1", "ANTIPHON_RECORD_SNAPSHOT_MS": "50"}
        made.up()
        made.serve("folder", str(folder / "docs"))
        for question in QUESTIONS:
            assert made.run("search", question).code == 0
        until(lambda: count(made) == len(QUESTIONS))
        yield made


def count(here: Fabric) -> int:
    done = here.run("sql", "SELECT count(*) AS n FROM requests", "-o", "json")
    return int(done.json[0]["n"]) if done.code == 0 else -1


def well(done: Done) -> str:
    assert done.code == 0, done.err
    return done.out


def test_sql_in_each_format(here: Fabric) -> None:
    query = "SELECT query, count(*) AS n FROM requests GROUP BY query ORDER BY n DESC"
    rows = [{"query": "outage", "n": 2}, {"query": "a rare word", "n": 1}]
    assert json.loads(well(here.run("sql", query, "-o", "json"))) == rows
    assert [json.loads(line) for line in well(here.run("sql", query, "-o", "ndjson")).splitlines()] == rows
    read = list(csv.DictReader(io.StringIO(well(here.run("sql", query, "-o", "csv")))))
    assert read == [{key: str(value) for key, value in row.items()} for row in rows]
    assert well(here.run("sql", query)) == "query\tn\noutage\t2\na rare word\t1\n"
    assert json.loads(well(here.run("sql", "SELECT 1 AS a, 2 AS a", "-o", "json"))) == [{"a": 1, "a_1": 2}]
    cut = here.run("sql", query, "--rows-max", "1")
    assert well(cut).endswith("outage\t2\n")
    assert "there are more" in cut.err


def test_sql_one_after_the_other(here: Fabric) -> None:
    given = "SELECT 1 AS one;\nSELECT\n  2 AS two;\nDROP TABLE requests;\nSELECT 3 AS three"
    done = here.run("sql", "-o", "ndjson", stdin=given)
    assert done.out.splitlines() == ['{"one": 1}', '{"two": 2}', '{"three": 3}']
    assert "invalid_query" in done.err
    assert done.code == 0


def test_what_does_more_than_read_is_refused(here: Fabric) -> None:
    done = here.run("sql", "WITH x AS (DELETE FROM requests RETURNING *) SELECT * FROM x")
    assert (done.code, done.out) == (2, "")
    assert "invalid_query" in done.err
    assert count(here) == len(QUESTIONS)


def test_the_whole_history_is_on_the_recorders_machine(here: Fabric) -> None:
    assert "outage\t2" in well(here.run("sql", "SELECT query, requests FROM top_queries", "--history"))
    refused = here.run("sql", "DELETE FROM requests", "--history")
    assert refused.code == 2


def test_an_analyst_may_ask_and_a_publisher_may_not(here: Fabric) -> None:
    for name, kind in (("ana", "analyst"), ("web", "publisher")):
        well(here.run("identity", "create", name, "--kind", kind))
    tokens = {name: well(here.run("key", "create", name)).split()[-1] for name in ("ana", "web")}
    query = ("sql", "SELECT count(*) AS n FROM requests", "-o", "json")
    allowed = here.run(*query, environment={"ANTIPHON_TOKEN": tokens["ana"], "ANTIPHON_NAME": "ana"})
    assert allowed.code == 0, allowed.err
    assert here.run(*query, environment={"ANTIPHON_TOKEN": tokens["web"], "ANTIPHON_NAME": "web"}).code == 8
    forgetting = ("stats", "forget", "web", "--yes")
    assert here.run(*forgetting, environment={"ANTIPHON_TOKEN": tokens["ana"], "ANTIPHON_NAME": "ana"}).code == 8


def test_stats_for_people_for_programs_and_the_sql_behind(here: Fabric) -> None:
    text = well(here.run("stats"))
    assert text.startswith("requests\t3\t")
    assert "\ncoverage\t100.0%\twithout hits 1\n" in text
    assert "\nslowest nodes\n" in text
    assert "\ncache\t0.0%\tof 3 answers of nodes\n" in text
    whole = json.loads(well(here.run("stats", "-o", "json", "--since", "1d", "--node", "docs")))
    assert whole["requests"][0]["requests"] == 3
    assert [row["node"] for row in whole["slowest nodes"]] == ["docs"]
    assert whole["latency"][0]["p50_ms"] > 0
    for since, places in (("10min", 11), ("1h", 61), ("30d", 61)):
        traffic = json.loads(well(here.run("stats", "-o", "json", "--since", since)))["traffic"]
        assert places <= len(traffic) <= 61, since
        assert sum(row["requests"] for row in traffic) == 3
        assert [row["since"] for row in traffic] == sorted(row["since"] for row in traffic)
    shown = well(here.run("stats", "--sql"))
    latency = next(one for one in shown.split(";\n") if "-- latency" in one)
    assert '"p50_ms": ' in well(here.run("sql", latency, "-o", "json"))
    assert shown.count("-- ") == len(whole)


def test_requests_tail_and_show(here: Fabric) -> None:
    lines = [line.split("\t") for line in well(here.run("requests", "tail", "-n", "2")).splitlines()]
    assert [line[-1] for line in lines] == ["outage", "a rare word"]
    request = lines[0][1]
    text = well(here.run("requests", "show", request))
    assert "1 of 1 answered" in text
    assert any(line.startswith("docs ") and "answered, 1 hits, 1 shown" in line for line in text.splitlines())
    one = json.loads(well(here.run("requests", "show", request, "-o", "json")))
    assert [node["node"] for node in one["nodes"]] == ["docs"]
    assert here.run("requests", "show", "no-such").code == 2
    assert here.run("requests", "show", "'; DROP TABLE requests").code == 2


def test_what_is_older_than_asked_for_is_not_shown_also_where_nothing_has_happened_since(here: Fabric) -> None:
    snapshot = here.data / "stats" / "antiphon.duckdb"
    text = well(here.run("stats", "--sql", "--since", "1s"))
    [requests] = [one.partition("\n")[2] for one in text.split(";\n") if "-- requests\n" in one]
    with duckdb.connect(str(snapshot), read_only=True) as opened:
        until(lambda: (opened.execute(requests).fetchone() or ("?",))[0] == 0)


def test_a_request_is_shown_by_how_its_id_begins(here: Fabric) -> None:
    whole = json.loads(well(here.run("requests", "tail", "-n", "1", "-o", "json")))["request"]
    assert json.loads(well(here.run("requests", "show", whole[:12], "-o", "json")))["request"] == whole
    assert json.loads(well(here.run("requests", "show", whole[:12], "-o", "json")))["nodes"]
    asked = [json.loads(line)["request"] for line in well(here.run("requests", "tail", "-o", "json")).splitlines()]
    for one in asked:
        [shared] = [one[:at] for at in range(1, 33) if sum(other.startswith(one[:at]) for other in asked) == 1][:1]
        assert json.loads(well(here.run("requests", "show", shared, "-o", "json")))["request"] == one


def test_what_is_asked_for_has_to_be_some(here: Fabric) -> None:
    for words in (
        ("sql", "SELECT 1", "--rows-max", "-5", "--history"),
        ("sql", "SELECT 1", "--rows-max", "0"),
        ("requests", "tail", "-n", "0"),
        ("logs", "-n", "-1"),
    ):
        done = here.run(*words)
        assert (done.code, done.out) == (2, ""), words
        assert "Must be >= 1" in done.err
    assert "nothing was asked of a node 'nowhere'" in here.run("stats", "--node", "nowhere").err


def test_export(here: Fabric, tmp_path: Path) -> None:
    text = well(here.run("stats", "export", str(tmp_path / "out"), "--table", "requests,node_replies"))
    assert [line.split("\t")[:2] for line in text.splitlines()] == [["requests", "3"], ["node_replies", "3"]]
    query = f"SELECT count(*) FROM read_parquet('{tmp_path}/out/requests.parquet')"
    assert duckdb.execute(query).fetchall() == [(3,)]
    well(here.run("stats", "export", str(tmp_path / "csv"), "--format", "csv", "--since", "1h", "--table", "requests"))
    assert len((tmp_path / "csv" / "requests.csv").read_text().splitlines()) == 4
    assert here.run("stats", "export", str(tmp_path / "x"), "--table", "secrets").code == 2


def test_what_cannot_be_read_or_written_is_said_in_a_line(here: Fabric, tmp_path: Path) -> None:
    (tmp_path / "stats").mkdir()
    (tmp_path / "stats" / "antiphon.duckdb").write_text("no database at all")
    (tmp_path / "out" / "requests.parquet").mkdir(parents=True)
    for words in (
        ("sql", "SELECT 1", "--history", "--data", str(tmp_path)),
        ("stats", "export", str(tmp_path / "other"), "--data", str(tmp_path)),
        ("stats", "export", str(tmp_path / "out")),
    ):
        done = here.run(*words)
        assert (done.code, done.out) == (2, ""), words
        assert done.err.startswith("antiphon: invalid_setting: IO Error: "), done.err
        assert len(done.err.splitlines()) == 1


def test_following_shows_what_comes_and_nothing_older_than_asked_for(here: Fabric, tmp_path: Path) -> None:
    place = tmp_path / "followed"
    words = [sys.executable, "-m", "antiphon", "requests", "tail", "-n", "1", "-f", "-o", "json"]
    with place.open("w") as out:
        following = subprocess.Popen(words, env=here.environment, stdout=out, stderr=subprocess.DEVNULL)
    last = well(here.run("requests", "tail", "-n", "1", "-o", "json"))
    until(lambda: last.strip() in place.read_text())
    assert here.run("search", "what comes then").code == 0
    until(lambda: "what comes then" in place.read_text())
    following.terminate()
    following.wait(10)
    asked = [json.loads(line)["query"] for line in place.read_text().splitlines()]
    assert asked == [json.loads(last)["query"], "what comes then"]


def test_forget(here: Fabric) -> None:
    [row] = json.loads(well(here.run("sql", "SELECT DISTINCT caller FROM requests", "-o", "json")))
    caller, asked = row["caller"], count(here)
    text = well(here.run("stats", "forget", caller, "--yes"))
    assert text.split("\t")[1] == str(asked)
    query = "SELECT caller, query FROM requests"
    until(lambda: json.loads(well(here.run("sql", query, "-o", "json"))) == [{"caller": None, "query": None}] * asked)
    sealed = (here.data / "stats" / "segments").glob("requests-*")
    assert [path for path in sealed if caller.encode() in path.read_bytes()] == []
