"""What a handler found becomes what travels: counted, hashed, with a snippet, and without the full text.

The evidence is the best that the handler allows (search.md): its own counts and statistics; else the question's terms
counted in the text that it returned; else counted in title and snippet, which the missing `length` says. Counting a
document costs fifty times what looking a count up does, and a node has few documents that are found often, so the last
ones are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice, repeat
from typing import Final, NamedTuple, cast

import msgspec
from pydantic import ValidationError

from antiphon.decide import analyser
from antiphon.decide.dedupe import content_hash
from antiphon.errors import HandlerFailed
from antiphon.messages.handler import Found, Hit, Query
from antiphon.messages.hit import HITS_MAX
from antiphon.messages.lane import NodeFound
from antiphon.messages.wire import WireDocument, WireLoad, WireStatistics, encode_wire

REMEMBERED_MAX = 2_048
REMEMBERED_TEXT_MAX = 8_192
"""Characters; a longer text is counted each time, so that what is remembered stays below some 20 MB."""
SNIPPET_WIDTH = 240
YIELDED_MAX: Final = 10 * HITS_MAX
"""Hits that are taken from a generator, which need not end by itself."""
_ENVELOPE_BYTES = 4_096
"""Room for what stands around the hits in a reply."""


class PresentedHit(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`NodeHit` as a node writes it."""

    id: str
    doc: WireDocument
    score: float | None = None
    tf: Sequence[int] | None = None
    length: int | None = None
    hash: str | None = None


class PresentedFound(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """`NodeFound` as a node writes it."""

    hits: list[PresentedHit]
    analyser: str | None
    statistics: WireStatistics | None
    load: WireLoad


def listed(returned: object) -> object:
    """Return what a generator yields, within the bound, and anything else as it is.

    To be called where the handler runs: the body of a generator runs when it is read.
    """
    if not isinstance(returned, Iterator):
        return returned
    return list(islice(cast("Iterator[object]", returned), YIELDED_MAX))


def found(returned: object) -> Found:
    """Return what a handler returned as `Found`; hits may be `Hit`s or mappings with a hit's fields.

    Raises `HandlerFailed` for anything else, with the first thing that is wrong.
    """
    returned = listed(returned)
    if isinstance(returned, Found):
        return returned
    if returned is None:
        return Found(())
    kind = type(returned).__name__
    if not isinstance(returned, Iterable) or isinstance(returned, (str, bytes, Mapping)):
        raise HandlerFailed(f"a search handler returns hits, not {kind}")
    try:
        return Found([one if type(one) is Hit else _hit(one) for one in cast("Iterable[object]", returned)])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise HandlerFailed(f"hit.{where}: {first['msg']}"[:200]) from error


def _hit(one: object) -> Hit:
    if isinstance(one, Hit):
        return one
    if isinstance(one, Mapping):
        return Hit.model_validate(one)
    raise HandlerFailed(f"a search handler returns hits, one was {type(one).__name__}")


def encode(query: Query, result: Found, load: WireLoad, *, bytes_max: int = NodeFound.size_max) -> tuple[bytes, int]:
    """Return the reply's JSON and how many hits were left out because of the bounds on number and bytes."""
    ours = analyser.default().id
    comparable = query.analyser == ours and result.analyser in (None, ours)
    terms = query.terms
    hits = [_present(terms, hit, comparable) for hit in result.hits[:HITS_MAX]]
    statistics = None
    if comparable and result.statistics is not None:
        given = result.statistics
        statistics = WireStatistics(given.docs, given.total_length, list(given.df), given.postings)
    reply = PresentedFound(hits, query.analyser if comparable else None, statistics, load)
    data = encode_wire(reply)
    if len(data) > bytes_max:
        hits[:] = _fitting(hits, bytes_max - _ENVELOPE_BYTES)
        data = encode_wire(reply)
    return data, len(result.hits) - len(hits)


def _fitting(hits: list[PresentedHit], bytes_max: int) -> list[PresentedHit]:
    fitting: list[PresentedHit] = []
    for hit in hits:
        bytes_max -= len(encode_wire(hit)) + 1
        if bytes_max < 0:
            break
        fitting.append(hit)
    return fitting


def _present(terms: tuple[str, ...], hit: Hit, comparable: bool) -> PresentedHit:
    of = hit.__dict__  # a model's attributes take three times as long
    title, text, snippet, given, digest = of["title"], of["text"], of["snippet"], of["counts"], of["hash"]
    if snippet is None and text:
        snippet = analyser.default().snippet(text, terms, SNIPPET_WIDTH)
    tf: Sequence[int] | None = None
    length: int | None = None
    seen = text or snippet
    if not comparable or given is not None:
        if given is not None and comparable:
            tf, length = given.tf, given.length
        if digest is None and seen:
            digest = (_remembered_hash if len(seen) <= REMEMBERED_TEXT_MAX else content_hash)(title, seen)
    elif title or seen:
        counted = (_remembered if len(seen or "") <= REMEMBERED_TEXT_MAX else _count)(title, seen or "")
        tf = list(map(counted.counts.get, terms, _NONE))
        length = counted.length if text else None
        digest = digest or counted.hash
    document = WireDocument(title, of["url"], snippet or None, of["kind"], of["time_ms"], of["fields"])
    return PresentedHit(of["id"], document, of["score"], tf, length, digest)


class _Counted(NamedTuple):
    """What is remembered of one text; the hash is None for a title alone."""

    counts: dict[str, int]
    length: int
    hash: str | None


def _count(title: str, text: str) -> _Counted:
    counts, length = analyser.default().counts(f"{title} {text}")
    return _Counted(counts, length, content_hash(title, text) if text else None)


_NONE = repeat(0)
_remembered = lru_cache(REMEMBERED_MAX)(_count)
_remembered_hash = lru_cache(REMEMBERED_MAX)(content_hash)
