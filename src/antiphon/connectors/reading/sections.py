"""Text cut into sections that are worth a hit of their own.

A long page is a poor hit: its length drowns the paragraph that answers, and its snippet is a lottery. So Markdown is
cut at its headings, and whatever is still long at line ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SECTION_CHARS_MAX = 20_000
"""Characters of one section; about eight printed pages."""
HEADING_LEVEL_MAX = 3
"""Deeper headings stay inside their section: what stands below them is rarely worth a hit of its own."""

_FENCE = re.compile(r" {0,3}(```|~~~)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$\n?", re.DOTALL | re.MULTILINE)
_RST_HEADING = re.compile(r"^(?![ \t])(.*\w.*)\n([=\-~^\"'*+#])\2{2,}[ \t]*$", re.MULTILINE)
_RST_LINE = re.compile(
    r"^([=\-~^\"'*+#])\1{2,}[ \t]*$|^\.\. (?:image|figure|\|)[^\n]*(?:\n[ \t]+:[^\n]*)*", re.MULTILINE
)
_WORD = re.compile(r"\w")
_TITLE_FIELD = re.compile(r"""^title:[ \t]*["']?(.*?)["']?[ \t]*$""", re.MULTILINE)
_MARKUP = (
    (re.compile(r"<!--.*?-->|</?[A-Za-z][^<>\n]*>"), ""),  # comments and tags
    (re.compile(r"!\[([^\[\]\n]*)\](?:\([^()\n]*\)|\[[^\[\]\n]*\])"), r"\1"),  # images
    (re.compile(r"\[([^\[\]\n]*)\](?:\([^()\n]*\)|\[[^\[\]\n]*\])"), r"\1"),  # links
    (re.compile(r"^\[[^\[\]\n]+\]:[ \t]+\S+.*$"), ""),  # link targets
    (re.compile(r"\*\*"), ""),
)
_MARKED = re.compile(r"[<*\]]")
_CODE_SPAN = re.compile(r"(`+[^`]+`+)")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a text: its title, a fragment that is unique within the text (empty for the first part), its text."""

    title: str
    fragment: str
    text: str


def markdown(source: str, title: str) -> Iterator[Section]:
    """Cut Markdown at its headings of the first three levels; markup that says nothing to a reader is dropped.

    A heading without a text is a section, too: it is found by its words.

    Args:
        source: the Markdown text.
        title: the title where it has none: the first heading or the front matter's `title` otherwise.
    """
    source = source.replace("\r\n", "\n")
    front = _FRONT_MATTER.match(source)
    is_titled = False
    if front:
        source = source[front.end() :]
        named = _TITLE_FIELD.search(front[1])
        is_titled = named is not None
        title = named[1] if named and named[1] else title
    parts = list(_parts(source))
    if not is_titled:
        title = next((heading for heading, _ in parts if heading), title)
    taken: set[str] = set()
    sections = [section for heading, body in parts for section in _sections(title, heading, body, taken)]
    is_named = _WORD.search(title) and (is_titled or any(heading for heading, _ in parts))
    yield from sections or ([Section(title, "", "")] if is_named else [])


def _sections(title: str, heading: str, body: str, taken: set[str]) -> Iterator[Section]:
    """Return the sections of one part; a bare heading is one, unless it is the title, which the others carry."""
    is_own = bool(heading) and heading != title
    full = f"{title}: {heading}" if is_own else title
    fragment = _unique(_slug(heading) if heading else "", taken)
    if is_own and not body.strip() and _WORD.search(heading):
        yield Section(full, fragment, "")
    yield from pieces(full, body, fragment)


def restructured(source: str, title: str) -> Iterator[Section]:
    """Cut reStructuredText at its headings; the rest of its markup stays."""
    lined = _RST_HEADING.sub(r"\n## \1\n", source.replace("\r\n", "\n"))
    return markdown(_RST_LINE.sub("", lined), title)


def plain(source: str, title: str) -> Iterator[Section]:
    """Return plain text as one section, or several where it is long; its title is its first short line."""
    first = next((line.strip() for line in source.splitlines() if line.strip()), "")
    yield from pieces(first if 0 < len(first) <= 100 else title, source, "")  # noqa: PLR2004 -- a line, not a paragraph


def pieces(title: str, text: str, fragment: str) -> Iterator[Section]:
    """Return the text as sections of at most `SECTION_CHARS_MAX` characters, cut at line ends; none for no text."""
    text, number = text.strip(), 1
    while text:
        cut = len(text)
        if cut > SECTION_CHARS_MAX:
            cut = text.rfind("\n", 1, SECTION_CHARS_MAX)
            cut = SECTION_CHARS_MAX if cut < 0 else cut
        yield Section(title, fragment if number == 1 else f"{fragment}~{number}", text[:cut])
        text, number = text[cut:].strip(), number + 1


def _parts(source: str) -> Iterator[tuple[str, str]]:
    """Yield (heading, body); the first heading is empty where text stands before any."""
    heading, body, fence = "", list[str](), ""
    for line in source.split("\n"):
        opened = _FENCE.match(line)
        if opened and fence in ("", opened[1]):
            fence = "" if fence else opened[1]
        elif not fence:
            found = _heading(line, body)
            if found:
                yield heading, "\n".join(body)
                heading, body = found, []
                continue
            line = _unmarked(line)  # noqa: PLW2901 -- the line as a reader sees it
        body.append(line)
    yield heading, "\n".join(body)


def _heading(line: str, body: list[str]) -> str:
    """Return the heading that this line makes, or nothing; an underlined one is taken out of the body."""
    hashes = _HEADING.fullmatch(line)
    if hashes:
        return _unmarked(hashes[2]).strip() if len(hashes[1]) <= HEADING_LEVEL_MAX else ""
    above = body[-1].strip() if body else ""
    is_lone = len(body) == 1 or (len(body) > 1 and not body[-2].strip())
    if above and is_lone and _UNDERLINE.fullmatch(line) and above[0] not in "-*+|>":
        body.pop()
        return above
    return ""


def _unmarked(line: str) -> str:
    """Return a line without markup; what stands between backticks is code and stays as it is."""
    if not _MARKED.search(line):
        return line
    spans = _CODE_SPAN.split(line)
    for at in range(0, len(spans), 2):
        for pattern, instead in _MARKUP:
            spans[at] = pattern.sub(instead, spans[at])
    return "".join(spans)


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")[:80]


def _unique(fragment: str, taken: set[str]) -> str:
    candidate, number = fragment, 0
    while candidate in taken:
        number += 1
        candidate = f"{fragment}-{number}"
    taken.add(candidate)
    return candidate
