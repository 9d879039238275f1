"""Laws of evidence: the four tiers, what is clamped, and how little a liar can do."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replies import HUGE, QUESTION, TERMS, counted, honest, replies

from antiphon.decide.evidence import Tier, judge
from antiphon.decide.fusing import NodeReply, Question
from antiphon.decide.totals import ALONE_FACTOR, ALONE_SHARE, K1, B, standing
from antiphon.messages.wire import WireFound, WireHit, WireStatistics

frequencies = st.lists(st.integers(0, 20), min_size=3, max_size=3)
rows = st.lists(frequencies.map(lambda tf: (tf, sum(tf) + 40)), max_size=6)
shares = st.lists(st.integers(0, 500), min_size=3, max_size=3)


def told(docs: int, df: list[int], *, length: int | None = None, registered: int | None = None) -> NodeReply:
    size = docs * 100 if length is None else length
    found = WireFound(
        analyser=QUESTION.analyser, statistics=WireStatistics(docs, min(size, HUGE), df, min(size // 2, HUGE))
    )
    return NodeReply("liar", found, registered)


@given(st.lists(st.tuples(shares, rows), min_size=1, max_size=6))
def test_bm25_from_evidence_is_that_of_one_index_over_all_documents(nodes: list[Any]) -> None:
    """Whatever the layout over nodes, as long as no single node has nearly all of a common term."""
    given_replies = [honest(f"n{at}", df, *hits) for at, (df, hits) in enumerate(nodes)]
    judged = judge(QUESTION, given_replies)
    docs = 1_000 * len(nodes)
    expected = []
    for _, hits in nodes:
        for tf, length in hits:
            norm = K1 * (1 - B + B * length / 100)
            idf = [math.log(1 + (docs - n + 0.5) / (n + 0.5)) for n in judged.totals.df]
            expected.append(sum(w * f * (K1 + 1) / (f + norm) for w, f in zip(idf, tf, strict=True)))
    assert judged.values == pytest.approx(expected)
    assert not judged.flags
    true = [sum(df[term] for df, _ in nodes) for term in range(3)]
    assert all(df <= real for df, real in zip(judged.totals.df, true, strict=True))
    if max(true) <= ALONE_SHARE * docs or len(nodes) == 1:
        assert judged.totals.df == true


@given(st.integers(1, 40), st.data())
def test_written_out_questions_are_the_general_formula(size: int, data: st.DataObject) -> None:
    terms = tuple(f"t{at}" for at in range(min(size, 32)))
    question = Question("", terms, QUESTION.analyser)
    tf = data.draw(st.lists(st.integers(0, 9), min_size=len(terms), max_size=len(terms)))
    df = [at + 1 for at in range(len(terms))]
    found = WireFound(
        analyser=QUESTION.analyser, statistics=WireStatistics(1_000, 100_000, df, 50_000), hits=counted((tf, 400))
    )
    value = judge(question, [NodeReply("a", found, 1_000)]).values[0]
    norm = K1 * (1 - B + B * 4)
    idf = [math.log(1 + (1_000 - n + 0.5) / (n + 0.5)) for n in df]
    assert value == pytest.approx(sum(w * f * (K1 + 1) / (f + norm) for w, f in zip(idf, tf, strict=True)))


@given(replies())
def test_one_weak_hit_changes_no_value_of_the_others(given_replies: list[NodeReply]) -> None:
    """The hot path and the general one agree: a reply with one bare hit sends all through the general one."""
    bare = NodeReply("zz", WireFound(hits=[WireHit(id="bare", doc=msgspec.Raw(b"{}"))]))
    one, other = judge(QUESTION, given_replies), judge(QUESTION, [*given_replies, bare])
    assert other.values[:-1] == pytest.approx(one.values)
    assert other.tier(len(given_replies), 0) is Tier.RANK


@given(replies())
def test_whatever_nodes_send_values_are_finite_and_totals_possible(given_replies: list[NodeReply]) -> None:
    judged = judge(QUESTION, given_replies)
    assert all(math.isfinite(value) and value >= 0 for value in judged.values)
    assert all(0 <= df <= judged.totals.docs for df in judged.totals.df)
    assert all(prior is None or 0 < prior <= 1 or prior == 0 for prior in judged.totals.priors)
    low, high = judged.bounds()
    assert low <= high


def test_each_tier_is_recognised() -> None:
    first = honest("a", [5, 5, 5], ([1, 1, 1], 50))
    second = NodeReply("b", WireFound(analyser=QUESTION.analyser, hits=counted(([2, 0, 0], 50))), 1_000)
    text = NodeReply("c", WireFound(hits=[WireHit(id="1", doc=msgspec.Raw(b'{"title":"Alphas","snippet":"beta"}'))]))
    rank = NodeReply("d", WireFound(hits=[WireHit(id="1", doc=msgspec.Raw(b"{}"))]))
    judged = judge(Question("", TERMS, QUESTION.analyser), [first, second, text, rank])
    assert [judged.tier(at, 0) for at in range(4)] == [Tier.COUNTS, Tier.FREQUENCIES, Tier.TEXT, Tier.RANK]
    assert judged.values[2] > 0
    assert judged.values[3] == 0
    assert not judged.flags


def test_a_foreign_analysers_counts_are_not_added_up() -> None:
    foreign = honest("b", [900, 900, 900], ([9, 9, 9], 50))
    foreign.found = WireFound(analyser="xx-1", statistics=foreign.found.statistics, hits=foreign.found.hits)
    judged = judge(QUESTION, [honest("a", [5, 5, 5], ([1, 1, 1], 50)), foreign])
    assert judged.totals.docs == 1_000
    assert judged.tier(1, 0) is Tier.RANK
    assert judged.flags == {"b": ("foreign_analyser",)}


@pytest.mark.parametrize(
    ("tf", "length", "flag"),
    [
        ([1, 1], 50, "counts_malformed"),
        ([1, 1, 1, 1], 50, "counts_malformed"),
        ([51, 0, 0], 50, "counts_impossible"),
        ([20, 20, 20], 50, "counts_impossible"),
        ([HUGE] * 3, HUGE, "counts_impossible"),
    ],
)
def test_counts_that_cannot_be_are_no_evidence(tf: list[int], length: int, flag: str) -> None:
    judged = judge(QUESTION, [honest("a", [5, 5, 5], ([1, 1, 1], 50)), honest("b", [5, 5, 5], (tf, length))])
    assert judged.tier(1, 0) is Tier.RANK
    assert judged.flags == {"b": (flag,)}


def test_statistics_are_clamped_to_the_registered_size_and_flagged() -> None:
    totals, flags = standing(QUESTION, [told(10**6, [10**6, 5, 0], registered=100)])
    assert totals.docs == 100
    assert totals.df == [100, 5, 0]
    assert flags == {"liar": ("df_clamped", "docs_clamped")}


def test_a_nodes_own_word_at_its_join_bounds_what_it_claims_later() -> None:
    others = [honest("a", [5, 5, 5], size=50_000), honest("b", [5, 5, 5], size=50_000)]
    liar = told(90_000, [90_000, 5, 0])
    liar.docs_told = 10_000
    totals, flags = standing(QUESTION, [*others, liar])
    assert totals.docs == 100_000 + 11_000, "it may have grown by a tenth since it joined"
    assert flags == {"liar": ("df_clamped", "docs_clamped")}
    grown = told(10_500, [5, 5, 5])
    grown.docs_told = 10_000
    assert not standing(QUESTION, [*others, grown])[1], "whoever has grown is no liar"
    small = told(900, [5, 5, 5])
    small.docs_told = 3
    assert not standing(QUESTION, [*others, small])[1]


def test_a_nodes_own_word_lifts_no_bound_and_an_operators_does() -> None:
    giant = told(1_000_000, [5, 5, 5])
    others = [honest("a", [5, 5, 5])]
    giant.docs_told = 1_000_000
    totals, flags = standing(QUESTION, [*others, giant])
    assert (totals.docs, flags) == (2_000, {"liar": ("docs_clamped",)}), "no more than all others together"
    giant.docs_max = 1_000_000
    totals, flags = standing(QUESTION, [*others, giant])
    assert (totals.docs, flags) == (1_001_000, {})


def test_statistics_of_another_number_of_terms_are_ignored_and_flagged() -> None:
    totals, flags = standing(QUESTION, [told(100, [1, 2])])
    assert totals.docs == 0
    assert flags == {"liar": ("statistics_malformed",)}


@given(
    st.lists(shares, min_size=2, max_size=9),
    st.lists(st.integers(0, HUGE), min_size=3, max_size=3),
    st.integers(0, HUGE),
    st.integers(0, HUGE),
    st.tuples(st.none() | st.integers(0, 1_000), st.none() | st.integers(0, HUGE)),
)
def test_a_liar_moves_no_idf_beyond_its_bound(
    honest_df: list[list[int]], lied_df: list[int], docs: int, length: int, sizes: tuple[int | None, int | None]
) -> None:
    """Whatever one node claims, a term's share of documents rises at most to 2 % or ninefold, and halves at most."""
    others = [honest(f"n{at}", df) for at, df in enumerate(honest_df)]
    liar = told(docs, lied_df, length=length, registered=sizes[0])
    liar.docs_told = sizes[1]
    before, after = standing(QUESTION, others)[0], standing(QUESTION, [*others, liar])[0]
    assert after.docs <= 2 * before.docs
    for term, real in enumerate(sum(column) for column in zip(*honest_df, strict=True)):
        most = max(ALONE_SHARE * after.docs, ALONE_FACTOR * (real + 1), real)
        assert after.df[term] <= most
        assert after.df[term] >= min(before.df[term], ALONE_SHARE * before.docs) * (1 - 1e-9) - 1


