"""Laws of the text analyser: everybody cuts the same words, and places stay places of the original text."""

from __future__ import annotations

import sqlite3
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.analyser import STEMS_MAX, STOP_WORDS, TERM_MAX, Analyser, default
from antiphon.messages.hit import TERMS_MAX

ANALYSER = default()
SOME = ["espresso", "machine", "grinder", "the", "cleaning", "東京", "タワー", "naïve", "Straße", "x9"]
WORDS = st.lists(st.sampled_from(SOME), max_size=60)


def test_its_id_names_the_rules_it_was_pinned_to() -> None:
    assert ANALYSER.id == "en-1"


def test_words_fold_and_stem_alike() -> None:
    assert ANALYSER.tokens("Running RUNS \uff52\uff55\uff4e") == ["run", "run", "run"]
    assert ANALYSER.tokens("snake_case, don't; 3.14") == ["snake", "case", "don", "t", "3", "14"]


def test_scripts_without_spaces_become_pairs() -> None:
    assert ANALYSER.tokens("東京タワー") == ["東京", "京タ", "タワ", "ワー"]
    assert ANALYSER.tokens("犬 and 猫") == ["犬", "and", "猫"]
    assert ANALYSER.tokens("Python入門") == ["python", "入門"]
    assert ANALYSER.tokens("हिन्दी") == ["हिन्दी"]


@given(st.text())
def test_a_term_has_no_white_space_and_a_bound(text: str) -> None:
    for term in ANALYSER.tokens(text):
        assert term
        assert len(term) <= TERM_MAX
        assert term.split() == [term]


@given(st.text())
def test_equivalent_writings_are_the_same_terms(text: str) -> None:
    assert ANALYSER.tokens(unicodedata.normalize("NFD", text)) == ANALYSER.tokens(unicodedata.normalize("NFC", text))


@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_path_is_the_general_one(text: str) -> None:
    assert ANALYSER.tokens(text + " é")[:-1] == ANALYSER.tokens(text)
    assert ANALYSER.tokens(text.upper()) == ANALYSER.tokens(text)


@given(st.text(), st.text())
def test_counts_add_up(text: str, other: str) -> None:
    tf, length = ANALYSER.counts(text)
    assert sum(tf.values()) == length == len(ANALYSER.tokens(text))
    both, both_length = ANALYSER.counts(f"{text}\n{other}")
    assert both_length == length + ANALYSER.counts(other)[1]
    assert all(both[term] >= count for term, count in tf.items())


@given(st.text(), st.text())
def test_frequencies_are_the_counts_of_these_terms(text: str, question: str) -> None:
    terms = ANALYSER.question(question)
    tf, length = ANALYSER.counts(text)
    assert ANALYSER.frequencies(text, terms) == ([tf.get(term, 0) for term in terms], length)


@given(st.text())
def test_a_question_is_bounded_distinct_and_made_of_its_texts_terms(text: str) -> None:
    terms = ANALYSER.question(text)
    assert len(terms) == len(set(terms)) <= TERMS_MAX
    assert set(terms) <= set(ANALYSER.tokens(text))
    assert bool(terms) == bool(ANALYSER.tokens(text))


def test_stop_words_count_only_where_there_is_nothing_else() -> None:
    assert ANALYSER.question("What is the best grinder?") == ("best", "grinder")
    assert ANALYSER.question("to be or not to be") == ("to", "be", "or", "not")
    assert "the" in STOP_WORDS
    assert "the" in ANALYSER.tokens("the grinder")


@given(WORDS, WORDS)
def test_spans_are_the_matching_words_in_order(words: list[str], asked: list[str]) -> None:
    text, terms = " ".join(words), ANALYSER.question(" ".join(asked))
    spans = ANALYSER.spans(text, terms)
    assert spans == sorted(spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    for start, end in spans:
        assert set(ANALYSER.tokens(text[start:end])) & set(terms)
    assert bool(spans) == bool(set(ANALYSER.tokens(text)) & set(terms))


@given(st.text(), st.text(), st.integers(20, 300))
def test_a_snippet_fits_and_comes_from_the_text(text: str, question: str, width: int) -> None:
    snippet = ANALYSER.snippet(text, ANALYSER.question(question), width)
    assert len(snippet) <= width + 2
    assert snippet.strip("…") in " ".join(text.split()) or not snippet.isprintable() or "…" in text


@given(WORDS.filter(bool), st.integers(40, 200))
def test_a_snippet_shows_a_match_where_there_is_one(words: list[str], width: int) -> None:
    text = " ".join([*["filler"] * 200, *words, *["filler"] * 200])
    terms = ANALYSER.question("espresso 東京")
    shown = set(ANALYSER.tokens(ANALYSER.snippet(text, terms, width))) & set(terms)
    assert bool(shown) == bool(set(ANALYSER.tokens(text)) & set(terms))


def test_a_snippet_takes_the_best_cluster_and_cuts_between_words() -> None:
    text = "grinder " + "filler " * 100 + "the espresso grinder needs cleaning " + "filler " * 100
    snippet = ANALYSER.snippet(text, ANALYSER.question("espresso grinder"), 60)
    assert "espresso grinder needs" in snippet
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert set(snippet.strip("…").split()) <= set(text.split())


def test_a_match_behind_the_first_scan_is_found() -> None:
    assert "needle" in ANALYSER.snippet("hay " * 50_000 + "needle " + "hay " * 10, ("needl",))


def test_memory_of_stems_is_bounded() -> None:
    analyser = Analyser()
    for start in range(0, STEMS_MAX * 2, 10_000):
        analyser.tokens(" ".join(f"w{number}" for number in range(start, start + 10_000)))
    assert len(analyser._stems) <= STEMS_MAX
    assert analyser.tokens("x" * 1_000) == ["x" * TERM_MAX]


@pytest.mark.parametrize("text", ["plain words 42", "naïve Straße", "東京タワー ภาษาไทย हिन्दी 한국어", "A" * 100])
def test_sqlite_cuts_joined_terms_back_into_the_same_terms(text: str) -> None:
    terms = ANALYSER.tokens(text)
    with sqlite3.connect(":memory:") as database:
        database.execute("create virtual table t using fts5(terms, tokenize='ascii')")
        database.execute("insert into t values (?)", (" ".join(terms),))
        database.execute("create virtual table v using fts5vocab(t, instance)")
        rows = database.execute("select term from v order by offset").fetchall()
    database.close()
    assert [term for (term,) in rows] == terms
