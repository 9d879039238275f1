"""An exact gather: who is expected, who was asked, what became of them, and when it is over.

Sans-I/O: asks go out and replies come in through the caller, time is an argument. The expected set is known from the
registry, so the gather ends the moment the last expected node has answered, failed or passed the deadline; there is
no timer that waits for more. "Nobody listens" means that the question was never delivered: the node's next instance
is asked at once. One object holds one gather and is changed by its methods only; a new frozen state for each of ten
replies would cost a third of a search (docs/decisions).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from antiphon.messages.search import Outcome

PENDING = None


class Expected(msgspec.Struct, frozen=True, gc=False):
    """One node of the expected set and its instances in the order to try them; none when all are down."""

    node: str
    instances: tuple[str, ...]


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Ask this instance now; asks are numbered in the order in which they are given out."""

    at: int
    node: str
    instance: str


class Line:
    """What is known of one expected node."""

    __slots__ = ("attempts", "code", "hits", "instance", "node", "outcome", "text", "took_us", "tries")

    def __init__(self, expected: Expected) -> None:
        self.node = expected.node
        self.tries = expected.instances
        self.instance: str | None = None
        self.outcome: Outcome | None = PENDING
        self.code: str | None = None
        self.text: str | None = None
        self.hits = 0
        self.took_us = 0
        self.attempts = 0


class Gathering:
    """One gather in progress."""

    __slots__ = ("_asked_us", "_owners", "counts", "lines", "pending")

    def __init__(self, expected: Sequence[Expected]) -> None:
        self.lines = [Line(one) for one in expected]
        self.pending = len(self.lines)
        self.counts = dict.fromkeys(Outcome, 0)
        self._owners: list[int] = []
        self._asked_us: list[int] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected."""
        return self.pending == 0

    def begin(self, now_us: int) -> list[Ask]:
        """Return whom to ask first: one instance of each node; a node of which all instances are down is skipped."""
        asks: list[Ask] = []
        for at, line in enumerate(self.lines):
            if line.tries:
                asks.append(self._ask(at, now_us))
            else:
                self._end(line, Outcome.SKIPPED, "down", "every instance has missed its heartbeats")
        return asks

    def answered(self, slot: int, hits: int, now_us: int) -> int | None:
        """Take an answer; return the index of its line, or None if that node's fate is sealed already."""
        at = self._owners[slot]
        line = self.lines[at]
        if line.outcome is not PENDING:
            return None
        line.hits = hits
        line.took_us = now_us - self._asked_us[slot]
        self._end(line, Outcome.ANSWERED if hits else Outcome.EMPTY)
        return at

    def failed(self, slot: int, code: str, text: str, now_us: int, *, is_undelivered: bool = False) -> Ask | None:
        """Take a failure; return whom to ask instead when the question was never delivered."""
        at = self._owners[slot]
        line = self.lines[at]
        if line.outcome is not PENDING:
            return None
        line.took_us = now_us - self._asked_us[slot]
        if is_undelivered and line.attempts < len(line.tries):
            return self._ask(at, now_us)
        self._end(line, Outcome.FAILED, code, text)
        return None

    def deadline(self, now_us: int) -> None:
        """End the gather: whoever has not answered has timed out."""
        asked = dict(zip(self._owners, self._asked_us, strict=True))
        for at, line in enumerate(self.lines):
            if line.outcome is PENDING:
                line.took_us = now_us - asked.get(at, now_us)
                self._end(line, Outcome.TIMED_OUT, "out_of_budget", "no answer within the deadline")

    def open(self) -> list[Ask]:
        """Return whom was asked and has neither answered nor failed."""
        return [
            Ask(at, line.node, line.instance)
            for at, line in enumerate(self.lines)
            if line.outcome is PENDING and line.instance is not None
        ]

    @property
    def reached(self) -> int:
        """How many nodes answered, the empty ones among them."""
        return self.counts[Outcome.ANSWERED] + self.counts[Outcome.EMPTY]

    @property
    def answering(self) -> frozenset[str]:
        """The names of the nodes that answered."""
        return frozenset(line.node for line in self.lines if line.outcome in (Outcome.ANSWERED, Outcome.EMPTY))

    def _ask(self, at: int, now_us: int) -> Ask:
        line = self.lines[at]
        line.instance = line.tries[line.attempts]
        line.attempts += 1
        self._owners.append(at)
        self._asked_us.append(now_us)
        return Ask(at, line.node, line.instance)

    def _end(self, line: Line, outcome: Outcome, code: str | None = None, text: str | None = None) -> None:
        line.outcome = outcome
        line.code = code
        line.text = text
        self.pending -= 1
        self.counts[outcome] += 1
