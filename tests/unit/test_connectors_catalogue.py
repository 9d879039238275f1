"""Laws of every connector in the catalogue; a new file in the folder is held to them by being there."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from antiphon.connectors import Connector, catalogue
from antiphon.connectors.folder import Folder
from antiphon.connectors.packages import Packages
from antiphon.connectors.selfdoc import SelfDoc
from antiphon.connectors.sqlite import Sqlite
from antiphon.connectors.stdlib import Stdlib
from antiphon.decide.analyser import default
from antiphon.errors import ContentUnreadable, Stopping
from antiphon.messages.handler import Query
from antiphon.subjects import TOKEN

ANALYSER = default()
QUESTIONS = ("file", "how is a message sent to the node", "日本", "", "error error ERROR", "\x00'\"*", "word " * 2_000)


def folder(place: Path) -> Connector:
    (place / "a.md").write_text("# Files\n\nA file has a name.\n\n# Errors\n\nAn error says why.")
    (place / "b.txt").write_text("日本語のファイル")
    return Folder(place)


def sqlite(place: Path) -> Connector:
    with closing(sqlite3.connect(place / "a.db")) as database:
        database.executescript("CREATE TABLE t(x TEXT); INSERT INTO t VALUES ('a file'), ('an error'), ('日本語');")
    return Sqlite(place / "a.db", table="t")


# What must be pointed at something; the others are made with their defaults.
SAMPLES: dict[str, Callable[[Path], Connector]] = {"folder": folder, "sqlite": sqlite}


@pytest.fixture(scope="module", params=sorted(catalogue()))
def connector(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connector]:
    kind = str(request.param)
    place = tmp_path_factory.mktemp(kind)
    made = SAMPLES[kind](place) if kind in SAMPLES else catalogue()[kind]()
    progress = list[tuple[int, int]]()
    made.open(lambda done, total: progress.append((done, total)))
    assert progress == [] or progress[-1][0] == progress[-1][1]
    assert all(before[0] <= after[0] for before, after in pairwise(progress))
    yield made
    made.close()
    made.close()
    with pytest.raises(Stopping):
        made.search(Query("file"))


def test_the_catalogue_is_what_is_in_the_folder() -> None:
    expected = {"antiphon": SelfDoc, "folder": Folder, "packages": Packages, "sqlite": Sqlite, "stdlib": Stdlib}
    assert expected.items() <= catalogue().items()
    assert list(catalogue()) == sorted(catalogue())


@pytest.mark.parametrize("kind", sorted(catalogue()))
def test_options_are_documented_fields(kind: str) -> None:
    cls = catalogue()[kind]
    assert re.fullmatch(TOKEN, kind)
    assert dataclasses.is_dataclass(cls)
    hints = inspect.get_annotations(cls.__init__, eval_str=True, globals=vars(sys.modules[cls.__module__]))
    text = inspect.getdoc(cls) or ""
    described = set(re.findall(r"^ {4}(\w+): ", text.partition("Attributes:")[2], re.MULTILINE))
    assert {field.name for field in dataclasses.fields(cls)} == described == set(hints) - {"return"}
    positional = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert len(positional) <= 1, "one argument can be told from its place, several cannot"


def test_it_says_what_it_is(connector: Connector) -> None:
    assert 0 < len(connector.describe()) <= 2_000
    assert connector.size() is None or connector.size()
    assert connector.topics()
    assert all(0 < len(topic) <= 200 for topic in connector.topics())


@pytest.mark.parametrize("text", QUESTIONS, ids=lambda text: repr(text)[:20])
@pytest.mark.parametrize("limit", [1, 10])
def test_a_search_gives_bounded_and_possible_evidence(connector: Connector, text: str, limit: int) -> None:
    terms = ANALYSER.question(text)
    found = connector.search(Query(text, terms, ANALYSER.id, limit))
    assert len(found.hits) <= limit
    assert len({hit.id for hit in found.hits}) == len(found.hits)
    if found.statistics is None:
        return
    assert found.analyser == ANALYSER.id
    assert len(found.statistics.df) == len(terms)
    assert all(df <= found.statistics.docs for df in found.statistics.df)
    assert found.statistics.docs <= found.statistics.postings <= found.statistics.total_length
    for hit in found.hits:
        assert hit.counts is not None
        assert hit.hash is not None
        assert 0 < sum(hit.counts.tf) <= hit.counts.length
        assert all(df > 0 for tf, df in zip(hit.counts.tf, found.statistics.df, strict=True) if tf)


def test_another_analyser_gets_no_counts(connector: Connector) -> None:
    found = connector.search(Query("file error", ("FILE",), "xx-1"))
    assert found.hits
    assert (found.statistics, found.analyser, {hit.counts for hit in found.hits}) == (None, None, {None})


async def test_watching_ends_when_it_is_cancelled(connector: Connector) -> None:
    watching = asyncio.create_task(connector.watch(lambda _: None))
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching], timeout=30)
    assert watching.done()


def test_parts_of_the_standard_library_split_and_overlap() -> None:
    def titles(modules: str) -> set[str]:
        node = Stdlib(modules)
        node.open()
        found = node.search(Query("json", ANALYSER.question("json"), ANALYSER.id, 1_000)).hits
        node.close()
        return {hit.title for hit in found}

    one, other, both = titles("[a-j]*"), titles("[k-z]*"), titles("json, logging.config,[k-z]*")
    assert "json.dumps" in one
    assert one & other == set()
    assert "json.dumps" in both
    assert other < both
    with pytest.raises(ContentUnreadable, match="nothing-like-it"):
        Stdlib("nothing-like-it").open()


def test_the_standard_library_is_thousands_of_entries_that_lead_to_the_manual() -> None:
    node = Stdlib()
    node.open()
    assert node.size() >= 4_000
    for question, title, url in (
        ("json.dumps serialize obj", "json.dumps", "json.html#json.dumps"),
        ("str.split substrings separator", "str.split", "stdtypes.html#str.split"),
        ("os.path.join", "os.path.join", "os.path.html#os.path.join"),
        ("math.isqrt integer square root", "math.isqrt", "math.html#math.isqrt"),
        ("asyncio.streams.open_connection", "asyncio.streams.open_connection", "asyncio.html"),
        ("ZeroDivisionError", "ZeroDivisionError", "exceptions.html#ZeroDivisionError"),
    ):
        hits = node.search(Query(question, ANALYSER.question(question), ANALYSER.id, 10)).hits
        assert (title, f"https://docs.python.org/3/library/{url}") in [(hit.title, hit.url) for hit in hits]
    node.close()


def test_the_catalogue_starts_nothing_slow() -> None:
    script = "import sys; from antiphon.connectors import catalogue; catalogue(); print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & {"watchfiles", "anyio", "cyclopts", "nats", "duckdb"} == set()
