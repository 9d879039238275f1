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

from dataclasses import dataclass

from antiphon.decide.digest import Quantiles
from antiphon.decide.retry import Budget

US = 1_000


@dataclass(frozen=True, slots=True)
class HedgeBounds:
    """The limits of hedging."""

    share_permille: int = 29
    """Extra requests in a thousand; with what a burst has saved up they stay within three in a hundred."""
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
