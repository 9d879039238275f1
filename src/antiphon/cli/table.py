"""An answer on a terminal: rank, title, where it was found, the snippet with its matches marked, the address."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from antiphon.cli.safe import line
from antiphon.cli.show import also, explained, has_colour
from antiphon.decide import analyser
from antiphon.messages.hit import RankedHit
from antiphon.messages.search import SearchAnswer

WIDTH_MAX = 110
"""Longer lines are hard to read, however wide the terminal is."""
SNIPPET_LINES_MAX = 2
SOURCES_WIDTH_MAX = 26
SCORE_WIDTH = 5
GAP = 2
NARROW = 60
"""Below this many columns the sources go under the title."""
MARK = "bold yellow"
MARK_WITHOUT_COLOUR = "bold underline"
"""A title is bold as a whole, so bold alone marks nothing in it."""


def show(answer: SearchAnswer, console: Console | None = None) -> None:
    """Write an answer to a terminal."""
    console = console or Console(highlight=False)
    console.print(rendered(answer, console.width))


def rendered(answer: SearchAnswer, width: int) -> RenderableType:
    """Return an answer as it looks on a terminal of some width."""
    width = min(width, WIDTH_MAX)
    is_narrow = width < NARROW
    places = [_places(hit) for hit in answer.hits]
    widest = max((len(part) for place in places for part in place.plain.splitlines()), default=0)
    beside = 0 if is_narrow else min(widest, SOURCES_WIDTH_MAX) + GAP + SCORE_WIDTH + GAP
    rank = len(str(answer.offset + len(answer.hits)))
    body = max(20, width - rank - GAP - beside)
    table = _grid(rank, body, is_narrow=is_narrow)
    for hit, place in zip(answer.hits, places, strict=True):
        beside_it = () if is_narrow else (place, Text(f"{hit.score:.3g}"))
        table.add_row(str(hit.rank), _body(hit, answer.terms, body, place if is_narrow else None), *beside_it)
        table.add_row()
    return table


def _grid(rank: int, body: int, *, is_narrow: bool) -> Table:
    table = Table.grid(padding=(0, GAP, 0, 0))
    table.add_column(justify="right", style="dim", no_wrap=True, width=rank)
    table.add_column(width=body, overflow="fold")
    if not is_narrow:
        table.add_column(max_width=SOURCES_WIDTH_MAX, overflow="fold")
        table.add_column(justify="right", no_wrap=True, style="dim", width=SCORE_WIDTH)
    return table


def _body(hit: RankedHit, terms: Sequence[str], width: int, place: Text | None) -> Group:
    parts: list[Text] = [_marked(hit.title, terms, "bold")]
    if place is not None:
        parts.append(place)
    if hit.doc.snippet:
        parts.append(_marked(_cut(hit.doc.snippet, terms, width * SNIPPET_LINES_MAX), terms, ""))
    if hit.doc.url:
        parts.append(Text(line(hit.doc.url), style="dim", overflow="fold"))
    if hit.explain:
        parts.append(Text(explained(hit), style="dim italic"))
    return Group(*parts)


def _places(hit: RankedHit) -> Text:
    more = also(hit)
    return Text.assemble((hit.node, "cyan"), (f"\n{more}" if more else "", "dim cyan"))


def _cut(snippet: str, terms: Sequence[str], room: int) -> str:
    """Return the part of a snippet that fits, the one with the most matches; words that wrap leave some room unused."""
    text = line(snippet)
    return text if len(text) <= room - GAP else analyser.default().snippet(text, terms, room - room // 10)


def _marked(text: str, terms: Sequence[str], style: str) -> Text:
    """Return a text with the question's words in it marked; the text is made harmless first, so places stay true."""
    clean = line(text)
    if os.environ.get("TERM") == "dumb":  # which shows no style at all
        for start, end in sorted(analyser.default().spans(clean, terms), reverse=True):
            clean = f"{clean[:start]}*{clean[start:end]}*{clean[end:]}"
        return Text(clean)
    marked = Text(clean, style=style)
    mark = MARK if has_colour() else MARK_WITHOUT_COLOUR
    for start, end in analyser.default().spans(clean, terms):
        marked.stylize(mark, start, end)
    return marked
