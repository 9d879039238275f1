"""How much each one may have under way at once: a bound for what keeps a place for a while and costs nobody a rate.

One object of one reader, changed in place. It knows only who has something under way now, so it is as small as that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Hashable
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Turns(Generic[K]):
    """The turns of many keys."""

    def __init__(self, each_max: int) -> None:
        self.each_max = each_max
        self._taken: Counter[K] = Counter()

    def __len__(self) -> int:
        return len(self._taken)

    @contextmanager
    def taken(self, key: K) -> Generator[bool]:
        """Take a turn while this lasts; yields whether there was one left."""
        if self._taken[key] >= self.each_max:
            yield False
            return
        self._taken[key] += 1
        try:
            yield True
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]
