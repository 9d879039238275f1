"""When a saga tries something again, on both sides: a node's next attempt, a coordinator's next round.

A node repeats what failed within one command and its deadline; no coordinator is involved. Where there is no other way,
undoing and past the pivot, a coordinator gives the same command again in a new *round*, under the same idempotency
key. Both waits are drawn uniformly from zero to a cap that doubles each time ("full jitter", Brooker, Exponential
Backoff and Jitter, AWS 2015). The coordinators' dice are a function of the saga and the ticket: each of them must come
to the same moment, or the one that the timer wakes would wait for another's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from antiphon.errors import AntiphonError
from antiphon.messages.saga import SagaRetry

Dice = Callable[[str], float]
"""Draws from [0, 1) for a key, the same for the same key."""


def dice_of(key: str) -> float:
    """Return a number of [0, 1) that looks drawn and is the same for the same key, in every process."""
    return int.from_bytes(blake2b(key.encode(), digest_size=6).digest(), "big") / 2**48


def wait_ms(retry: SagaRetry, tries: int, dice: float) -> int:
    """Return how long to wait after so many tries: uniform below `min(cap, base * 2^(tries - 1))`."""
    # the shift is bounded, for the number of tries is not: operators may order any number of rounds
    return int(dice * min(retry.cap_ms, retry.base_ms << min(tries - 1, 40)))


@dataclass(frozen=True, slots=True)
class Again:
    """Run the handler again after so long; until then the command stays with this node."""

    delay_ms: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Tell the outcome: it failed; `is_retryable` says whether another round could help."""

    code: str
    text: str
    is_retryable: bool
    outcome: Literal["failed"] = "failed"


def after_failure(
    error: AntiphonError, retry: SagaRetry, *, attempts: int, left_ms: int, dice: float
) -> Again | GiveUp:
    """Return what a node does when its handler has failed.

    Args:
        error: what it raised.
        retry: the command's policy.
        attempts: runs so far, this one among them; one that ended with its process counts.
        left_ms: until the command's deadline.
        dice: uniform in [0, 1).
    """
    delay_ms = (error.retry_after_ms or 0) + wait_ms(retry, attempts, dice)
    if error.retryable and attempts < retry.attempts_max and delay_ms < left_ms:
        return Again(delay_ms)
    return GiveUp(error.code, error.text[:200], error.retryable)
