"""`antiphon node show NAME`: all that is known of one node, and who has the say in each field."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from antiphon.cli.acting.listing import STYLES as EFFECTS
from antiphon.cli.listing import STYLES, ago
from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.cli.show import duration
from antiphon.messages.actions import ActionLine
from antiphon.messages.registry import InstanceLine, NodeEntry, Status

FIELDS = (
    "description",
    "topics",
    "capabilities",
    "collections",
    "version",
    "weight",
    "metadata",
    "balancer",
    "max_parallel_requests",
    "rate_per_minute",
    "documents",
)
ACTIONS = ("action", "effect", "description")
COLUMNS = ("instance", "status", "heard", "in flight", "latency", "weight", "version")


def show(name: str, /, *, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Show all that is known of a node, and who has said it.

    Args:
        name: the node's name.
        output: how to write it to stdout.
        at: where the server is.
    """
    entry = asked(at, lambda client: client.get(name))
    if output == "json":
        print(json_text(entry.model_dump_json()))
    elif sys.stdout.isatty():
        _tables(entry)
    else:
        for row in rows(entry):
            print("\t".join(row))
        for action in entry.actions:
            print("\t".join(("action", *action_row(action))))
        for one in entry.instances:
            print("\t".join(("instance", *instance_row(one))))
    return 0


def rows(entry: NodeEntry) -> Iterator[tuple[str, str, str]]:
    """Yield each field, its value, and who has said it."""
    card = entry.card
    by = "registered" if card is not None and card.is_registered else "not registered"
    yield "node", entry.node, by if card is None else f"{by}, last changed by {card.changed_by or '-'}"
    is_wish = entry.status in (Status.DRAINING, Status.SUSPENDED)
    yield "status", str(entry.status), "operators" if is_wish else "heartbeats"
    if card is not None and card.instances_min is not None:
        yield "instances_min", str(card.instances_min), "operators"
    for name in FIELDS:
        value = getattr(entry, name)
        set_by_us = card is not None and getattr(card, name, None) is not None
        if value not in (None, (), {}, "") or set_by_us:
            by = "operators" if set_by_us else "instances" if entry.instances else "default"
            yield name, line(_text(value)), by


def action_row(one: ActionLine) -> tuple[str, ...]:
    """Return what is shown of an action, in the order of `ACTIONS`."""
    return one.name, str(one.effect), line(one.description)


def instance_row(one: InstanceLine) -> tuple[str, ...]:
    """Return what is shown of an instance, in the order of `COLUMNS`."""
    return (
        one.instance,
        str(one.status),
        "not yet" if one.heard_ms_ago is None else ago(one.heard_ms_ago),
        str(one.in_flight),
        duration(one.latency_us) if one.latency_us else "-",
        str(one.weight),
        line(one.version),
    )


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={said}" for key, said in value.items())  # pyright: ignore[reportUnknownVariableType] - labels
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - the same


def _tables(entry: NodeEntry) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - rich, for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    console = Console(highlight=False)
    fields = Table.grid(padding=(0, 2, 0, 0))
    for name, value, by in rows(entry):
        style = STYLES[entry.status] if name == "status" else ""
        fields.add_row(Text(name.replace("_", " "), "dim"), Text(value, style), Text(by, "dim"))
    console.print(fields)
    if entry.actions:
        actions = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ACTIONS:
            actions.add_column(column, no_wrap=column != "description")
        for action in entry.actions:
            name, effect, description = action_row(action)
            actions.add_row(Text(name), Text(effect, EFFECTS[action.effect]), description)
        console.print()
        console.print(actions)
    if not entry.instances:
        return
    instances = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in COLUMNS:
        instances.add_column(column, no_wrap=True)
    for one in entry.instances:
        name, status, *rest = instance_row(one)
        instances.add_row(Text(name), Text(status, STYLES[one.status]), *map(Text, rest))
    console.print()
    console.print(instances)
