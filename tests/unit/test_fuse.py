"""Laws of fusion, run on every method of the catalogue by themselves."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from replies import QUESTION, honest, replies

from antiphon.decide.fuse import DEFAULT, method, methods
from antiphon.decide.fusing import Fusing, Fusion, NodeReply, Question
from antiphon.errors import UnknownMethod
from antiphon.messages.wire import WireFound, WireHit

NOTHING = msgspec.Raw(b"{}")
each = pytest.mark.parametrize("fusion", methods().values(), ids=list(methods()))
questions = st.sampled_from(
    [QUESTION, Question("", (), None), Question("x", QUESTION.terms, None), Question("", (), "en-1")]
)


def places(fusing: Fusing, given_replies: list[NodeReply]) -> list[tuple[float, str, int]]:
    return [(score, given_replies[reply].node, hit) for score, reply, hit in fusing.scored]


def test_the_catalogue_has_what_the_documentation_promises() -> None:
    assert {"evidence", "bm25", "snippets", "prior_rank", "rrf", "raw_score", "round_robin"} <= set(methods())
    assert method(DEFAULT).name == DEFAULT
    assert all(fusion.summary for fusion in methods().values())


def test_an_unknown_method_is_a_typed_error() -> None:
    with pytest.raises(UnknownMethod, match="evidence"):
        method("magic")


@each
@given(questions, replies())
def test_every_hit_comes_out_once_with_a_finite_score_best_first(
    fusion: Fusion, question: Question, given_replies: list[NodeReply]
) -> None:
    scored = fusion.fuse(question, given_replies).scored
    everything = [(at, rank) for at, reply in enumerate(given_replies) for rank in range(len(reply.found.hits))]
    assert sorted((reply, hit) for _, reply, hit in scored) == everything
    assert all(math.isfinite(score) for score, _, _ in scored)
    assert all(one[0] >= other[0] for one, other in pairwise(scored))


@each
@given(questions, replies(), st.randoms(use_true_random=False))
def test_the_order_of_replies_changes_nothing(
    fusion: Fusion, question: Question, given_replies: list[NodeReply], dice: Random
) -> None:
    mixed = given_replies.copy()
    dice.shuffle(mixed)
    one, other = fusion.fuse(question, given_replies), fusion.fuse(question, mixed)
    assert places(one, given_replies) == places(other, mixed)
    assert one.flags == other.flags


@each
@given(questions, replies())
def test_ties_go_by_rank_then_by_name(fusion: Fusion, question: Question, given_replies: list[NodeReply]) -> None:
    keys = [(-score, hit, node) for score, node, hit in places(fusion.fuse(question, given_replies), given_replies)]
    assert keys == sorted(keys)


@each
@given(questions, replies())
def test_a_nodes_own_order_stays_where_the_method_promises_it(
    fusion: Fusion, question: Question, given_replies: list[NodeReply]
) -> None:
    if fusion.keeps_node_order:
        seen: dict[int, int] = {}
        for _, reply, hit in fusion.fuse(question, given_replies).scored:
            assert hit == seen.get(reply, -1) + 1
            seen[reply] = hit


@each
@given(replies(nodes_max=1))
def test_one_node_that_gives_ranks_alone_keeps_its_order(fusion: Fusion, given_replies: list[NodeReply]) -> None:
    bare = [
        NodeReply(one.node, WireFound(hits=[WireHit(id=hit.id, doc=NOTHING) for hit in one.found.hits]))
        for one in given_replies
    ]
    ranks = [hit for _, _, hit in fusion.fuse(QUESTION, bare).scored]
    assert ranks == sorted(ranks)


@each
@given(questions, replies())
def test_every_place_can_be_explained(fusion: Fusion, question: Question, given_replies: list[NodeReply]) -> None:
    fusing = fusion.fuse(question, given_replies)
    for _, reply, hit in fusing.scored:
        told = fusing.explain(reply, hit)
        assert told["rank"] == hit
        assert all(math.isfinite(value) for value in told.values() if isinstance(value, float))


@each
@pytest.mark.parametrize("given_replies", [[], [NodeReply("a", WireFound())], [honest("a", [0, 0, 0])]], ids=len)
def test_nothing_found_is_an_empty_list(fusion: Fusion, given_replies: list[NodeReply]) -> None:
    assert fusion.fuse(QUESTION, given_replies).scored == []


def test_raw_score_puts_a_missing_score_below_every_given_one() -> None:
    hits = [WireHit(id=str(at), doc=NOTHING, score=score) for at, score in enumerate((None, -5.0, math.nan))]
    given_replies = [NodeReply("a", WireFound(hits=hits))]
    assert [hit for _, _, hit in method("raw_score").fuse(QUESTION, given_replies).scored] == [1, 0, 2]


def test_rrf_adds_the_votes_of_different_nodes_for_one_content_and_of_no_node_twice() -> None:
    def hit(name: str, content: str) -> WireHit:
        return WireHit(id=name, doc=NOTHING, hash=content)

    first = NodeReply("a", WireFound(hits=[hit("1", "only-a"), hit("2", "both")]))
    second = NodeReply("b", WireFound(hits=[hit("3", "both"), hit("4", "both")]))
    scored = method("rrf").fuse(QUESTION, [first, second]).scored
    assert scored[0][0] == pytest.approx(1 / 61 + 1 / 62)
    assert {place[1:] for place in scored[:3]} == {(1, 0), (0, 1), (1, 1)}


def test_evidence_ranks_the_right_nodes_first_hit_above_the_wrong_ones() -> None:
    right = honest("z", [50, 40, 30], ([4, 3, 2], 100), ([3, 2, 1], 100))
    wrong = honest("a", [5, 0, 0], ([1, 0, 0], 100), ([1, 0, 0], 300))
    assert [place[1] for place in method("evidence").fuse(QUESTION, [wrong, right]).scored] == [1, 1, 0, 0]
    assert [place[1] for place in method("rrf").fuse(QUESTION, [wrong, right]).scored] == [0, 1, 0, 1]
