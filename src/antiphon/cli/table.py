"""An answer on a terminal: rank, title, where it was found, the snippet with its matches marked, the address."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from antiphon.cli.safe import line
from antiphon.cli.show import also, explained
from antiphon.decide import analyser
from antiphon.messages.hit import RankedHit
from antiphon.messages.search import SearchAnswer

WIDTH_MAX = 110
"""Longer lines are hard to read, however wide the terminal is."""
SNIPPET_LINES_MAX = 2
SOURCES_WIDTH_MAX = 24
NARROW = 60
"""Below this many columns the sources go under the title."""
MARK = "bold yellow"


def show(answer: SearchAnswer, console: Console | None = None) -> None:
    """Write an answer to a terminal."""
    console = console or Console(highlight=False)
    console.print(rendered(answer, console.width))


def rendered(answer: SearchAnswer, width: int) -> RenderableType:
    """Return an answer as it looks on a terminal of some width."""
    width = min(width, WIDTH_MAX)
    is_narrow = width < NARROW
    table = Table.grid(padding=(0, 2, 0, 0))
    table.width = width
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    if not is_narrow:
        table.add_column(justify="left", max_width=SOURCES_WIDTH_MAX, overflow="fold")
        table.add_column(justify="right", no_wrap=True, style="dim")
    for hit in answer.hits:
        body = _body(hit, answer.terms, width, is_narrow=is_narrow)
        places = [] if is_narrow else [_places(hit), Text(f"{hit.score:.3g}")]
        table.add_row(str(hit.rank), body, *places)
        table.add_row()
    return table


def _body(hit: RankedHit, terms: Iterable[str], width: int, *, is_narrow: bool) -> Group:
    parts: list[Text] = [_marked(hit.title, terms, "bold")]
    if is_narrow:
        parts.append(_places(hit))
    if hit.doc.snippet:
        room = (width - (8 if is_narrow else 8 + SOURCES_WIDTH_MAX)) * SNIPPET_LINES_MAX
        parts.append(_marked(_cut(hit.doc.snippet, terms, room), terms, ""))
    if hit.doc.url:
        parts.append(Text(line(hit.doc.url), style="dim", overflow="ellipsis", no_wrap=True))
    if hit.explain:
        parts.append(Text(explained(hit), style="dim italic"))
    return Group(*parts)


def _places(hit: RankedHit) -> Text:
    more = also(hit)
    return Text.assemble((hit.node, "cyan"), (f"\n{more}" if more else "", "dim cyan"))


def _cut(snippet: str, terms: Iterable[str], room: int) -> str:
    """Return the part of a snippet that fits, the one with the most matches in it."""
    text = line(snippet)
    return text if len(text) <= room else analyser.default().snippet(text, terms, max(20, room - 8))


def _marked(text: str, terms: Iterable[str], style: str) -> Text:
    """Return a text with the question's words in it marked; the text is made harmless first, so places stay true."""
    clean = line(text)
    marked = Text(clean, style=style)
    for start, end in analyser.default().spans(clean, terms):
        marked.stylize(MARK, start, end)
    return marked
