"""Says each kind of thing at most once in a while, so that whoever causes it cannot fill the log."""

from __future__ import annotations

from typing import Final

KINDS_MAX: Final = 64


class Seldom:
    """Remembers when each kind was said last."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[int, int]] = {}

    def due(self, kind: str, now_ms: int, every_ms: int) -> int | None:
        """Return how often it has come about since it was said last, this time included; None if that is too early."""
        if len(self._said) >= KINDS_MAX and kind not in self._said:
            kind = "other"
        last_ms, count = self._said.get(kind, (None, 0))
        if last_ms is not None and now_ms - last_ms < every_ms:
            self._said[kind] = (last_ms, count + 1)
            return None
        self._said[kind] = (now_ms, 0)
        return count + 1
