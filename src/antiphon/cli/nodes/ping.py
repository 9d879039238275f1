"""`antiphon node ping`: every instance of some nodes is asked whether it is there, and who is silent is named."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from antiphon.cli import say
from antiphon.cli.exits import Exit
from antiphon.cli.listing import since
from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.cli.show import duration
from antiphon.errors import InvalidSetting
from antiphon.messages.ping import PingAnswer, PingLine

COLUMNS = ("node", "instance", "there and back", "in flight", "latency", "uptime", "version")
NUMBERS = frozenset({"there and back", "in flight", "latency", "uptime"})


def ping(
    *names: str,
    all: bool = False,  # noqa: A002 - the option's name
    wait_ms: Annotated[int, Parameter(validator=Number(gte=1, lte=60_000))] = 1_000,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Ask every instance whether it is there, also those that are down, draining or suspended.

    Exit codes: 0 all answered, 3 some did not, 4 none did.

    Args:
        names: the nodes.
        all: all nodes.
        wait_ms: how long to wait for the last instance.
        output: how to write the answers to stdout.
        at: where the server is.
    """
    if bool(names) is all:
        raise InvalidSetting("name nodes, or write --all")
    answer = asked(at, lambda client: client.ping(*names, wait_ms=wait_ms))
    if output == "json":
        print(json_text(answer.model_dump_json()))
    elif sys.stdout.isatty():
        _table(answer)
    else:
        for one in answer.lines:
            print("\t".join(row(one)))
    sys.stdout.flush()
    say(footer(answer))
    answered = sum(one.rtt_us is not None for one in answer.lines)
    return Exit.NOBODY if not answered else Exit.DONE if answered == len(answer.lines) else Exit.PARTIAL


def row(one: PingLine) -> tuple[str, ...]:
    """Return what is shown of an instance, in the order of `COLUMNS`."""
    return (
        one.node,
        one.instance or "-",
        duration(one.rtt_us) if one.rtt_us is not None else one.code or "-",
        str(one.load.in_flight) if one.load else "-",
        duration(one.load.latency_us) if one.load and one.load.latency_us else "-",
        since(one.uptime_ms) if one.uptime_ms is not None else "-",
        line(one.version or "-"),
    )


def footer(answer: PingAnswer) -> str:
    """Return how many answered, how fast, and who did not."""
    silent = [one for one in answer.lines if one.rtt_us is None]
    if not answer.lines:
        return "no node is registered: `antiphon node serve folder ./docs` makes one"
    text = f"{len(answer.lines) - len(silent)}/{len(answer.lines)} answered in {duration(answer.took_us)}"
    names = [f"{one.node}{'.' + one.instance if one.instance else ''} ({one.code})" for one in silent]
    return f"{text}; no answer from: {', '.join(names)}" if names else text


def _table(answer: PingAnswer) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - rich, for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in COLUMNS:
        table.add_column(column, no_wrap=True, justify="right" if column in NUMBERS else "left")
    for one in answer.lines:
        name, instance, there_and_back, *rest = row(one)
        style = "red" if one.rtt_us is None else "green"
        table.add_row(Text(name, "bold"), Text(instance), Text(there_and_back, style), *map(Text, rest))
    Console(highlight=False).print(table)
