"""How every node is, as people read it: a line a node, and what is wrong below."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from antiphon.cli.listing import since
from antiphon.cli.safe import line
from antiphon.decide.overview import worst_nodes
from antiphon.messages.monitor import MonitorNode, MonitorView
from antiphon.messages.registry import Status

if TYPE_CHECKING:
    from rich.console import RenderableType

GAP = 2
NAME_CHARS = 20
"""A name keeps so many characters before a column is dropped for it."""
NOBODY: Mapping[str, float] = {}
COLUMNS = ("node", "status", "instances", "rps", "p50", "p95", "in flight", "load", "breaker", "coverage", "errors")
NUMBERS = frozenset(COLUMNS[2:8]) | {"coverage", "errors"}
DROPPED_FIRST = ("load", "p50", "in flight", "coverage", "rps", "p95", "errors", "instances", "breaker")
"""On a narrow terminal, what matters least first; a node's name and status stay."""
STATUS_STYLES = {Status.ACTIVE: "green", Status.DRAINING: "yellow", Status.SUSPENDED: "yellow", Status.DOWN: "red"}
BREAKER_STYLES = {"closed": "green", "half_open": "yellow", "partly_open": "yellow", "open": "red"}
SEVERITY_STYLES = {"critical": "bold red", "warning": "yellow", "info": "dim"}


def row(node: MonitorNode) -> tuple[str, ...]:
    """Return what is shown of a node, in the order of `COLUMNS`."""
    up = sum(one.status is Status.ACTIVE for one in node.instances)
    return (
        node.node,
        str(node.status),
        f"{up}/{len(node.instances)}",
        f"{node.requests_per_second:.1f}",
        _ms(node.p50_us),
        _ms(node.p95_us),
        str(node.in_flight),
        f"{node.load:.2f}",
        node.breaker.replace("_", " "),
        _share(node.coverage),
        _share(node.error_rate),
    )


def footer(view: MonitorView, silent: Mapping[str, float] = NOBODY) -> list[str]:
    """Return what is said below: the whole, whose view it is, and what is wrong.

    Args:
        view: how everything is.
        silent: masters that have answered before and do not now, and for how many seconds.
    """
    parts = [
        f"{len(view.nodes) + view.nodes_left_out} nodes, {view.requests_per_second:.1f} requests/s",
        f"seen by {', '.join(view.masters)}",
    ]
    if view.coverage is not None:
        parts.insert(1, f"coverage {_share(view.coverage)}")
    lines = ["; ".join(parts)]
    for name, seconds in silent.items():
        lines.append(f"{name} has not answered for {since(round(seconds * 1_000))}: it has stopped, or is frozen")
    if view.suspects_itself:
        lines.append(f"{', '.join(view.suspects_itself)} sees most nodes fail at once and suspects itself")
    if view.nodes_left_out or view.alerts_left_out:
        left_out = f"{view.nodes_left_out} nodes, which are better off, and {view.alerts_left_out} alerts"
        lines.append(f"no room for {left_out}")
    return lines + list(_alerts(view))


def fitting(rows: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """Return the columns that fit and their widths; no number is ever cut, names are, and what matters least goes."""
    wide = [max(map(len, cells)) for cells in zip(COLUMNS, *rows, strict=True)]
    kept = dict(enumerate(wide))
    least = [COLUMNS.index(name) for name in DROPPED_FIRST]
    while sum(kept.values()) - max(0, wide[0] - NAME_CHARS) + GAP * (len(kept) - 1) > width and least:
        del kept[least.pop(0)]
    others = sum(kept.values()) - wide[0] + GAP * (len(kept) - 1)
    kept[0] = max(1, min(wide[0], width - others))
    return kept


def table(view: MonitorView, width: int) -> RenderableType:
    """Return the nodes for a terminal that is so wide."""
    from rich.table import Table  # noqa: PLC0415 - for people only
    from rich.text import Text  # noqa: PLC0415 - as above

    rows = [row(node) for node in view.nodes]
    columns = fitting(rows, width)
    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for at, wide in columns.items():
        is_number = COLUMNS[at] in NUMBERS
        made.add_column(
            COLUMNS[at], no_wrap=True, overflow="ellipsis", width=wide, justify="right" if is_number else "left"
        )
    for node, cells in zip(view.nodes, rows, strict=True):
        styles = {0: "bold", 1: STATUS_STYLES[node.status], COLUMNS.index("breaker"): BREAKER_STYLES[node.breaker]}
        made.add_row(*(Text(cells[at], styles.get(at, "")) for at in columns))
    return made


def screen(view: MonitorView, width: int, height: int, silent: Mapping[str, float] = NOBODY) -> RenderableType:
    """Return the view and what is wrong, for a terminal of this size that is drawn again and again."""
    from rich.console import Console, Group  # noqa: PLC0415 - for people only
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(width=width)
    styles = dict(zip(_alerts(view), (SEVERITY_STYLES[one.severity] for one in view.alerts), strict=True))
    below: list[Text] = []
    room = max(1, height // 3)
    lines = footer(view, silent)
    for at, text in enumerate(lines):
        folded = list(Text(text, styles.get(text, "dim")).wrap(console, width))
        if len(below) + len(folded) + (at < len(lines) - 1) > room:
            below.append(Text(f"and {len(lines) - at} more lines: antiphon monitor --once"[:width], "dim"))
            break
        below += folded
    shown = worst_nodes(view, max(1, height - len(below) - 3))
    left_out = len(view.nodes) - len(shown.nodes)
    more = [Text(f"and {left_out} nodes, better off"[:width], "dim")] if left_out else []
    return Group(table(shown, width), *more, Text(), *below)


def _alerts(view: MonitorView) -> Iterable[str]:
    return (f"{one.severity}: {line(one.text)} [{one.id}]" for one in view.alerts)


def _ms(us: int) -> str:
    return f"{us / 1_000:.1f} ms" if us else "-"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
