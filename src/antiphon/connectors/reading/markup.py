"""The readable text of an HTML page: its title, and its words without scripts, styles and markup."""

from __future__ import annotations

from html.parser import HTMLParser

_UNREAD = frozenset({"script", "style", "template", "noscript", "svg", "math"})
_INLINE = frozenset(
    {"a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "dfn", "em", "font", "i", "kbd", "label", "mark", "q"}
    | {"s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"}
)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.heading: list[str] = []
        self.text: list[str] = []
        self._unread = 0
        self._is_head = False
        self._inside = ""
        self._has_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in ("head", "body"):
            self._is_head = tag == "head"  # a head that was never closed must not swallow the page
        elif tag in _UNREAD:
            self._unread += 1
        elif not self._unread and ((tag == "title" and not self.title) or (tag == "h1" and not self._has_heading)):
            self._inside = tag
        if tag not in _INLINE:
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "head":
            self._is_head = False
        elif tag in _UNREAD:
            self._unread = max(0, self._unread - 1)
        if tag == self._inside:
            self._has_heading = self._has_heading or tag == "h1"
            self._inside = ""
        if tag not in _INLINE:
            self.text.append("\n")

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title.append(data)
        elif not self._unread and not self._is_head:
            if self._inside == "h1":
                self.heading.append(data)
            self.text.append(data)


def page(source: str) -> tuple[str, str]:
    """Return the title (`<title>`, else the first `<h1>`, else nothing) and the readable text of an HTML page."""
    parser = _Page()
    parser.feed(source)
    parser.close()
    lines = (" ".join(line.split()) for line in "".join(parser.text).split("\n"))
    title = " ".join("".join(parser.title).split()) or " ".join("".join(parser.heading).split())
    return title, "\n".join(line for line in lines if line)
