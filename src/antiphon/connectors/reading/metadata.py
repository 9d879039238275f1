"""The metadata of an installed distribution: its fields, and its description cut into sections."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution, PackageMetadata
from itertools import islice

from antiphon.connectors.reading.sections import Section, markdown, pieces, restructured

DESCRIPTION_CHARS_MAX = 200_000
"""Characters read of one description; some carry a whole manual or every change since 2005."""
SECTIONS_MAX = 100
"""Sections kept of one description."""

_PREFERRED = ("documentation", "docs", "homepage", "home", "repository", "source", "source code", "github")
"""Labels of project links, best first."""


def value_of(metadata: PackageMetadata, name: str) -> str:
    """Return a field's value, empty where it is missing; asking for a missing one will be an error in Python."""
    return metadata[name] if name in metadata else ""  # noqa: SIM401 -- the protocol has no `get` before Python 3.12


def homepage(metadata: PackageMetadata) -> str | None:
    """Return where people read about the project: its documentation, its home page, its source, or what there is."""
    links = [value.partition(",") for value in metadata.get_all("Project-URL") or ()]
    named = {label.strip().lower(): url.strip() for label, _, url in links}
    named.setdefault("homepage", value_of(metadata, "Home-page"))
    urls = [url for url in (*map(named.get, _PREFERRED), *named.values()) if url and url.startswith("http")]
    return urls[0] if urls else None


def description(distribution: Distribution, metadata: PackageMetadata, title: str) -> Iterator[Section]:
    """Return the sections of the long description, usually the README; `title` is for one without headings."""
    text = (value_of(metadata, "Description") or _payload(distribution)).strip()[:DESCRIPTION_CHARS_MAX]
    form = value_of(metadata, "Description-Content-Type").partition(";")[0].strip().lower()
    cut = {"text/markdown": markdown, "text/plain": _whole}.get(form, restructured)
    return islice(cut(text, title), SECTIONS_MAX)


def _whole(text: str, title: str) -> Iterator[Section]:
    return pieces(title, text, "")


def _payload(distribution: Distribution) -> str:
    """Return the description from where metadata 2.1 puts it, below the headers."""
    raw = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    return raw.partition("\n\n")[2]
