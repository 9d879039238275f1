"""Hedged requests: a late answer is asked of a second instance, and whichever is first counts.

Dean & Barroso, *The Tail at Scale* (CACM 2013): most of a fan-out's tail is bad luck on one machine, so the same
question to another one, sent when most would have answered, cuts p99 for a few per cent of extra load. Bounded
threefold: not before the node's p95, once a node and search, and never more than 3 % of all requests.

Why p97 with a budget of 3 %: whoever hedges the 5 % that are later than p95 runs out of budget in the middle, and then
luck decides whether the really slow ones are among the hedged. Later than the quantile that the budget can pay for,
all of them are. In the simulation of `tests/unit/test_hedge.py` (2 % of answers take 1 s) p99 falls from 1,000 ms to
30 ms either way, but 0.7 % of requests still take 1 s when hedged at p95, and 0.08 % at p97, for fewer extra requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from antiphon.decide.digest import Quantiles
from antiphon.decide.retry import Budget

US = 1_000


@dataclass(frozen=True, slots=True)
class HedgeBounds:
    """The limits of hedging."""

    share_permille: int = 30
    """Extra requests in a thousand."""
    burst: int = 20
    """What may be saved up; a node that hangs for a moment makes many requests late at once."""
    delay_ms_min: int = 2
    """Below it a hedge races the first answer's way through the event loop."""
    records_min: int = 50
    """What has to be known of a node before lateness means anything."""

    def budget(self) -> Budget:
        """Return a new budget with these limits; without a minimum a second, for no hedge is ever necessary."""
        return Budget(self.share_permille, 0, self.burst)


BOUNDS = HedgeBounds()


def delay_ms(
    known: Quantiles, instances: int, bound_ms: int, *, is_idempotent: bool, bounds: HedgeBounds = BOUNDS
) -> int | None:
    """Return when to hedge, in milliseconds after the first request, or None for never.

    Never without a second eligible instance, for a verb that may not be asked twice, for a node that is not known
    well enough, and where less than half of the usual time would be left for the second answer.
    """
    if not is_idempotent or instances < 2 or known.records < bounds.records_min:  # noqa: PLR2004 - a second one
        return None
    late_us = known.p95_us if bounds.share_permille >= 50 else known.p97_us  # noqa: PLR2004 - 5 % are later than p95
    after_ms = max(bounds.delay_ms_min, -(-late_us // US))
    return after_ms if after_ms + known.p50_us // (2 * US) < bound_ms else None


class Race:
    """One node in one search: the instances that were asked, of which one answer counts.

    Laws: at most one hedge; at most one winner; whoever was asked and is neither the winner nor failed is cancelled
    exactly once; the node has failed only when everyone who was asked has failed.
    """

    __slots__ = ("_is_hedged", "running", "winner")

    def __init__(self, first: str) -> None:
        self.running: tuple[str, ...] = (first,)
        """Who was asked and has not answered."""
        self.winner: str | None = None
        self._is_hedged = False

    def hedge(self, eligible: Sequence[str], budget: Budget, now_ms: int) -> str | None:
        """Return whom to ask besides, and pay for it; None when there is nobody, no budget or no need."""
        if self._is_hedged or self.winner is not None or not self.running:
            return None
        second = next((instance for instance in eligible if instance not in self.running), None)
        if second is None or not budget.spend(now_ms):
            return None
        self._is_hedged = True
        self.running = (*self.running, second)
        return second

    def answered(self, instance: str) -> tuple[bool, tuple[str, ...]]:
        """Return whether this answer counts, and whom to cancel now."""
        if self.winner is not None or instance not in self.running:
            return False, ()
        self.winner = instance
        losers = tuple(other for other in self.running if other != instance)
        self.running = ()
        return True, losers

    def failed(self, instance: str) -> bool:
        """Return whether the node has failed with this: nobody who was asked is left, and nobody has won."""
        if instance not in self.running:
            return False
        self.running = tuple(other for other in self.running if other != instance)
        return not self.running

    def ended(self) -> tuple[str, ...]:
        """End the race without a winner, at a deadline; return whom to cancel."""
        losers, self.running = self.running, ()
        return losers
