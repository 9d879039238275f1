"""An exact gather: who is expected, who was asked, what became of them, and when it is over.

Sans-I/O: asks go out and replies come in through the caller, time is an argument. The expected set is known from the
registry, so the gather ends the moment the last expected node has answered, failed, been skipped or passed its own
bound; there is no timer that waits for more. "Nobody listens" means that the question was never delivered: the node's
next instance is asked at once. What may be asked again waits for its time (`decide/retry.py`); a late node's next
instance is asked besides, once (`decide/hedge.py`), and the first of the two that answers counts. One object holds one
gather and is changed by its methods only; a new frozen state for each of ten replies would cost a third of a search
(docs/decisions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from antiphon.errors import OutOfBudget
from antiphon.messages.search import Outcome

PENDING = None
NEVER = 2**62
"""A time that does not come."""


class Expected(msgspec.Struct, frozen=True, gc=False):
    """One node of the expected set.

    Attributes:
        node: its name.
        instances: its instances in the order to try them; none when it is not to be asked.
        bound_us: how long it is waited for, from its first ask on.
        hedge_us: when its next instance is asked besides, from its first ask on.
        code: why it is not asked, where `instances` is empty.
        text: the same for people.
    """

    node: str
    instances: tuple[str, ...]
    bound_us: int = NEVER
    hedge_us: int = NEVER
    code: str = "down"
    text: str = "every instance has missed its heartbeats"
    is_probe: bool = False
    """Whether asking the first one is a breaker's probe."""
    is_waiting: bool = False
    """Whether it has to wait for its turn (`admit`)."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Ask this instance now; asks are numbered (`slot`) in the order in which they are given out."""

    at: int
    node: str
    instance: str


class Line:
    """What is known of one expected node."""

    __slots__ = (
        "attempts",
        "bound_at_us",
        "code",
        "hedge_at_us",
        "hedge_slot",
        "hits",
        "instance",
        "is_waiting",
        "node",
        "outcome",
        "reply_bytes",
        "retry_at_us",
        "running",
        "text",
        "took_us",
        "tries",
        "wasted_us",
        "won",
    )

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
        self.running = 0
        self.reply_bytes = 0
        self.hedge_slot: int | None = None
        """The ask of a second instance besides a late one."""
        self.won: int | None = None
        """The ask whose answer counted."""
        self.wasted_us = 0
        """How long instances worked on what nobody waited for any more."""
        self.is_waiting = False
        self.bound_at_us = NEVER
        self.hedge_at_us = NEVER
        self.retry_at_us = NEVER

    @property
    def hedge(self) -> str | None:
        """Whether the second instance's answer counted; None where none was asked."""
        if self.hedge_slot is None:
            return None
        return "won" if self.won == self.hedge_slot else "lost"


