"""What a search has brought together: the fused list that pages are cut from, a line a node, and the coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from antiphon.decide.dedupe import Unique
from antiphon.decide.fusing import Fusion, NodeReply, Question
from antiphon.decide.gather import Gathering, Line
from antiphon.messages.search import Outcome, SearchAsk
from antiphon.messages.wire import WireCoverage, WireLine, decode_found


@dataclass(slots=True)
class Listing:
    """A whole fused list, as pages are cut from it.

    One that may be paged is kept for a minute, as the bytes that the nodes sent and their order: decoded replies are
    thousands of objects for the garbage collector to walk. A page decodes and explains anew. Keeping costs a search
    half as much again, because its memory is not used again while it is warm; so it is done where it is asked for.
    """

    request: str
    owner: str
    """The principal that it was made for; nobody else gets a page of it."""
    ask: SearchAsk
    question: Question
    fusion: Fusion
    unique: Unique
    payloads: list[tuple[str, bytes, tuple[int | None, int | None]]]
    """Node, its reply's bytes, and for how many documents it counts (`decide/registry.py`: `sizes`)."""
    coverage: WireCoverage
    lines: list[WireLine]
    is_complete: bool
    is_sufficient: bool
    token: str

    def replies(self) -> list[NodeReply]:
        """Return the replies, decoded anew."""
        return [NodeReply(node, decode_found(data)[0], *known) for node, data, known in self.payloads]


def coverage(gathering: Gathering, suspects_itself: Callable[[], bool], *, fell_back: bool) -> WireCoverage:
    """Return how much of the expected set answered, and what an asker should know besides."""
    counts = gathering.counts
    degraded: list[str] = []
    if not gathering.lines:
        degraded.append("no_nodes")
    if fell_back:
        degraded.append("fallback")
    if (counts[Outcome.FAILED] or counts[Outcome.TIMED_OUT]) and suspects_itself():
        degraded.append("self")
    return WireCoverage(
        expected=len(gathering.lines),
        answered=gathering.reached,
        empty=counts[Outcome.EMPTY],
        failed=counts[Outcome.FAILED],
        timed_out=counts[Outcome.TIMED_OUT],
        skipped_open=counts[Outcome.SKIPPED],
        hedged=gathering.hedged,
        degraded=tuple(degraded),
    )


def line_of(line: Line, flags: tuple[str, ...]) -> WireLine:
    """Return a node's line of the answer; the gather is over."""
    assert line.outcome is not None, "the gather is over"
    return WireLine(
        node=line.node,
        outcome=line.outcome,
        instance=line.instance,
        hits=line.hits,
        took_us=line.took_us,
        code=line.code,
        text=line.text[:200] if line.text else None,
        attempts=line.attempts,
        flags=flags,
        reply_bytes=line.reply_bytes,
        hedge=line.hedge,
        wasted_us=line.wasted_us,
    )
