"""A view: a frozen snapshot of an actor's state that its owner replaces and anybody reads.

The hot path reads `current` without a lock or a hop. A view outlives restarts of its owner, so readers keep the last
picture until the new one is there.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class View(Generic[T]):
    """The last snapshot of one actor's state."""

    __slots__ = ("current",)

    def __init__(self, empty: T) -> None:
        self.current = empty

    def replace(self, value: T) -> None:
        """Show a new snapshot; only the owner calls this."""
        self.current = value
