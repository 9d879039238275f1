"""Nodes on their way to stdout: a line a node for people, one JSON document for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from antiphon.cli import say
from antiphon.cli.safe import json_text, line
from antiphon.messages.registry import InstanceLine, NodeEntry, Status

COLUMNS = ("node", "status", "instances", "heard", "in flight", "latency", "topics", "description")
BESIDE = COLUMNS[:6]
"""On a terminal topics stand below the description: side by side both would be too narrow to read."""
NUMBERS = frozenset({"in flight", "latency"})
STYLES = {Status.ACTIVE: "green", Status.DRAINING: "yellow", Status.SUSPENDED: "yellow", Status.DOWN: "red"}


def show(nodes: Sequence[NodeEntry], output: str, *, is_filtered: bool = False) -> None:
    """Write the list in one of the forms table, json."""
    if output == "json":
        print(json_text("[" + ",".join(node.model_dump_json() for node in nodes) + "]"))
        return
    if not nodes:
        say("no such node" if is_filtered else "no node has joined: `antiphon node serve folder ./docs` makes one")
    elif sys.stdout.isatty():
        _table(nodes)
    else:
        for node in nodes:
            print("\t".join(row(node)))


def row(node: NodeEntry) -> tuple[str, ...]:
    """Return what is shown of a node, in the order of `COLUMNS`."""
    active = [one for one in node.instances if one.status is Status.ACTIVE]
    heard = [one.heard_ms_ago for one in node.instances if one.heard_ms_ago is not None]
    return (
        node.node,
        str(node.status),
        f"{len(active)}/{max(len(node.instances), _wanted(node))}",
        ago(min(heard)) if heard else "not yet" if node.instances else "-",
        str(sum(one.in_flight for one in node.instances)),
        _latency(active),
        line(", ".join(node.topics)),
        line(node.description),
    )


def ago(ms: int) -> str:
    """Return how long ago something was, as people say it."""
    return f"{since(ms)} ago"


def since(ms: int) -> str:
    """Return how long something lasts, as people say it."""
    seconds = ms / 1_000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"


def _wanted(node: NodeEntry) -> int:
    """Return how many instances operators want of a node."""
    return 0 if node.card is None else node.card.instances_min or 0


def _latency(instances: Sequence[InstanceLine]) -> str:
    known = [one.latency_us for one in instances if one.latency_us]
    return f"{max(known) / 1_000:.1f} ms" if known else "-"


def _table(nodes: Sequence[NodeEntry]) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - rich, for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in BESIDE:
        table.add_column(column, no_wrap=True, justify="right" if column in NUMBERS else "left")
    table.add_column(COLUMNS[-1], ratio=1)
    for node in nodes:
        name, status, *rest, topics, description = row(node)
        words = Text.assemble(description, (f"\n{topics}" if topics else "", "dim"))
        table.add_row(Text(name, "bold"), Text(status, STYLES[node.status]), *map(Text, rest), words)
    Console(highlight=False).print(table)
