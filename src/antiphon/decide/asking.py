"""Asking again: a question that nobody has answered for a while goes out once more, to whichever master takes it.

A queue group gives each question to one master, and the server cannot tell a master that is frozen (stopped, swapped
out, in a debugger) from one that works: until it is disconnected, its share of the questions would cost their whole
deadline. So a client that has heard nothing for three times as long as nearly all of its answers take lately asks
again. Whichever answer is first counts, and the others are told that nobody waits for them.

The odds. The server draws anew each time, so with one of M masters frozen, one question in M ** k is still unanswered
after k asks: with five asks 3 % of two masters' questions and 0.4 % of three masters'. Where the deadline has no room
for five, it is more.

The budget. As with hedges (`hedge.py`), what is asked again *in vain*, that is although an ask before it was answered
in the end, is at most 3 % of the questions, and a few that were saved up. An ask that was answered while those before
it were silent costs nothing: it is work that the frozen master does not do. Until it is known which it was, an ask
counts as one in vain. With one exception, for a client of many questions at once would soon have too many that are not
known: a question that was *overtaken*, of which later ones were answered while it waits, is asked again on credit, as
often as others are answered, as long as nothing in vain is owed. That others are answered is what tells a frozen master
from a slow fabric; where all are slow, besides, the answers that come at last make the silence longer that is borne.
"""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.decide.digest import Digest, Quantiles
from antiphon.decide.retry import WHOLE

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
    silence_share_max: float = 0.5
    """And no more than this share of the deadline: a p95 that some slow answers have raised must not rule it out."""
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
    credit_max: int = 200
    """Answers that may be saved up for questions that are overtaken."""


class Asking:
    """When one client asks again; tell it each question and what became of it."""

    __slots__ = ("_balance", "_credit", "_digest", "_due_total", "_known", "_lost", "_open", "_overtook_us", "bounds")

    def __init__(self, bounds: AskingBounds | None = None) -> None:
        self.bounds = bounds or AskingBounds()
        self._balance = self.bounds.first * WHOLE
        """Thousandths of an ask that may be in vain; below zero it is owed."""
        self._open = 0
        """Asks of which it is not known yet whether they are in vain."""
        self._lost = 0
        """Asks of questions that nobody answered, until anybody answers anything."""
        self._credit = 0
        self._overtook_us = 0
        """When the last of the asks that were answered was sent."""
        self._digest = Digest()
        self._known = Quantiles()
        self._due_total = 1

    def silence_ms(self, deadline_ms: int) -> int:
        """Count a new question, and return how long to hear nothing before it is asked again."""
        bounds, total = self.bounds, self._digest.total
        self._balance = min(self._balance + bounds.share_permille, bounds.burst * WHOLE)
        if total >= self._due_total:
            self._due_total = total + total // FRESH_SHARE + 1
            self._known = self._digest.quantiles()
        if self._known.records < bounds.records_min:
            return max(bounds.unlearned_ms_min, int(bounds.unlearned_share * deadline_ms))
        learned_ms = min(bounds.silence_factor * self._known.p95_us // US, int(bounds.silence_share_max * deadline_ms))
        return max(bounds.silence_ms_min, learned_ms)

    def is_worth_it(self, asks: int, left_ms: int) -> bool:
        """Whether a question may be asked again at all after so many asks, and an answer can still come in time."""
        bounds = self.bounds
        return bounds.share_permille > 0 and asks < bounds.asks_max and left_ms > max(1, self._known.p50_us // US)

    def may_ask(self, asked_us: int) -> bool:
        """Take out one more ask of a question that was asked last at `asked_us`, or return False."""
        if self._overtook_us > asked_us and self._credit > 0 and self._balance >= 0:
            self._credit -= 1
        elif self._balance < (self._open + self._lost + 1) * WHOLE:
            return False
        self._open += 1
        return True

    def answered(self, asked_us: int, now_us: int) -> None:
        """Learn from the answer to an ask; how long others were silent before it was sent is no latency."""
        self._digest.record(now_us - asked_us, now_us // US)
        self._overtook_us = max(self._overtook_us, asked_us)
        self._credit = min(self._credit + 1, self.bounds.credit_max)
        self._lost = 0

    def ended(self, asks: int, needed: int | None) -> None:
        """Settle a question: of so many asks after the first these were needed; None: nobody has answered any."""
        self._open -= asks
        if needed is None:
            self._lost += asks
        else:
            self._balance -= (asks - needed) * WHOLE
