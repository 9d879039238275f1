"""How many are kept waiting by one actor, in all and of one caller: waiting takes a conversation, and others need some.

Without it whoever may ask at all could have every conversation wait, and nodes could not tell how their work ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager


class Waits:
    """Those who are kept waiting.

    Args:
        count_max: in all.
        caller_max: of one caller.
    """

    def __init__(self, count_max: int, caller_max: int) -> None:
        self.count_max = count_max
        self.caller_max = caller_max
        self._callers: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def of(self, caller: str) -> Generator[bool]:
        """Count somebody while he waits; yields whether there is room, without which he must not."""
        if self._count >= self.count_max or self._callers[caller] >= self.caller_max:
            yield False
            return
        self._count += 1
        self._callers[caller] += 1
        try:
            yield True
        finally:
            self._count -= 1
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
