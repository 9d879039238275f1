"""The lists that cursors page over: kept for a while, bounded in number and bytes, the oldest given up first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from antiphon.errors import CursorExpired

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageBounds:
    """How long a list is kept and how much all lists may hold."""

    keep_ms: int = 60_000
    lists_max: int = 1_000
    bytes_max: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    value: T
    size: int
    until_ms: int


class Pages(Generic[T]):
    """Lists by token."""

    def __init__(self, bounds: PageBounds) -> None:
        self.bounds = bounds
        self.bytes = 0
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()

    def keep(self, token: str, value: T, size: int, now_ms: int) -> None:
        """Keep a list of about `size` bytes, instead of what was kept under the token before."""
        before = self._kept.pop(token, None)
        if before is not None:
            self.bytes -= before.size
        self._kept[token] = _Kept(value, size, now_ms + self.bounds.keep_ms)
        self.bytes += size
        while self._kept and (self._is_over() or next(iter(self._kept.values())).until_ms <= now_ms):
            _, gone = self._kept.popitem(last=False)
            self.bytes -= gone.size

    def get(self, token: str, now_ms: int, may_see: Callable[[T], bool]) -> T:
        """Return a list, or raise `CursorExpired`; somebody else's is refused as one that is gone."""
        kept = self._kept.get(token)
        if kept is None or kept.until_ms <= now_ms or not may_see(kept.value):
            raise CursorExpired(f"this list is kept for {self.bounds.keep_ms // 1_000} s only: ask again")
        return kept.value

    def __len__(self) -> int:
        return len(self._kept)

    def _is_over(self) -> bool:
        return len(self._kept) > self.bounds.lists_max or self.bytes > self.bounds.bytes_max


def cursor(master: str, token: str, offset: int) -> str:
    """Return the cursor that stands for a place in a list of a master."""
    return f"{master}.{token}.{offset}"


def parse_cursor(text: str) -> tuple[str, str, int]:
    """Return (master, token, offset), or raise `CursorExpired` for what is no cursor."""
    parts = text.split(".")
    if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdecimal()) or len(parts[2]) > 6:  # noqa: PLR2004 - digits
        raise CursorExpired(f"{text[:40]!r} is not a cursor")
    return parts[0], parts[1], int(parts[2])
