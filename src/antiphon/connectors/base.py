"""A connector: content that becomes a node with no code, described, opened, searched, watched and closed.

A connector is one file with one frozen dataclass: its fields are its options, its docstring their help. The command
line, the laws in the tests and the documentation take it from there. `Indexed` is the usual kind: it reads entries
out of some content into a `TextIndex`; a connector for an engine that searches by itself starts from `Connector`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from antiphon.connectors.entry import Entry
from antiphon.connectors.index import TextIndex
from antiphon.messages.handler import Found, Query

Progress = Callable[[int, int], None]
"""Called with (done, total) in the connector's own steps (files, modules, rows); a total of 0 is not known."""


@dataclass(frozen=True)
class Connector(ABC):
    """Content that a node can serve as it stands."""

    kind: ClassVar[str]
    """Its name on the command line: `antiphon node serve <kind>`."""

    @abstractmethod
    def describe(self) -> str:
        """Return one sentence for the registry: what can be found here."""

    def topics(self) -> tuple[str, ...]:
        """Return words that a registry may choose this node by."""
        return (self.kind,)

    def size(self) -> int | None:
        """Return how many documents can be found now; None where that is not known."""
        return None

    @abstractmethod
    def open(self, progress: Progress | None = None) -> None:
        """Make the content searchable; blocks, so it is called in a worker thread, once.

        Raises:
            ContentUnreadable: what the options point at cannot be read; the text says what a person can mend.
        """

    @abstractmethod
    def search(self, query: Query) -> Found:
        """Return the best hits for the query, best first; blocks, and may be called from several threads at once."""

    async def watch(self, changed: Callable[[str], None]) -> None:  # noqa: B027 -- most content never changes
        """Follow the content until cancelled, telling `changed` what was re-indexed; returns where nothing changes.

        Args:
            changed: called on the event loop's thread, after the change can be found.
        """

    @abstractmethod
    def close(self) -> None:
        """Give back what `open` took; harmless when called twice or before `open`."""


@dataclass(frozen=True)
class Indexed(Connector):
    """A connector that reads its content into a `TextIndex`."""

    @cached_property
    def index(self) -> TextIndex:
        """The index; not a field, because fields are options."""
        return TextIndex()

    @abstractmethod
    def entries(self, progress: Progress) -> Iterable[Entry]:
        """Read the whole content, telling `progress` on the way."""

    def open(self, progress: Progress | None = None) -> None:
        """Index the whole content; there may be none yet.

        Raises:
            ContentUnreadable: it cannot be read.
        """
        try:
            self.index.add(self.entries(progress or silent))
        except BaseException:
            self.close()  # whoever fails to open has nothing to close
            raise

    def size(self) -> int:
        """Return the number of entries in the index."""
        return len(self.index)

    def search(self, query: Query) -> Found:
        """Return the index's best hits."""
        return self.index.search(query)

    def close(self) -> None:
        """Drop the index."""
        self.index.close()


def silent(done: int, total: int) -> None:
    """Report no progress."""
    del done, total