class Gathering:
    """One gather in progress."""

    __slots__ = ("_asked_us", "_expected", "_instances", "_live", "_owners", "counts", "hedged", "lines", "pending")

    def __init__(self, expected: Sequence[Expected]) -> None:
        self.lines = [Line(one) for one in expected]
        self.pending = len(self.lines)
        self.counts = dict.fromkeys(Outcome, 0)
        self.hedged = 0
        """Nodes of which a second instance was asked because the first was late."""
        self._expected = expected
        self._owners: list[int] = []
        self._instances: list[str] = []
        self._asked_us: list[int] = []
        self._live: list[bool] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected."""
        return self.pending == 0

    def begin(self, now_us: int) -> list[Ask]:
        """Return whom to ask first: one instance of each node; a node without instances to ask is skipped."""
        asks: list[Ask] = []
        for at, (line, expected) in enumerate(zip(self.lines, self._expected, strict=True)):
            if expected.is_waiting:
                line.is_waiting = True
                line.bound_at_us = now_us + expected.bound_us
            elif line.tries:
                line.bound_at_us = now_us + expected.bound_us
                line.hedge_at_us = now_us + expected.hedge_us
                asks.append(self._ask(at, line, now_us))
            else:
                self._end(line, Outcome.SKIPPED, expected.code, expected.text)
        return asks

    def admit(self, at: int, now_us: int) -> Ask | None:
        """Return whom to ask of a node whose turn has come, None if its fate is sealed already."""
        line, expected = self.lines[at], self._expected[at]
        if line.outcome is not PENDING or not line.is_waiting:
            return None
        line.is_waiting = False
        line.bound_at_us = now_us + expected.bound_us
        line.hedge_at_us = now_us + expected.hedge_us
        return self._ask(at, line, now_us)

    def answered(self, slot: int, hits: int, now_us: int, reply_bytes: int = 0) -> int | None:
        """Take an answer; return the index of its line, or None if that node's fate is sealed already."""
        at = self._owners[slot]
        line = self.lines[at]
        self._settle(slot, line)
        if line.outcome is not PENDING:
            line.wasted_us += now_us - self._asked_us[slot]
            return None
        line.instance = self._instances[slot]
        line.won = slot
        line.hits = hits
        line.reply_bytes = reply_bytes
        line.took_us = now_us - self._asked_us[slot]
        self._end(line, Outcome.ANSWERED if hits else Outcome.EMPTY)
        return at

    def failed(
        self,
        slot: int,
        code: str,
        text: str,
        now_us: int,
        *,
        is_undelivered: bool = False,
        retry: Callable[[int], int | None] | None = None,
    ) -> Ask | None:
        """Take a failure; return whom to ask instead at once, when the question was never delivered.

        Args:
            slot: which ask it was.
            code: the error's wire code.
            text: the same for people.
            now_us: the time.
            is_undelivered: whether no handler has begun.
            retry: called with the attempts so far when the node would fail now; returns after how many microseconds
                it may be asked again, or None.
        """
        at = self._owners[slot]
        line = self.lines[at]
        self._settle(slot, line)
        if line.outcome is not PENDING:
            return None
        line.instance = self._instances[slot]
        line.took_us = now_us - self._asked_us[slot]
        if is_undelivered and line.attempts < len(line.tries):
            return self._ask(at, line, now_us)
        if line.running or line.retry_at_us < NEVER:
            return None  # the other one may still answer
        again_us = retry(line.attempts) if retry is not None else None
        if again_us is not None and now_us + again_us < line.bound_at_us:
            line.retry_at_us = now_us + again_us
            line.code, line.text = code, text
        else:
            # a node that says that the time was too short, an instant before its master notices, has timed out too
            self._end(line, Outcome.TIMED_OUT if code == OutOfBudget.code else Outcome.FAILED, code, text)
        return None

    def owner(self, slot: int) -> int:
        """Return the index of the line that an ask was for."""
        return self._owners[slot]

    def is_first(self, ask: Ask) -> bool:
        """Whether it is the first ask of its node."""
        return self.lines[ask.at].attempts == 1

    def wake_us(self) -> int:
        """Return when `due` has something to do next, `NEVER` if it has not."""
        earliest = NEVER
        for line in self.lines:
            if line.outcome is PENDING:
                earliest = min(earliest, line.bound_at_us, line.hedge_at_us, line.retry_at_us)
        return earliest

    def due(self, now_us: int, may_hedge: Callable[[], bool]) -> list[Ask]:
        """Do what time has brought: return retries and hedges to send; a node past its bound has timed out.

        `may_hedge` pays for a hedge from its budget, or says no.
        """
        asks: list[Ask] = []
        for at, line in enumerate(self.lines):
            if line.outcome is not PENDING:
                continue
            if now_us >= line.bound_at_us:
                self._time_out(at, line, now_us, "no answer within the bound learned of this node")
            elif now_us >= line.retry_at_us:
                line.retry_at_us = NEVER
                asks.append(self._ask(at, line, now_us))
            elif now_us >= line.hedge_at_us:
                line.hedge_at_us = NEVER
                if line.running and line.attempts < len(line.tries) and may_hedge():
                    line.hedge_slot = len(self._owners)
                    self.hedged += 1
                    asks.append(self._ask(at, line, now_us))
        return asks

    def deadline(self, now_us: int) -> None:
        """End the gather: whoever has not answered has timed out."""
        for at, line in enumerate(self.lines):
            if line.outcome is PENDING:
                self._time_out(at, line, now_us, "no answer within the deadline")

    def running(self) -> list[tuple[int, Ask, int]]:
        """Return (slot, ask, when it was asked) of each ask that nothing was heard of."""
        return [
            (slot, Ask(self._owners[slot], self.lines[self._owners[slot]].node, self._instances[slot]), asked_us)
            for slot, (is_live, asked_us) in enumerate(zip(self._live, self._asked_us, strict=True))
            if is_live
        ]

    def losers(self, now_us: int) -> list[tuple[int, Ask, int]]:
        """Return the asks that are still running although their node's fate is sealed, and forget them."""
        if not self.hedged and not self.counts[Outcome.TIMED_OUT]:
            return []
        lost = [one for one in self.running() if self.lines[one[1].at].outcome is not PENDING]
        for slot, ask, asked_us in lost:
            line = self.lines[ask.at]
            line.wasted_us += now_us - asked_us
            self._settle(slot, line)
        return lost

    @property
    def reached(self) -> int:
        """How many nodes answered, the empty ones among them."""
        return self.counts[Outcome.ANSWERED] + self.counts[Outcome.EMPTY]

    @property
    def answering(self) -> frozenset[str]:
        """The names of the nodes that answered."""
        return frozenset(line.node for line in self.lines if line.outcome in (Outcome.ANSWERED, Outcome.EMPTY))

    def _ask(self, at: int, line: Line, now_us: int) -> Ask:
        instance = line.tries[line.attempts % len(line.tries)]
        if line.instance is None:
            line.instance = instance
        line.attempts += 1
        line.running += 1
        self._owners.append(at)
        self._instances.append(instance)
        self._asked_us.append(now_us)
        self._live.append(True)
        return Ask(at, line.node, instance)

    def _settle(self, slot: int, line: Line) -> None:
        if self._live[slot]:
            self._live[slot] = False
            line.running -= 1

    def _time_out(self, at: int, line: Line, now_us: int, text: str) -> None:
        if line.is_waiting:
            self._end(line, Outcome.SKIPPED, "overloaded", "its compartment had no room in time")
        elif line.running or line.code is None:
            asked = [asked_us for owner, asked_us in zip(self._owners, self._asked_us, strict=True) if owner == at]
            line.took_us = now_us - min(asked, default=now_us)
            self._end(line, Outcome.TIMED_OUT, OutOfBudget.code, text)
        else:  # it had failed and was to be asked again
            self._end(line, Outcome.FAILED, line.code, line.text)

    def _end(self, line: Line, outcome: Outcome, code: str | None = None, text: str | None = None) -> None:
        line.outcome = outcome
        line.code = code
        line.text = text
        self.pending -= 1
        self.counts[outcome] += 1
