"""What one master counts of one instance and verb, to know when its breaker trips, and when to suspect itself.

A count is changed in place, once a reply on the hot path of searches: a new frozen state for each of ten replies
would cost more than the reply's own book-keeping. Calls that began before the last transition are not counted after
it: a slow failure from before a breaker closed must not open it again (gobreaker's generations, by time).
"""

from __future__ import annotations

from collections.abc import Mapping

from antiphon.decide.breaker import BreakerPolicy, Reason
from antiphon.decide.ending import Ending

Key = tuple[str, str, str]
"""(node, instance, verb)."""
_SLOTS = 10
"""The window of the error rate moves in tenths."""
_NEVER_MS = -(2**62)


class Failures:
    """The counts of one instance and verb."""

    __slots__ = ("_calls", "_failed", "_policy", "_slot", "_slot_ms", "heard_ms", "in_a_row", "is_failing", "since_ms")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._slot_ms = max(1, policy.rate_window_ms // _SLOTS)
        self.heard_ms = _NEVER_MS
        self.is_failing = False
        self.clear(_NEVER_MS)

    def clear(self, now_ms: int) -> None:
        """Begin anew: calls that began before now count no more."""
        self.since_ms = now_ms
        self.in_a_row = 0
        self._slot = 0
        self._calls = [0] * _SLOTS
        self._failed = [0] * _SLOTS

    def ended(self, ending: Ending, began_ms: int, now_ms: int) -> Reason | None:
        """Count a call; return why the breaker trips, if it does: at every failure from the required one on."""
        if began_ms < self.since_ms or ending is Ending.REFUSED or ending is Ending.ABANDONED:
            return None
        slot = now_ms // self._slot_ms
        if slot != self._slot:
            self._move(slot)
        at = slot % _SLOTS
        self.heard_ms = now_ms
        self._calls[at] += 1
        if ending is Ending.SUCCEEDED:
            self.in_a_row = 0
            self.is_failing = False
            return None
        self._failed[at] += 1
        self.in_a_row += 1
        self.is_failing = True
        return self._reason()

    def _reason(self) -> Reason | None:
        policy = self._policy
        if self.in_a_row >= policy.failures_max:
            return Reason.FAILURES
        calls = sum(self._calls)
        if calls >= policy.rate_calls_min and sum(self._failed) >= policy.rate_max * calls:
            return Reason.RATE
        return None

    def _move(self, slot: int) -> None:
        """Forget the tenths that have left the window."""
        first = max(self._slot + 1, slot - _SLOTS + 1)
        for gone in range(first, slot + 1):
            self._calls[gone % _SLOTS] = self._failed[gone % _SLOTS] = 0
        self._slot = slot


def suspects_itself(counts: Mapping[Key, Failures], now_ms: int, policy: BreakerPolicy) -> bool:
    """Whether most of the nodes that were asked of late fail at once, so that the fault is likely this master's own.

    A node fails when the last call of each of its instances within the window failed, also one that opened since. Nodes
    that are not asked any more (open, or down for want of heartbeats) leave the window, so that no suspicion lasts.
    """
    since_ms = now_ms - policy.self_window_ms
    well: dict[str, bool] = {}
    for (node, _, _), count in counts.items():
        if count.heard_ms > since_ms:
            well[node] = well.get(node, False) or not count.is_failing
    failing = len(well) - sum(well.values())
    return failing >= policy.self_nodes_min and failing > policy.self_share * len(well)
