"""A SQLite table as a node: what is read, that no name is SQL, and that commits of others are seen."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from antiphon.connectors.sqlite import Sqlite
from antiphon.decide.analyser import default
from antiphon.errors import ContentUnreadable
from antiphon.messages.handler import Found, Query

ANALYSER = default()


def run(file: Path, script: str) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.executescript(script)


def search(node: Sqlite, text: str) -> Found:
    return node.search(Query(text, ANALYSER.question(text), ANALYSER.id))


def ids(node: Sqlite, text: str) -> list[str]:
    return sorted(hit.id for hit in search(node, text).hits)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "shop?mode=rwc#x.db"
    run(
        file,
        """
        CREATE TABLE products(sku TEXT PRIMARY KEY, name TEXT, about TEXT, link TEXT, price REAL, picture BLOB);
        INSERT INTO products VALUES ('a1', 'Red apple', 'A sweet fruit', 'https://example.org/a1', 1.5, x'00ff');
        INSERT INTO products VALUES ('b2', 'Green pear', NULL, NULL, 2.5, NULL);
        CREATE TABLE "odd ""name""; DROP TABLE products; --"("a ""b" TEXT);
        INSERT INTO "odd ""name""; DROP TABLE products; --" VALUES ('plum');
        CREATE TABLE numbers(n INTEGER); INSERT INTO numbers(rowid, n) VALUES (0, 7), (1, 8);
        CREATE TABLE pairs(a INTEGER, b INTEGER, t TEXT, PRIMARY KEY(a, b)) WITHOUT ROWID;
        INSERT INTO pairs VALUES (1, 2, 'cherry'), (1, 3, 'cherry');
        CREATE VIEW cheap AS SELECT name, price FROM products WHERE price < 2;
        """,
    )
    return file


@pytest.fixture
def made() -> Iterator[list[Sqlite]]:
    nodes = list[Sqlite]()
    yield nodes
    for node in nodes:
        node.close()


def opened(made: list[Sqlite], file: Path, table: str, **options: Any) -> Sqlite:
    node = Sqlite(file, table=table, **options)
    made.append(node)
    node.open()
    return node


def test_a_row_is_a_document(file: Path, made: list[Sqlite]) -> None:
    node = opened(made, file, "products", columns=("name,about", "price"), url="link", id="sku")
    (hit,) = search(node, "sweet apple").hits
    assert (hit.id, hit.title, hit.url, hit.snippet) == (
        "a1",
        "Red apple",
        "https://example.org/a1",
        "A sweet fruit 1.5",
    )
    found = search(node, "pear")
    assert [(hit.id, hit.url) for hit in found.hits] == [("b2", None)]
    assert found.statistics is not None
    assert (found.statistics.docs, found.statistics.df) == (2, (1,))


def test_what_is_not_named_is_taken_from_the_schema(file: Path, made: list[Sqlite]) -> None:
    assert ids(opened(made, file, "products"), "apple pear example") == ["a1", "b2"]
    assert ids(opened(made, file, "cheap"), "apple") == ["1"]
    assert ids(opened(made, file, "numbers", columns=("n",)), "7 8") == ["0", "1"]
    assert ids(opened(made, file, "pairs"), "cherry") == ["1", "2"]
    assert ids(opened(made, file, 'odd "name"; DROP TABLE products; --', columns=('a "b',)), "plum") == ["1"]


@pytest.mark.parametrize(
    "options",
    [
        {"table": "missing"},
        {"table": "PRODUCTS"},
        {"table": "products; DROP TABLE products"},
        {"table": 'products" --'},
        {"table": "sqlite_master"},
        {"table": ""},
        {"table": "products", "columns": ("name", "nope")},
        {"table": "products", "columns": ("name FROM products --",)},
        {"table": "products", "columns": ("load_extension('x')",)},
        {"table": "products", "columns": ("rowid",)},
        {"table": "products", "id": "sku, sku"},
        {"table": "products", "title": "1"},
        {"table": "products", "url": "(SELECT 1)"},
        {"table": "products", "rows_max": 1},
        {"table": "numbers"},
    ],
    ids=str,
)
def test_what_the_schema_does_not_hold_is_refused(file: Path, made: list[Sqlite], options: dict[str, Any]) -> None:
    with pytest.raises(ContentUnreadable):
        opened(made, file, **options)
    assert ids(opened(made, file, "products"), "apple") == ["a1"]


def test_what_is_no_database_is_refused(tmp_path: Path, made: list[Sqlite]) -> None:
    (tmp_path / "text.db").write_text("this is not a database at all")
    (tmp_path / "empty.db").write_bytes(b"")
    for name in ("text.db", "empty.db", "missing.db", ".", "a\0b"):
        with pytest.raises(ContentUnreadable):
            opened(made, tmp_path / name, "products")
    assert not (tmp_path / "missing.db").exists()


def test_the_file_cannot_be_written(file: Path, made: list[Sqlite]) -> None:
    node = opened(made, file, "products")
    with closing(node._connect()) as database, pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.execute("DELETE FROM products")


def test_invalid_text_in_the_file_is_replaced(file: Path, made: list[Sqlite]) -> None:
    run(file, "INSERT INTO products(sku, name) VALUES (CAST(x'ff' AS TEXT), CAST(x'706c756dff' AS TEXT))")
    assert ids(opened(made, file, "products"), "plum") == ["\ufffd"]


@pytest.mark.parametrize("journal", ["delete", "wal"])
async def test_commits_of_others_are_seen(file: Path, made: list[Sqlite], journal: str) -> None:
    run(file, f"PRAGMA journal_mode = {journal}")
    node = opened(made, file, "products", poll_ms=10)
    changes: asyncio.Queue[str] = asyncio.Queue()
    watching = asyncio.create_task(node.watch(changes.put_nowait))
    with closing(sqlite3.connect(file)) as database:
        for change, expected in (
            ("INSERT INTO products(sku, name) VALUES ('c3', 'Blue plum')", (["a1"], ["c3"])),
            ("UPDATE products SET name = 'Black plum' WHERE sku = 'a1'", ([], ["a1", "c3"])),
            ("DELETE FROM products WHERE sku = 'c3'", ([], ["a1"])),
        ):
            database.execute(change)
            database.commit()
            assert await asyncio.wait_for(changes.get(), 30) == "1 rows changed"
            assert (ids(node, "apple"), ids(node, "plum")) == expected
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_another_file_in_its_place_is_seen(file: Path, made: list[Sqlite], tmp_path: Path) -> None:
    node = opened(made, file, "products", poll_ms=10)
    changes: asyncio.Queue[str] = asyncio.Queue()
    watching = asyncio.create_task(node.watch(changes.put_nowait))
    other = tmp_path / "other.db"
    run(other, "CREATE TABLE products(sku TEXT PRIMARY KEY, name TEXT); INSERT INTO products VALUES ('z9', 'Fig')")
    other.replace(file)
    assert await asyncio.wait_for(changes.get(), 30) == "3 rows changed"
    assert (ids(node, "fig"), ids(node, "apple pear")) == (["z9"], [])
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_an_empty_table_is_served_and_its_first_row_is_found(made: list[Sqlite], tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    run(file, "CREATE TABLE products(sku TEXT PRIMARY KEY, name TEXT)")
    node = opened(made, file, "products", poll_ms=10)
    assert (node.size(), ids(node, "apple")) == (0, [])
    changes: asyncio.Queue[str] = asyncio.Queue()
    watching = asyncio.create_task(node.watch(changes.put_nowait))
    run(file, "INSERT INTO products VALUES ('a1', 'Red apple')")
    assert await asyncio.wait_for(changes.get(), 30) == "1 rows changed"
    assert ids(node, "apple") == ["a1"]
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