@given(st.integers(0, HUGE), st.integers(1, 1_000))
def test_a_liar_moves_the_mean_length_at_most_tenfold(length: int, docs: int) -> None:
    others = [honest(f"n{at}", [1, 1, 1]) for at in range(4)]
    mean = standing(QUESTION, [*others, told(docs, [0, 0, 0], length=length, registered=docs)])[0].length_mean
    assert 10 <= mean <= 1_000


@given(st.lists(shares, min_size=1, max_size=6))
def test_the_best_fitting_node_has_prior_one(nodes: list[Any]) -> None:
    priors = standing(QUESTION, [honest(f"n{at}", df) for at, df in enumerate(nodes)])[0].priors
    assert max(prior for prior in priors if prior is not None) == 1


def test_a_node_that_holds_more_of_every_term_fits_better() -> None:
    low, high = standing(QUESTION, [honest("a", [1, 1, 1]), honest("b", [9, 9, 9])])[0].priors
    assert low is not None
    assert high == 1 > low


def test_unknown_postings_are_taken_from_the_length() -> None:
    known = honest("a", [3, 4, 5])
    unknown = honest("a", [3, 4, 5])
    unknown.found = WireFound(
        analyser=QUESTION.analyser, statistics=WireStatistics(1_000, 100_000, [3, 4, 5], 0), hits=[]
    )
    rival = honest("b", [9, 1, 0])
    assert standing(QUESTION, [known, rival])[0].priors == pytest.approx(standing(QUESTION, [unknown, rival])[0].priors)
