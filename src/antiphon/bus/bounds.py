"""The bus's own limits, and what it counts of what it dropped or refused."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bus's own limits; `settings.py` names them for operators."""

    budget_default_ms: int = 5_000
    budget_max_ms: int = 60_000
    late_tokens_max: int = 4_096
    request_id_max: int = 64
    refusals_max: int = 1_024
    """Refusals of what is no legal request that wait to be sent; more are not."""


@dataclass(slots=True)
class Counters:
    """What the bus dropped or refused, for discovery and monitoring."""

    strays: int = 0
    late: int = 0
    laundered: int = 0
    refused: dict[str, int] = field(default_factory=dict[str, int])

    def refuse(self, code: str) -> None:
        """Count a refusal by its wire code."""
        self.refused[code] = self.refused.get(code, 0) + 1
