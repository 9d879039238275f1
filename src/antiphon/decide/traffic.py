"""What came of the searches of the last seconds: requests a second, coverage and error rate, by node and instance.

A search that ends costs one look-up a line; whoever wants to know (the monitor) rolls the counts up once a second
into a window of ten. Nodes that operators have suspended or draining are no gap in the coverage: they are not asked
because somebody wished so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from antiphon.messages.search import Outcome
from antiphon.messages.wire import WireLine

SECONDS = 10
"""The window, in rolls of one second."""
WISHED = frozenset({"suspended", "draining"})

Key = tuple[str, str | None]
"""(node, instance)."""


@dataclass(slots=True)
class Tally:
    """What came of some requests."""

    answered: int = 0
    failed: int = 0
    """Failed or timed out."""
    skipped: int = 0
    """Not asked: an open breaker, nobody heard, no room."""

    @property
    def asked(self) -> int:
        """Requests that were sent."""
        return self.answered + self.failed

    @property
    def expected(self) -> int:
        """Lines of answers."""
        return self.asked + self.skipped

    @property
    def coverage(self) -> float:
        """The share of expected answers that came; 1 when none was expected."""
        return self.answered / self.expected if self.expected else 1.0

    @property
    def error_rate(self) -> float:
        """The share of requests that failed; 0 when none was sent."""
        return self.failed / self.asked if self.asked else 0.0

    def add(self, other: Tally) -> None:
        """Count another tally in."""
        self.answered += other.answered
        self.failed += other.failed
        self.skipped += other.skipped


class Traffic:
    """The counts of one master; changed in place, since it stands on the way of every search."""

    __slots__ = ("_counts", "_window", "last")

    def __init__(self, seconds: int = SECONDS) -> None:
        self._counts: dict[tuple[str, str | None, str, str | None], int] = {}
        self._window: deque[Mapping[str, Tally]] = deque(maxlen=seconds)
        self.last: Mapping[Key, Tally] = {}
        """The last second by instance."""

    def finished(self, lines: Iterable[WireLine]) -> None:
        """Count the lines of an answer."""
        counts = self._counts
        for line in lines:
            key = (line.node, line.instance, line.outcome, line.code)
            counts[key] = counts.get(key, 0) + 1

    def roll(self, known: Collection[str]) -> None:
        """End a second; what is not a known node (a fallback, one that left) is not counted."""
        counts, self._counts = self._counts, {}
        nodes: dict[str, Tally] = {}
        last: dict[Key, Tally] = {}
        for (node, instance, outcome, code), count in counts.items():
            if node not in known or (outcome == Outcome.SKIPPED and code in WISHED):
                continue
            tally = _tally(outcome, count)
            nodes.setdefault(node, Tally()).add(tally)
            last.setdefault((node, instance), Tally()).add(tally)
        self._window.append(nodes)
        self.last = last

    @property
    def seconds(self) -> int:
        """How much of the window there is yet, at least one."""
        return max(1, len(self._window))

    def node(self, node: str) -> Tally:
        """Return what came of a node's requests within the window."""
        return _sum(second[node] for second in self._window if node in second)

    def fabric(self) -> Tally:
        """Return what came of all requests within the window."""
        return _sum(tally for second in self._window for tally in second.values())


def _tally(outcome: str, count: int) -> Tally:
    if outcome == Outcome.SKIPPED:
        return Tally(skipped=count)
    return Tally(failed=count) if outcome in (Outcome.FAILED, Outcome.TIMED_OUT) else Tally(answered=count)


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total
