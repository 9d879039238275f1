"""What a handler found becomes what travels: counted, hashed, with a snippet, and without the full text.

The evidence is the best that the handler allows (SEARCH.md): its own counts and statistics; else the question's terms
counted in the text that it returned; else counted in title and snippet, which the missing `length` says. Counting a
document costs fifty times what looking a count up does, and a node has few documents that are found often, so the last
ones are remembered.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

import orjson
from pydantic import ValidationError

from antiphon.decide import analyser
from antiphon.decide.dedupe import content_hash
from antiphon.errors import HandlerFailed
from antiphon.messages.handler import Found, Hit, Query
from antiphon.messages.hit import HITS_MAX
from antiphon.messages.lane import Load, NodeFound

REMEMBERED_MAX = 2_048
REMEMBERED_TEXT_MAX = 8_192
"""Characters; a longer text is counted each time, so that what is remembered stays below some 20 MB."""
SNIPPET_WIDTH = 240
_ENVELOPE_BYTES = 4_096
"""Room for what stands around the hits in a reply."""


def found(returned: object) -> Found:
    """Return what a handler returned as `Found`; hits may be `Hit`s or mappings with a hit's fields.

    Raises `HandlerFailed` for anything else, with the first thing that is wrong.
    """
    if isinstance(returned, Found):
        return returned
    if returned is None:
        return Found(())
    if isinstance(returned, (str, bytes, Mapping, AsyncIterable)) or not isinstance(returned, Iterable):
        raise HandlerFailed(f"a search handler returns hits, not {type(returned).__name__}")
    try:
        return Found([_hit(one) for one in cast("Iterable[object]", returned)])
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


def encode(query: Query, result: Found, load: Load, *, bytes_max: int = NodeFound.size_max) -> tuple[bytes, int]:
    """Return the reply's JSON and how many hits were left out because of the bounds on number and bytes."""
    comparable = query.analyser == analyser.default().id
    hits = [_wire(query, hit, comparable=comparable) for hit in result.hits[:HITS_MAX]]
    reply: dict[str, Any] = {"hits": hits, "load": {"in_flight": load.in_flight, "latency_us": load.latency_us}}
    if comparable:
        reply["analyser"] = query.analyser
        if result.statistics is not None:
            reply["statistics"] = result.statistics.model_dump()
    data = orjson.dumps(reply)
    if len(data) > bytes_max:
        reply["hits"] = hits = list(_fitting(hits, bytes_max - _ENVELOPE_BYTES))
        data = orjson.dumps(reply)
    return data, len(result.hits) - len(hits)


def _fitting(hits: list[dict[str, Any]], bytes_max: int) -> Iterable[dict[str, Any]]:
    for hit in hits:
        bytes_max -= len(orjson.dumps(hit)) + 1
        if bytes_max < 0:
            return
        yield hit


def _wire(query: Query, hit: Hit, *, comparable: bool) -> dict[str, Any]:
    document: dict[str, Any] = {"title": hit.title}
    for name in ("url", "kind", "time_ms"):
        if (value := getattr(hit, name)) is not None:
            document[name] = value
    if hit.fields:
        document["fields"] = hit.fields
    snippet = hit.snippet
    if snippet is None and hit.text:
        snippet = analyser.default().snippet(hit.text, query.terms, SNIPPET_WIDTH)
    if snippet:
        document["snippet"] = snippet
    wire: dict[str, Any] = {"id": hit.id, "doc": document}
    if hit.score is not None:
        wire["score"] = hit.score
    if (hash_ := hit.hash or _hash(hit.title, hit.text or snippet)) is not None:
        wire["hash"] = hash_
    if comparable:
        _add_evidence(wire, query, hit, snippet)
    return wire


def _add_evidence(wire: dict[str, Any], query: Query, hit: Hit, snippet: str | None) -> None:
    if hit.counts is not None:
        wire["tf"], wire["length"] = hit.counts.tf, hit.counts.length
    elif hit.text:
        counts, wire["length"] = _counted(hit.title, hit.text)
        wire["tf"] = [counts.get(term, 0) for term in query.terms]
    elif hit.title or snippet:
        counts, _ = _counted(hit.title, snippet or "")
        wire["tf"] = [counts.get(term, 0) for term in query.terms]


def _counted(title: str, text: str) -> tuple[dict[str, int], int]:
    return (_remembered if len(text) <= REMEMBERED_TEXT_MAX else _count)(title, text)


def _count(title: str, text: str) -> tuple[dict[str, int], int]:
    return analyser.default().counts(f"{title} {text}")


_remembered = lru_cache(REMEMBERED_MAX)(_count)


def _hash(title: str, text: str | None) -> str | None:
    if not text:
        return None
    return (_remembered_hash if len(text) <= REMEMBERED_TEXT_MAX else content_hash)(title, text)


_remembered_hash = lru_cache(REMEMBERED_MAX)(content_hash)
