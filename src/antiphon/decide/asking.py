"""Asking again: a question that nobody has answered for a while goes out once more, to whichever master takes it.

A queue group gives each question to one master, and the server cannot tell a master that is frozen (stopped, swapped
out, in a debugger) from one that works: until it is disconnected, its share of the questions would cost their whole
deadline. So a client that has heard nothing for three times as long as nearly all of its answers take lately asks
again. Whichever answer is first counts, and the others are told that nobody waits for them.

The odds. The server draws anew each time, so with one of M masters frozen, one question in M ** k is still unanswered
after k asks: with five asks 3 % of two masters' questions and 0.4 % of three masters'. Where the deadline has no room
for five, it is more.

The budget. As with hedges (`hedge.py`), asks in vain are at most 3 % of the questions, and a few that were saved up. In
vain is an ask where one before it was answered after all. An ask that was answered while those before it were silent is
given back: it is work that the frozen master does not do. So are the asks of a question that nobody answered at all,
once another one is answered: then not everybody was silent. Where all masters are slow, the answers that come at last
make the silence that is borne longer, and while nobody answers nothing is given back: overload is not amplified.
"""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.decide.digest import Digest, Quantiles
from antiphon.decide.retry import WHOLE, Budget

US = 1_000
FRESH_SHARE = 8
"""Quantiles are read anew when there is an eighth more to know."""


@dataclass(frozen=True, slots=True)
class AskingBounds:
    """The limits of asking again."""

    silence_ms_min: int = 250
    """A master that starts, or collects garbage, is not frozen."""
    silence_factor: int = 3
    """Silence that is borne, in p95 of the client's own recent answers."""
    unlearned_ms_min: int = 1_000
    """Silence that is borne at least while little is known, e.g. by a program that asks one question."""
    unlearned_share: float = 0.25
    """And as a share of the deadline."""
    records_min: int = 20
    """Answers before their quantiles mean anything."""
    asks_max: int = 5
    """Asks of one question in all."""
    share_permille: int = 30
    """Asks in vain in a thousand questions; 0 asks nothing again."""
    burst: int = 10
    """What may be saved up."""
    first: int = 1
    """What a new client has saved: a program that asks one question may ask it again."""


class Asking:
    """When one client asks again; tell it each question and what became of it."""

    __slots__ = ("_digest", "_due_total", "_known", "_unsettled", "bounds", "budget")

    def __init__(self, bounds: AskingBounds | None = None) -> None:
        self.bounds = bounds or AskingBounds()
        # no minimum a second: no ask again is ever necessary
        self.budget = Budget(self.bounds.share_permille, 0, self.bounds.burst)
        if self.bounds.share_permille:
            self.budget.requested(-(-self.bounds.first * WHOLE // self.bounds.share_permille))
        self._digest = Digest()
        self._known = Quantiles()
        self._due_total = 1
        self._unsettled = 0
        """What was paid for questions that nobody answered, until it is known whether anybody answers anything."""

    def silence_ms(self, deadline_ms: int) -> int:
        """Count a new question, and return how long to hear nothing before it is asked again."""
        self.budget.requested()
        bounds, total = self.bounds, self._digest.total
        if total >= self._due_total:
            self._due_total = total + total // FRESH_SHARE + 1
            self._known = self._digest.quantiles()
        if self._known.records < bounds.records_min:
            return max(bounds.unlearned_ms_min, int(bounds.unlearned_share * deadline_ms))
        return max(bounds.silence_ms_min, bounds.silence_factor * self._known.p95_us // US)

    def may_ask(self, asks: int, left_ms: int, now_ms: int) -> bool:
        """Pay for one more ask after so many, or return False: too many, too late for an answer, or too dear."""
        is_in_time = left_ms > max(1, self._known.p50_us // US)
        return asks < self.bounds.asks_max and is_in_time and self.budget.spend(now_ms)

    def answered(self, took_us: int, now_ms: int) -> None:
        """Learn from an answer, which took so long since its own ask: how long others were silent is no latency."""
        self._digest.record(took_us, now_ms)
        if self._unsettled:
            self.needed(self._unsettled)
            self._unsettled = 0

    def needed(self, asks: int) -> None:
        """Give back what was paid for the asks up to the one that was answered: those before them were silent."""
        self.budget.give_back(asks)

    def lost(self, asks: int) -> None:
        """Note that nobody has answered a question, for which so many asks were paid."""
        self._unsettled += asks
