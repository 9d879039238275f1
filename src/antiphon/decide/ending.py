"""What one call to an instance says about that instance: it works, it fails, it refuses, or nothing at all.

Breakers and balancers judge by this and not by errors. A failure is what a healthy instance does not do: silence in
spite of a fair wait, nobody listening, a reply that is not one, a bug. An instance that sheds load or drains is alive
and says so: taking it out would move its load to the others, so a refusal neither fails nor heals. A call that was
cancelled, lost its hedge, or had less time than the instance fairly needs tells nothing; if it did, a publisher could
open every breaker of the fleet by asking with one millisecond.
"""

from __future__ import annotations

from enum import StrEnum

from antiphon.errors import CODES, DeliveryError, NotConnected, Overloaded, RequestError, SetupError, Stopping

FAIR_MS = 200
"""A silence that was borne for less says nothing, unless the caller knows a better bound of that instance."""


class Ending(StrEnum):
    """How a call ended, as far as the instance is concerned."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    REFUSED = "refused"
    """It is alive and wants no work now: `Overloaded`, a rate limit, `Stopping`."""
    ABANDONED = "abandoned"
    """Nobody waited for it long enough: cancelled, a lost hedge, a short deadline, or this master is cut off."""


def ending_of(code: str | None, waited_ms: int, fair_ms: int = FAIR_MS) -> Ending:
    """Return how a call ended that took `waited_ms`; `code` is the wire code of its error, None for an answer.

    An unknown code is a failure: it crossed the bus as a `ServiceError` of a newer version.
    """
    if code is None:
        return Ending.SUCCEEDED
    if code in _REFUSED:
        return Ending.REFUSED
    if code in _UNTOLD or (code == "out_of_budget" and waited_ms < fair_ms):
        return Ending.ABANDONED
    return Ending.FAILED


_REFUSED = frozenset({Overloaded.code, Stopping.code})
_UNTOLD = frozenset(
    code
    for code, kind in CODES.items()
    if issubclass(kind, (RequestError, SetupError, NotConnected)) or kind is DeliveryError
)
"""The asker is to blame, or this master's own connection."""
