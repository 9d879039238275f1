"""What `antiphon breaker` does: a line a breaker for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys

from antiphon.cli import say
from antiphon.cli.nodes.asking import asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.messages.breakers import BreakerLine, BreakerListing

COLUMNS = ("node", "instance", "verb", "state", "reason", "by", "probes")
STYLES = {"open": "red", "half_open": "yellow", "closed": "green"}
DONE = {
    "reset": "reset: calls pass, and failures open them again",
    "open": "held open: these instances of {node} are not asked until `antiphon breaker reset {node}`",
    "close": "held closed: failures open nothing until `antiphon breaker reset {node}`",
}


def ls(at: Connection, node: str | None, output: str) -> int:
    """Write the breakers that are not closed by themselves."""
    listing = asked(at, lambda client: client.breakers(node))
    if output == "json":
        print(json_text("[" + ",".join(one.model_dump_json() for one in listing.breakers) + "]"))
    elif listing.breakers and sys.stdout.isatty():
        _table(listing)
    else:
        for one in listing.breakers:
            print("\t".join(row(one)))
    sys.stdout.flush()
    if not listing.breakers:
        say("every breaker is closed")
    if listing.suspects_itself:
        say(f"{listing.master} sees most nodes fail at once and suspects itself: it opens nothing")
    return 0


def move(at: Connection, order: str, node: str, instance: str | None, *, verb: str, output: str) -> int:
    """Move breakers by hand, and say what that means."""
    asked(at, lambda client: client.breaker(order, node, instance, verb=verb))
    if output == "json":
        done = {"order": order, "node": node, "instance": instance, "verb": verb}
        print(json_text(json.dumps(done)))
        sys.stdout.flush()
    which = f"the breaker of {node}/{instance}" if instance else f"the breakers of {node}"
    say(f"{which} for {verb}: {DONE[order].format(node=node)}")
    return 0


def row(one: BreakerLine) -> tuple[str, ...]:
    """Return what is shown of a breaker, in the order of `COLUMNS`."""
    probes = f"{one.successes} well" + (f", {one.probe} tries" if one.probe else "")
    return (one.node, one.instance, one.verb, one.state, line(one.reason), one.by, probes)


def _table(listing: BreakerListing) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in COLUMNS:
        table.add_column(column, no_wrap=True)
    for one in listing.breakers:
        name, instance, verb, state, *rest = row(one)
        table.add_row(Text(name, "bold"), instance, verb, Text(state, STYLES[state]), *map(Text, rest))
    Console(highlight=False).print(table)
