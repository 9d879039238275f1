"""The hot path's own decoder of `NodeFound`: the same message as `messages.lane`, read four times as fast.

A master reads ten of these a search. It ranks by the evidence and passes the documents on, so `doc` stays raw
bytes until a hit has won; only then is it checked against `Document`. `tests/unit/test_wire.py` holds these
structs to the pydantic models: same fields, same bounds, same verdict on the same bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from antiphon.errors import InvalidReply, Oversize
from antiphon.messages.hit import HITS_MAX, TERMS_MAX
from antiphon.messages.lane import NodeFound

WireCount = Annotated[int, Meta(ge=0, le=2**53)]
WireCounts = Annotated[list[WireCount], Meta(max_length=TERMS_MAX)]


class WireStatistics(msgspec.Struct, frozen=True, gc=False):
    """`Statistics` as it is read on the hot path."""

    docs: WireCount
    total_length: WireCount
    df: WireCounts
    postings: WireCount = 0


class WireLoad(msgspec.Struct, frozen=True, gc=False):
    """`Load` as it is read on the hot path."""

    in_flight: WireCount = 0
    latency_us: WireCount = 0


class WireHit(msgspec.Struct, frozen=True, gc=False):
    """`NodeHit` as it is read on the hot path; `doc` is the document's JSON as it came."""

    id: Annotated[str, Meta(min_length=1, max_length=512)]
    doc: msgspec.Raw
    score: float | None = None
    tf: WireCounts | None = None
    length: WireCount | None = None
    hash: Annotated[str, Meta(max_length=64)] | None = None


class WireFound(msgspec.Struct, frozen=True, gc=False):
    """`NodeFound` as it is read on the hot path."""

    request: str | None = None
    analyser: Annotated[str, Meta(max_length=200)] | None = None
    statistics: WireStatistics | None = None
    hits: list[WireHit] = msgspec.field(default_factory=list)
    load: WireLoad | None = None


_found = msgspec.json.Decoder(WireFound)


def decode_found(payload: bytes) -> tuple[WireFound, int]:
    """Return what a node found and how many hits beyond the bound were cut off.

    Raises `Oversize` or `InvalidReply`; anything a node may send ends in one of the two or in a legal value.
    """
    if len(payload) > NodeFound.size_max:
        raise Oversize(f"a reply of {len(payload)} bytes; the bound is {NodeFound.size_max}")
    try:
        # msgspec passes invalid UTF-8 through inside raw values, and a reader of the answer would choke on it
        found = _found.decode(str(payload, "utf-8"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidReply(f"{type(error).__name__}: {error}"[:200]) from None
    clipped = len(found.hits) - HITS_MAX
    if clipped > 0:
        del found.hits[HITS_MAX:]
        return found, clipped
    return found, 0
