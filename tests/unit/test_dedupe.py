"""Laws of exact dedupe: each content once, its best copy first, nobody counted twice."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from replies import QUESTION, replies

from antiphon.decide.dedupe import Unique, content_hash, content_of, dedupe
from antiphon.decide.fuse import method
from antiphon.decide.fusing import NodeReply
from antiphon.messages.wire import WireFound, WireHit

methods = st.sampled_from(["evidence", "round_robin"])


def hit(name: str, content: str | None = None) -> WireHit:
    return WireHit(id=name, doc=msgspec.Raw(b"{}"), hash=content)


class Row(NamedTuple):
    score: float
    reply: int
    hit: int
    also: tuple[tuple[int, int], ...]


def rows(unique: Unique) -> list[Row]:
    return [Row(*one, tuple(unique.also.get(place, ()))) for place, one in enumerate(unique.scored)]


def fused(*given_replies: NodeReply) -> list[Row]:
    return rows(dedupe(method("round_robin").fuse(QUESTION, given_replies).scored, given_replies))


@given(replies(), methods)
def test_each_content_stands_once_and_every_source_is_kept(given_replies: list[NodeReply], name: str) -> None:
    scored = method(name).fuse(QUESTION, given_replies).scored
    result = rows(dedupe(scored, given_replies))
    hashes = [content_of(given_replies[one.reply].found.hits[one.hit]) for one in result]
    contents = [content for content in hashes if content]
    assert len(contents) == len(set(contents))
    assert set(contents) == {content_of(one) for reply in given_replies for one in reply.found.hits if one.hash}
    for one, content in zip(result, hashes, strict=True):
        sources = [given_replies[reply].node for reply, _ in [(one.reply, one.hit), *one.also]]
        assert len(sources) == len(set(sources))
        holders = {reply.node for reply in given_replies for h in reply.found.hits if content_of(h) == content}
        assert not content or set(sources) == holders
        assert content or not one.also


@given(replies(), methods)
def test_the_best_copy_stays_with_its_own_score_and_order(given_replies: list[NodeReply], name: str) -> None:
    scored = method(name).fuse(QUESTION, given_replies).scored
    result = rows(dedupe(scored, given_replies))
    places = {(reply, rank): at for at, (_, reply, rank) in enumerate(scored)}
    at = [places[one.reply, one.hit] for one in result]
    assert at == sorted(at)
    for one in result:
        assert scored[places[one.reply, one.hit]][0] == one.score
        assert all(places[copy] > places[one.reply, one.hit] for copy in one.also)


def test_hits_without_a_hash_are_never_merged_across_nodes() -> None:
    result = fused(NodeReply("a", WireFound(hits=[hit("1")])), NodeReply("b", WireFound(hits=[hit("1")])))
    assert len(result) == 2


def test_one_id_twice_from_one_node_counts_once() -> None:
    result = fused(
        NodeReply("a", WireFound(hits=[hit("1"), hit("1", "x")])), NodeReply("a", WireFound(hits=[hit("1")]))
    )
    assert [(one.reply, one.hit, one.also) for one in result] == [(0, 0, ())]


def test_copies_are_listed_one_a_node_best_first() -> None:
    first = NodeReply("a", WireFound(hits=[hit("1", "x"), hit("2", "x")]))
    second = NodeReply("b", WireFound(hits=[hit("3"), hit("4", "x"), hit("5", "x")]))
    third = NodeReply("c", WireFound(hits=[hit("6", "x")]))
    result = fused(first, second, third)
    assert [(one.reply, one.hit, one.also) for one in result] == [(0, 0, ((2, 0), (1, 1))), (1, 0, ())]


@given(st.text(st.characters()), st.text(st.characters()))
def test_a_content_hash_is_alike_for_case_and_spaces(title: str, text: str) -> None:
    one = content_hash(title, text)
    assert len(one) == 32
    assert one == content_hash(f"  {title}\n", f"\t{text} ")


def test_a_content_hash_tells_different_texts_apart() -> None:
    assert content_hash("Grinder", "A  text") == content_hash("grinder", "a text")
    assert content_hash("a", "b") != content_hash("a", "c")
    assert content_hash("a b", "") == content_hash("a", "b")


def titled(name: str, title: str, content: str) -> WireHit:
    return WireHit(id=name, doc=msgspec.Raw(msgspec.json.encode({"title": title})), hash=content)


def test_a_copied_hash_alone_takes_nobodys_place() -> None:
    honest = NodeReply("blog", WireFound(hits=[titled("1", "How to mend an outage", "x")]))
    liar = NodeReply("evil", WireFound(hits=[titled("9", "buy now", "x")]))
    assert {(one.reply, one.also) for one in fused(liar, honest)} == {(0, ()), (1, ())}
    mirror = NodeReply("mirror", WireFound(hits=[titled("2", "how to  MEND an outage", "x")]))
    assert [(one.reply, one.also) for one in fused(honest, mirror)] == [(0, ((1, 0),))]
