"""A bulkhead: so many requests to one node at once, so many waiting in order, and the rest refused at once.

A ship's bulkhead keeps one leak from sinking it: a slow node fills its own compartment and not the master (Nygard,
*Release It!*). The queue is first in, first out, and knows its deadlines: an entry whose deadline has passed is never
run, for its asker has gone. Work after its deadline is the work that keeps an overloaded system overloaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)
SMOOTHING: Final = 8
"""The pace is a moving average over about so many departures."""


class Turn(StrEnum):
    """What becomes of a request that wants in."""

    RUN = "run"
    WAIT = "wait"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Run now, wait for `left` to name it, or refuse with `Overloaded` and this many milliseconds to wait."""

    turn: Turn
    retry_after_ms: int = 0


RUN: Final = Verdict(Turn.RUN)
WAIT: Final = Verdict(Turn.WAIT)


@dataclass(frozen=True, slots=True)
class BulkheadBounds:
    """The limits of one node's compartment."""

    in_flight_max: int = 64
    """`max_parallel_requests` of the node."""
    queue_max: int = 128
    """Twice what runs: the last in the queue waits for about two service times."""
    retry_after_ms: int = 100
    """Until a pace is known."""
    retry_after_ms_max: int = 5_000


class Bulkhead(Generic[T]):
    """The compartment of one node; entries are named by tokens of the caller's choice, each used once.

    Laws: never more than `in_flight_max` run and `queue_max` wait; entries run in the order of their coming; each has
    exactly one fate: run, expired, withdrawn or refused; none is run at or after its deadline; nobody waits while there
    is room.
    """

    __slots__ = ("_left_ms", "_pace_ms", "_waiting", "bounds", "in_flight")

    def __init__(self, bounds: BulkheadBounds | None = None) -> None:
        self.bounds = bounds or BulkheadBounds()
        self.in_flight = 0
        self._waiting: OrderedDict[T, int] = OrderedDict()
        self._pace_ms = float(self.bounds.retry_after_ms)
        self._left_ms: int | None = None

    @property
    def waiting(self) -> int:
        """How many wait, those with a passed deadline among them until somebody looks."""
        return len(self._waiting)

    def enter(self, token: T, deadline_ms: int, now_ms: int) -> Verdict:
        """Ask to run; `expired` says who of the queue has to be told when this finds it full of the dead."""
        if self.in_flight < self.bounds.in_flight_max:
            self.in_flight += 1
            return RUN
        if len(self._waiting) >= self.bounds.queue_max or deadline_ms <= now_ms:
            return Verdict(Turn.REFUSE, self._retry_after_ms())
        assert token not in self._waiting, "a token is used once"
        self._waiting[token] = deadline_ms
        return WAIT

    def left(self, now_ms: int) -> tuple[T | None, tuple[T, ...]]:
        """Note that one has ended, however it ended; return whose turn it is now and who came too late."""
        assert self.in_flight > 0, "one leaves for each that ran"
        self.in_flight -= 1
        if self._left_ms is not None and self._waiting:
            self._pace_ms += (now_ms - self._left_ms - self._pace_ms) / SMOOTHING
        self._left_ms = now_ms
        expired: list[T] = []
        while self._waiting and self.in_flight < self.bounds.in_flight_max:
            token, deadline_ms = self._waiting.popitem(last=False)
            if deadline_ms > now_ms:
                self.in_flight += 1
                return token, tuple(expired)
            expired.append(token)
        return None, tuple(expired)

    def expired(self, now_ms: int) -> tuple[T, ...]:
        """Take out everybody whose deadline has passed, wherever in the queue; for a timer or before refusing."""
        gone = tuple(token for token, deadline_ms in self._waiting.items() if deadline_ms <= now_ms)
        for token in gone:
            del self._waiting[token]
        return gone

    def withdraw(self, token: T) -> bool:
        """Take out one that waits, because its asker has gone; False when it does not wait."""
        return self._waiting.pop(token, None) is not None

    def _retry_after_ms(self) -> int:
        """Return when the queue as it is will have been run, by the pace of late."""
        wait_ms = round(self._pace_ms * (len(self._waiting) + 1))
        return max(1, min(wait_ms, self.bounds.retry_after_ms_max))
