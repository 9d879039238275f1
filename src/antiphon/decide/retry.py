"""Whether and when something is asked again: only what can help, only what does no harm, and only within a budget.

Retries multiply load exactly when there is too much of it, so they are paid for: every request earns a tenth of a
retry, and a small minimum a second lets a quiet publisher retry at all (Finagle's `RetryBudget`). What was never
delivered may be asked again whatever it does, for no handler has begun; what may have been done is asked again only
when doing it twice does no harm. The wait is drawn uniformly from zero to an exponentially growing cap ("full jitter",
Brooker, *Exponential Backoff and Jitter*, AWS 2015), so that those who failed together do not come back together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from antiphon.errors import AntiphonError, NoResponders, NotConnected, Stopping

UNDELIVERED = (NoResponders, NotConnected, Stopping)
"""Errors that say that no handler has begun: the next instance may be asked without doing anything twice."""
WHOLE = 1_000
"""Thousandths of a token that one extra request costs: shares and rates stay integers."""


class Budget:
    """A token bucket that requests fill and extra requests empty; one a master, for retries or for hedges.

    Law: within any stretch of time in which R requests were made and t ms passed, at most
    `burst + R * share_permille / 1000 + t * per_s_min / 1000` extra requests are allowed. It begins empty.
    """

    __slots__ = ("_at_ms", "_tokens", "burst", "per_s_min", "refused", "share_permille", "spent")

    def __init__(self, share_permille: int, per_s_min: int, burst: int) -> None:
        self.share_permille = share_permille
        self.per_s_min = per_s_min
        self.burst = burst
        self.spent = 0
        """Extra requests so far."""
        self.refused = 0
        self._tokens = 0
        self._at_ms: int | None = None

    def requested(self, count: int = 1) -> None:
        """Earn from requests that are no extra ones themselves; a search of ten nodes earns for ten at once."""
        tokens = self._tokens + count * self.share_permille
        full = self.burst * WHOLE
        self._tokens = tokens if tokens < full else full  # noqa: FURB136 - half of what min() costs

    def spend(self, now_ms: int) -> bool:
        """Pay for one extra request, or return False."""
        if self._at_ms is None:
            self._at_ms = now_ms
        if now_ms > self._at_ms:
            earned = (now_ms - self._at_ms) * self.per_s_min
            self._tokens = min(self._tokens + earned, self.burst * WHOLE)
            self._at_ms = now_ms
        if self._tokens < WHOLE:
            self.refused += 1
            return False
        self._tokens -= WHOLE
        self.spent += 1
        return True


@dataclass(frozen=True, slots=True)
class RetryBounds:
    """The limits of asking again."""

    attempts_max: int = 3
    """Deliveries in all, the first among them."""
    base_ms: int = 20
    cap_ms: int = 1_000
    share_permille: int = 100
    """One retry for ten requests."""
    per_s_min: int = 1
    """Retries a second that need no requests."""
    burst: int = 10

    def budget(self) -> Budget:
        """Return a new budget with these limits."""
        return Budget(self.share_permille, self.per_s_min, self.burst)


class Answer(StrEnum):
    """Whether to ask again, and if not, why not."""

    RETRY = "retry"
    HARMFUL = "not_idempotent"
    HOPELESS = "not_retryable"
    EXHAUSTED = "attempts"
    LATE = "deadline"
    BROKE = "budget"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a failure."""

    answer: Answer
    delay_ms: int = 0


def judge(
    error: AntiphonError,
    *,
    attempts: int,
    is_idempotent: bool,
    left_ms: int,
    bounds: RetryBounds,
    budget: Budget,
    now_ms: int,
    dice: float,
) -> Verdict:
    """Return whether to ask again, and after how many milliseconds.

    Args:
        error: what became of the last attempt.
        attempts: deliveries so far, at least one.
        is_idempotent: the verb's own declaration (`Route.idempotent`).
        left_ms: what is left of the asker's budget.
        bounds: the limits.
        budget: is paid only for a retry that is really made.
        now_ms: monotonic.
        dice: uniform in [0, 1).
    """
    is_undelivered = isinstance(error, UNDELIVERED)
    if not error.retryable:
        return Verdict(Answer.HOPELESS)
    if not (is_idempotent or is_undelivered or _is_refused(error)):
        return Verdict(Answer.HARMFUL)
    if attempts >= bounds.attempts_max:
        return Verdict(Answer.EXHAUSTED)
    delay_ms = (error.retry_after_ms or 0) + full_jitter_ms(attempts, bounds, dice)
    if delay_ms >= left_ms:
        return Verdict(Answer.LATE)
    if not budget.spend(now_ms):
        return Verdict(Answer.BROKE)
    return Verdict(Answer.RETRY, delay_ms)


def full_jitter_ms(attempts: int, bounds: RetryBounds, dice: float) -> int:
    """Return how long to wait after so many attempts: uniform below `min(cap, base * 2^(attempts - 1))`."""
    # the shift is bounded, for attempts come from settings and an integer of a million bits is no wait
    return int(dice * min(bounds.cap_ms, bounds.base_ms << min(attempts - 1, 30)))


def _is_refused(error: AntiphonError) -> bool:
    """Whether the responder says itself that it did not begin: a full queue, with a time to come back."""
    return error.code == "overloaded"
