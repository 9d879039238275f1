"""Whether a crashed actor is started again: at most so many restarts within so long, else it escalates.

Erlang/OTP's restart intensity: a fault that a fresh start mends is mended, one that comes back at once is not hidden.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intensity:
    """At most `restarts_max` restarts within any `window_ms`."""

    restarts_max: int = 5
    window_ms: int = 10_000


@dataclass(frozen=True, slots=True)
class Restarts:
    """When the restarts still inside the window happened."""

    at_ms: tuple[int, ...] = ()


def crashed(state: Restarts, now_ms: int, intensity: Intensity) -> tuple[Restarts, bool]:
    """Return the new state and whether to start again; False means escalate."""
    recent = tuple(at for at in state.at_ms if now_ms - at < intensity.window_ms)
    if len(recent) >= intensity.restarts_max:
        return Restarts(recent), False
    return Restarts((*recent, now_ms)), True
