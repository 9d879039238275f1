"""docs/sql.md is true: every example runs on a record of every kind of fact; every table and view stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from antiphon.decide.record_rows import KINDS
from antiphon.decide.record_tables import TABLES
from antiphon.stats import segments, snapshot
from antiphon.stats.views import VIEWS
from records import NOW_MS, message, searched, store_in, write

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/sql.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """A snapshot over sealed and open rows of every golden fact."""
    folder = tmp_path_factory.mktemp("record")
    store = store_in(folder)
    golden = [
        (path.name.partition(".")[0], path.read_bytes())
        for path in sorted((ROOT / "tests/golden/messages").glob("*.json"))
        if path.name.partition(".")[0] in KINDS
    ]
    write(store, message(1, *golden), message(2, *(searched(at) for at in range(20))))
    segments.seal(store, NOW_MS)
    write(store, message(3, *golden))
    snapshot.write(store, NOW_MS)
    store.close()
    with duckdb.connect(str(folder / "antiphon.duckdb"), read_only=True) as made:
        yield made


@pytest.mark.parametrize("query", EXAMPLES, ids=lambda query: " ".join(query.split())[:60])
def test_every_example_runs(opened: duckdb.DuckDBPyConnection, query: str) -> None:
    assert opened.execute(query).description


def test_every_view_has_a_section_with_an_example() -> None:
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(VIEWS)
    assert [name for name, text in sections.items() if f"FROM {name}" not in text] == []


def test_every_table_is_listed() -> None:
    assert [name for name in (*TABLES, "minute_rollups") if f"| `{name}` |" not in PAGE] == []


@pytest.mark.parametrize("name", ["requests_per_minute", "nodes_per_hour", "slow_requests", "top_queries", "balance"])
def test_views_show_what_was_told(opened: duckdb.DuckDBPyConnection, name: str) -> None:
    assert opened.execute(f"SELECT count(*) > 0 FROM {name}").fetchall() == [(True,)]


def test_a_view_adds_up(opened: duckdb.DuckDBPyConnection) -> None:
    [(requests,)] = opened.execute("SELECT count(*) FROM requests").fetchall()
    assert opened.execute("SELECT sum(requests) FROM requests_per_minute").fetchall() == [(requests,)]
    [(asked, hits)] = opened.execute("SELECT count(*), sum(hits) FROM node_replies").fetchall()
    assert opened.execute("SELECT sum(asked), sum(hits) FROM nodes_per_hour").fetchall() == [(asked, hits)]
    found = opened.execute("SELECT blame, blame_ms FROM slow_requests WHERE request = 'r7'").fetchall()
    assert found == [("n2", 3.0)]
