"""Laws of the text index: its counts are true, its hits bounded, and no question or change upsets it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.connectors.entry import ID_CHARS_MAX, Entry, searchable
from antiphon.connectors.index import TextIndex
from antiphon.decide.analyser import default
from antiphon.errors import Stopping
from antiphon.messages.handler import Found, Query

ANALYSER = default()
WORDS = [
    "naïve",
    "naive",
    "café",
    "日本語",
    "日本",
    "本を読む",
    "straße",
    "NEAR",
    "running",
    "run",
    "c++",
    "Ünï",
    "สวัสดี",
    "a\u0301",
]
texts = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    st.text(max_size=60),
)


def ask(text: str, limit: int = 20) -> Query:
    return Query(text, ANALYSER.question(text), ANALYSER.id, limit)


@pytest.fixture
def index() -> Iterator[TextIndex]:
    made = TextIndex()
    yield made
    made.close()


def check_true(index: TextIndex, entries: list[Entry], question: Query) -> Found:
    """Compare what a search says with a count by hand over the same entries."""
    found = index.search(question)
    counted = {entry.id: Counter(ANALYSER.tokens(searchable(entry))) for entry in entries}
    statistics = found.statistics
    assert statistics is not None
    assert statistics.docs == len(entries) == len(index)
    assert statistics.total_length == sum(count.total() for count in counted.values())
    assert statistics.postings == sum(len(count) for count in counted.values())
    assert statistics.df == tuple(sum(term in count for count in counted.values()) for term in question.terms)
    matching = {ident for ident, count in counted.items() if any(term in count for term in question.terms)}
    assert len(found.hits) == min(question.limit, len(matching))
    for hit in found.hits:
        assert hit.counts is not None
        assert hit.id in matching
        assert hit.counts.tf == tuple(counted[hit.id][term] for term in question.terms)
        assert sum(hit.counts.tf) <= hit.counts.length == counted[hit.id].total()
    return found


@given(documents=st.lists(st.tuples(texts, texts), max_size=8), question=texts, limit=st.integers(1, 5))
def test_counts_and_statistics_are_true(documents: list[tuple[str, str]], question: str, limit: int) -> None:
    entries = [Entry(str(number), title, text) for number, (title, text) in enumerate(documents)]
    index = TextIndex()
    try:
        index.add(entries)
        check_true(index, entries, ask(question, limit))
    finally:
        index.close()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(texts, max_size=3)), max_size=8), texts)
def test_counts_stay_true_over_changes(changes: list[tuple[str, list[str]]], question: str) -> None:
    held = dict[str, list[Entry]]()
    index = TextIndex()
    try:
        for origin, new in changes:
            held[origin] = [Entry(f"{origin}{at}", text=text, origin=origin) for at, text in enumerate(new)]
            index.replace({origin: held[origin]})
            check_true(index, [entry for group in held.values() for entry in group], ask(question))
        assert index.origins() == {origin for origin, group in held.items() if group}
    finally:
        index.close()


@given(st.dictionaries(st.sampled_from("abcd"), texts), st.dictionaries(st.sampled_from("abcd"), texts), texts)
def test_sync_leaves_exactly_the_wanted_entries(before: dict[str, str], after: dict[str, str], question: str) -> None:
    old = [Entry(ident, text=text) for ident, text in before.items()]
    new = [Entry(ident, text=text) for ident, text in after.items()]
    index = TextIndex()
    try:
        index.add(old)
        changed = index.sync(new)
        check_true(index, new, ask(question))
        assert (changed == 0) == (before == after)
        assert index.sync(new) == 0
    finally:
        index.close()


HOSTILE = [
    '"',
    "*",
    "NEAR(a b)",
    "a AND",
    "terms:x",
    "x*",
    "-x",
    "^x",
    "\x00",
    "\x1b[31m",
    "a\x00b",
    "'; DROP TABLE fts; --",
]


@given(st.lists(st.one_of(st.sampled_from(["", " ", *HOSTILE, "\ud800", "A B"]), st.text(max_size=8)), max_size=32))
def test_no_question_raises(terms: list[str]) -> None:
    index = TextIndex()
    try:
        index.add([Entry("1", text="near a b x drop table fts terms")])
        found = index.search(Query(" ".join(terms), tuple(terms), ANALYSER.id))
        assert found.statistics is not None
        assert len(found.statistics.df) == len(terms)
        index.search(Query(" ".join(terms)))
    finally:
        index.close()


@pytest.mark.parametrize("text", ["", "  ", "!!!", *HOSTILE])
def test_an_operator_of_the_engine_is_only_text(index: TextIndex, text: str) -> None:
    index.add([Entry("1", text="apple"), Entry("2", text="pear")])
    assert index.search(ask(text)).hits == []


def test_a_question_under_another_analyser_gets_text_and_no_counts(index: TextIndex) -> None:
    index.add([Entry("1", "Runner", "She was running home"), Entry("2", text="nothing")])
    found = index.search(Query("run", ("RUN#",), "xx-9"))
    assert [(hit.id, hit.text, hit.counts) for hit in found.hits] == [("1", "She was running home", None)]
    assert (found.statistics, found.analyser) == (None, None)
    assert found.hits[0].snippet == "She was running home"


def test_a_later_entry_takes_the_place_of_one_with_the_same_id(index: TextIndex) -> None:
    index.add([Entry("1", text="apple"), Entry("1", text="pear")])
    index.add([Entry("1", text="plum")])
    check_true(index, [Entry("1", text="plum")], ask("apple pear plum"))


def test_what_no_hit_can_hold_is_bounded(index: TextIndex) -> None:
    index.add([Entry("i" * 9_999, "t" * 9_999, "word \ud800" * 300_000, "u" * 9_999), Entry("\ud800", text="word")])
    long, short = sorted(index.search(ask("word")).hits, key=lambda hit: -len(hit.id))
    assert (len(long.id), len(long.title), long.url) == (ID_CHARS_MAX, 300, None)
    assert short.id == "\ufffd"


def test_equal_content_has_an_equal_hash(index: TextIndex) -> None:
    index.add([Entry("1", "Title", "some text"), Entry("2", "Title", "some  TEXT"), Entry("3", "Title", "other text")])
    one, two, three = (hit.hash for hit in sorted(index.search(ask("text")).hits, key=lambda hit: hit.id))
    assert one == two != three


def test_a_closed_index_says_so(index: TextIndex) -> None:
    index.close()
    index.close()
    with pytest.raises(Stopping):
        index.search(ask("word"))
    with pytest.raises(Stopping):
        index.add([Entry("1", text="word")])


def test_searches_during_changes_see_one_state_or_the_other(index: TextIndex) -> None:
    index.add(Entry(f"{at}", text="old word", origin="file") for at in range(100))
    stop, seen, failed = threading.Event(), set[tuple[int, ...]](), list[BaseException]()

    def search() -> None:
        try:
            while not stop.is_set():
                statistics = index.search(ask("old new", 3)).statistics
                assert statistics is not None
                seen.add(statistics.df)
        except BaseException as error:  # noqa: BLE001 -- a thread's error has no other way out
            failed.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        word = ("new", "old")[turn % 2]
        index.replace({"file": [Entry(f"{at}", text=f"{word} word", origin="file") for at in range(100)]})
    stop.set()
    for thread in threads:
        thread.join()
    assert failed == []
    assert seen <= {(100, 0), (0, 100)}
