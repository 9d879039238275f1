"""Antiphon's own documentation as a node: what its modules say about themselves, and its README."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar

from antiphon.connectors.base import Indexed, Progress
from antiphon.connectors.entry import Entry
from antiphon.connectors.reading.docstrings import module_entries
from antiphon.connectors.reading.metadata import description

PACKAGE = "antiphon"


@dataclass(frozen=True)
class SelfDoc(Indexed):
    """Antiphon's own documentation strings and README."""

    kind: ClassVar[str] = "antiphon"

    def describe(self) -> str:
        """Return what can be found here."""
        return "Documentation of Antiphon: its modules, messages, errors and README"

    def topics(self) -> tuple[str, ...]:
        """Return what people would name it."""
        return ("antiphon", "documentation", "federated search")

    def entries(self, progress: Progress) -> Iterator[Entry]:
        """Read the package's sources, which are there in a checkout and in a wheel alike."""
        root = Path(__file__).resolve().parents[1]
        files = sorted(root.rglob("*.py"))
        for done, path in enumerate(files, 1):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join((PACKAGE, *parts)).removesuffix(".__init__")
            yield from module_entries(module, path.read_text(encoding="utf-8"), _no_link)
            progress(done, len(files))
        yield from _readme()


def _no_link(module: str, name: str) -> None:
    del module, name


def _readme() -> Iterator[Entry]:
    try:
        installed = distribution(PACKAGE)
    except PackageNotFoundError:
        return  # run from a checkout that was not installed
    for section in description(installed, installed.metadata, "Antiphon"):
        yield Entry(f"README#{section.fragment}", section.title, section.text, kind="readme", origin="README")
