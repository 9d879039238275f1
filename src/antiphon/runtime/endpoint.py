"""What discovery tells of one handler: where it is asked, how often, and how long that took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Endpoint:
    """One handler of an actor, as ADR-32 counts it."""

    name: str
    subject: str
    queue: str | None
    requests: int = 0
    errors: int = 0
    busy_us: int = 0
