"""Laws of the expected score: bounded, never rising, and near what chance deals."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replies import HUGE, QUESTION, honest

from antiphon.decide.evidence import Tier, judge
from antiphon.decide.expected import expected
from antiphon.decide.fuse import method
from antiphon.decide.fusing import NodeReply
from antiphon.decide.totals import K1, B
from antiphon.messages.wire import WireFound, WireHit, WireStatistics

NORM = (K1 * (1 - B), K1 * B / 100)
WEIGHTS = [12.0, 8.0, 3.0]


def of(df: list[int], *, docs: int = 1_000, length: int = 100, times: float = 5 / 3) -> WireStatistics:
    return WireStatistics(docs, docs * length, df, int(docs * length / times))


def ranked(node: str, df: list[int], hits: int = 3) -> NodeReply:
    """Return the reply of a node that tells its order and its collection."""
    bare = [WireHit(id=f"d{at}", doc=msgspec.Raw(b"{}")) for at in range(hits)]
    told = honest(node, df).found.statistics
    return NodeReply(node, WireFound(analyser=QUESTION.analyser, statistics=told, hits=bare), 1_000)


def places(fusion: str, *given_replies: NodeReply) -> list[tuple[int, int]]:
    return [(reply, hit) for _, reply, hit in method(fusion).fuse(QUESTION, given_replies).scored]


@given(
    st.integers(1, HUGE),
    st.integers(0, HUGE),
    st.integers(0, HUGE),
    st.lists(st.tuples(st.floats(0, 1), st.floats(1e-9, 100)), max_size=32),
    st.integers(0, 40),
)
def test_an_expected_score_is_between_nothing_and_a_document_full_of_all_terms_and_never_rises(
    docs: int, length: int, postings: int, terms: list[tuple[float, float]], size: int
) -> None:
    told = WireStatistics(docs, length, [int(share * docs) for share, _ in terms], postings)
    weights = [weight for _, weight in terms]
    scores = expected(told, size, weights, NORM)
    assert len(scores) == size
    assert all(math.isfinite(score) and 0 <= score <= sum(weights) * (1 + 1e-9) for score in scores)
    assert all(one >= other for one, other in pairwise(scores))


@pytest.mark.parametrize("df", [[40, 120, 400], [5, 5, 5], [300, 20, 3]])
def test_expected_scores_are_those_that_chance_deals_or_somewhat_higher(df: list[int]) -> None:
    """The rate bounds the share of documents from above, so the score at a place is never too low."""
    dice, times, rounds = Random(7), 2.0, 30
    told, norm = of(df, times=times), NORM[0] + NORM[1] * 100
    sums = [0.0] * 20
    for _ in range(rounds):
        dealt: list[float] = []
        for _ in range(told.docs):
            held = [weight for n, weight in zip(df, WEIGHTS, strict=True) if dice.random() < n / told.docs]
            tfs = [1 + int(math.log(1 - dice.random()) / math.log(1 - 1 / times)) for _ in held]
            dealt.append(sum(weight * tf / (tf + norm) for weight, tf in zip(held, tfs, strict=True)))
        sums = [so_far + score for so_far, score in zip(sums, sorted(dealt, reverse=True), strict=False)]
    scores = expected(told, 20, WEIGHTS, NORM)
    assert scores[0] <= 1.3 * sums[0] / rounds
    assert all(score >= total / rounds for score, total in zip(scores, sums, strict=True))


def test_more_documents_with_a_term_shorter_ones_and_rarer_terms_let_expect_more() -> None:
    usual = expected(of([5, 5, 5]), 3, WEIGHTS, NORM)
    for better in (of([50, 5, 5]), of([5, 5, 50]), of([5, 5, 5], length=20), of([5, 5, 5], times=4)):
        assert all(one > other for one, other in zip(expected(better, 3, WEIGHTS, NORM), usual, strict=True))
    assert expected(of([5, 0, 0]), 1, WEIGHTS, NORM) > expected(of([0, 0, 5]), 1, WEIGHTS, NORM)


def test_a_collection_without_the_terms_lets_expect_nothing() -> None:
    assert expected(of([0, 0, 0]), 2, WEIGHTS, NORM) == [0, 0]
    assert expected(of([]), 2, [], NORM) == [0, 0]


def test_a_node_of_ranks_is_judged_by_what_its_frequencies_let_expect() -> None:
    judged = judge(QUESTION, [ranked("a", [2, 0, 0]), ranked("b", [60, 50, 40])])
    assert judged.tier(0, 0) is judged.tier(1, 0) is Tier.RANK
    assert judged.values[3] > judged.values[0] > 0
    assert judged.bounds() == (min(judged.values), max(judged.values)), "there is nothing better to measure by"


@pytest.mark.parametrize("fusion", ["evidence", "bm25"])
def test_among_nodes_of_ranks_the_one_that_holds_the_questions_terms_leads(fusion: str) -> None:
    order = places(fusion, ranked("a", [1, 0, 30]), ranked("b", [60, 50, 40]))
    assert order[:3] == [(1, 0), (1, 1), (1, 2)]


def test_what_is_expected_is_worth_no_more_than_the_best_hit_with_evidence() -> None:
    weak = honest("a", [60, 50, 40], ([1, 0, 0], 100), ([0, 0, 1], 100))
    fusing = method("evidence").fuse(QUESTION, [weak, ranked("b", [60, 50, 40])])
    explained = fusing.explain(1, 0)
    assert explained["bm25_scaled"] == 1
    assert explained["tier"] == "rank"


def test_a_single_hit_with_evidence_is_measured_against_what_is_expected_of_others() -> None:
    strong = honest("a", [60, 50, 40], ([9, 9, 9], 100))
    assert places("evidence", strong, ranked("b", [2, 1, 1]))[0] == (0, 0)


def test_a_node_that_tells_nothing_counts_as_the_others_at_its_ranks() -> None:
    nothing = NodeReply("c", WireFound(hits=[WireHit(id="d0", doc=msgspec.Raw(b"{}"))]))
    order = places("evidence", ranked("a", [1, 0, 0]), ranked("b", [60, 50, 40]), nothing)
    assert order.index((1, 0)) < order.index((2, 0)) < order.index((0, 0))
