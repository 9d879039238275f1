"""How every node is, as people read it: a line a node, and what is wrong below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from antiphon.cli.safe import line
from antiphon.messages.monitor import MonitorNode, MonitorView
from antiphon.messages.registry import Status

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS = ("node", "status", "instances", "rps", "p50", "p95", "in flight", "load", "breaker", "coverage", "errors")
NUMBERS = frozenset(COLUMNS[2:8]) | {"coverage", "errors"}
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


def footer(view: MonitorView) -> list[str]:
    """Return what is said below: the whole, whose view it is, and what is wrong."""
    parts = [
        f"{len(view.nodes) + view.nodes_left_out} nodes, {view.requests_per_second:.1f} requests/s",
        f"seen by {', '.join(view.masters)}",
    ]
    if view.coverage is not None:
        parts.insert(1, f"coverage {_share(view.coverage)}")
    lines = ["; ".join(parts)]
    if view.suspects_itself:
        lines.append(f"{', '.join(view.suspects_itself)} sees most nodes fail at once and suspects itself")
    if view.nodes_left_out or view.alerts_left_out:
        left_out = f"{view.nodes_left_out} nodes, which are better off, and {view.alerts_left_out} alerts"
        lines.append(f"no room for {left_out}")
    return lines + [f"{one.severity}: {line(one.text)} [{one.id}]" for one in view.alerts]


def table(view: MonitorView) -> RenderableType:
    """Return the view for a terminal."""
    from rich.table import Table  # noqa: PLC0415 - for people only
    from rich.text import Text  # noqa: PLC0415 - as above

    made = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in COLUMNS:
        made.add_column(column, no_wrap=True, justify="right" if column in NUMBERS else "left")
    for node in view.nodes:
        cells = [Text(cell) for cell in row(node)]
        cells[0].stylize("bold")
        cells[1].stylize(STATUS_STYLES[node.status])
        cells[COLUMNS.index("breaker")].stylize(BREAKER_STYLES[node.breaker])
        made.add_row(*cells)
    return made


def screen(view: MonitorView) -> RenderableType:
    """Return the view and what is wrong, for a terminal that is drawn again and again."""
    from rich.console import Group  # noqa: PLC0415 - for people only
    from rich.text import Text  # noqa: PLC0415 - as above

    styles = {f"{one.severity}: {line(one.text)} [{one.id}]": SEVERITY_STYLES[one.severity] for one in view.alerts}
    return Group(table(view), Text(), *(Text(text, styles.get(text, "dim")) for text in footer(view)))


def _ms(us: int) -> str:
    return f"{us / 1_000:.1f} ms" if us else "-"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
