"""An entry: one document as a connector reads it, before it is indexed."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace

from antiphon.messages.base import Scalar

ID_CHARS_MAX = 512
"""The bound of `Hit.id`; a longer id keeps its beginning and ends in a hash."""
TITLE_CHARS_MAX = 300
"""The bound of `Hit.title`."""
URL_CHARS_MAX = 2_000
"""The bound of `Hit.url`; a longer address is left out."""
KIND_CHARS_MAX = 200
"""The bound of `Hit.kind`."""
TEXT_CHARS_MAX = 900_000
"""Characters kept of one entry, below the bound of `Hit.text`; connectors cut long content into sections first."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Entry:
    """One document to index.

    Attributes:
        id: unique in the index; a later entry with the same id takes the place of the earlier one.
        title: searched with the text.
        text: the searchable text.
        url: where people can open it.
        kind: what sort of thing it is, e.g. `function`.
        time_ms: milliseconds since 1970 in UTC.
        origin: what it was read from (a file); entries of one origin are replaced together.
        fields: further values to show.
    """

    id: str
    title: str = ""
    text: str = ""
    url: str | None = None
    kind: str | None = None
    time_ms: int | None = None
    origin: str = ""
    fields: dict[str, Scalar] = field(default_factory=dict[str, Scalar])


def searchable(entry: Entry) -> str:
    """Return what is analysed: the title's words count like the text's."""
    return f"{entry.title}\n{entry.text}"


def storable(entry: Entry) -> Entry:
    """Return the entry within the bounds of a `Hit`, without halves of surrogate pairs (undecodable file names)."""
    title, text, url = _clean(entry.title)[:TITLE_CHARS_MAX], _clean(entry.text)[:TEXT_CHARS_MAX], entry.url
    if url is not None and (len(url) > URL_CHARS_MAX or _SURROGATE.search(url)):
        url = None
    kind = None if entry.kind is None else _clean(entry.kind)[:KIND_CHARS_MAX]
    return replace(entry, id=_bounded_id(_clean(entry.id)), title=title, text=text, url=url, kind=kind)


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _bounded_id(text: str) -> str:
    assert text, "an entry needs an id"
    if len(text) <= ID_CHARS_MAX:
        return text
    return f"{text[: ID_CHARS_MAX - 33]}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"
