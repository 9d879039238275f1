"""The installed Python packages as a node: what each says it is for, and its description cut into sections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import Distribution, PackageMetadata, distributions
from typing import ClassVar

import structlog

from antiphon.connectors.base import Indexed, Progress
from antiphon.connectors.entry import Entry
from antiphon.connectors.reading.metadata import description, homepage, value_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Packages(Indexed):
    """The Python packages installed beside Antiphon: summaries, keywords and descriptions.

    Attributes:
        packages_max: how many packages are read at most, in alphabetical order.
    """

    kind: ClassVar[str] = "packages"

    _: KW_ONLY
    packages_max: int = 1_000

    def describe(self) -> str:
        """Return what can be found here."""
        return "Installed Python packages: what they are for and how they are used"

    def topics(self) -> tuple[str, ...]:
        """Return what people would name it."""
        return ("python", "packages", "libraries")

    def entries(self, progress: Progress) -> Iterator[Entry]:
        """Read the metadata of every installed package; the first of a name on the path is the one that is imported."""
        found = dict[str, tuple[Distribution, PackageMetadata]]()
        for distribution in distributions():
            metadata = distribution.metadata
            name = value_of(metadata, "Name")
            if name:  # an interrupted uninstall leaves folders without one
                found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), (distribution, metadata))
        if len(found) > self.packages_max:
            log.warning("packages.left_out", packages=len(found), packages_max=self.packages_max)
        chosen = sorted(found.items(), key=lambda item: item[0])[: self.packages_max]
        for done, (name, (distribution, metadata)) in enumerate(chosen, 1):
            yield from _entries(name, distribution, metadata)
            progress(done, len(chosen))


def _entries(name: str, distribution: Distribution, metadata: PackageMetadata) -> Iterator[Entry]:
    url = homepage(metadata)
    summary, keywords = value_of(metadata, "Summary"), value_of(metadata, "Keywords")
    title = f"{name} {value_of(metadata, 'Version')}"
    yield Entry(
        name, f"{title}: {summary}" if summary else title, f"{summary}\n{keywords}".strip(), url, "package", origin=name
    )
    for section in description(distribution, metadata, name):
        yield Entry(f"{name}#{section.fragment}", section.title, section.text, url, "description", origin=name)
