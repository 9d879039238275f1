"""`antiphon action ls` and `show`: which actions there are, and what each takes, returns and does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import JsonValue

from antiphon.cli import say
from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.errors import UnknownAction
from antiphon.messages.actions import ActionContract, ActionEntry, Effect

COLUMNS = ("action", "effect", "nodes", "description")
STYLES = {Effect.READ: "green", Effect.WRITE: "", Effect.DESTRUCTIVE: "red"}
NAMED_MAX = 5
DEFS = "#/$defs/"
BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "minLength": "length >=",
    "maxLength": "length <=",
    "pattern": "like",
}


def ls(
    *,
    node: str | None = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """List the actions that you may run.

    Args:
        node: only this node's.
        output: how to write the list to stdout.
        at: where the server is.
    """
    entries = asked(at, lambda client: client.actions(node=node))
    if output == "json":
        print(json_text("[" + ",".join(one.model_dump_json(exclude_none=True) for one in entries) + "]"))
    elif not entries:
        say("no node has an action that you may run: `@node.action(...)` makes one (docs/actions.md)")
    elif sys.stdout.isatty():
        _table(entries)
    else:
        for one in entries:
            print("\t".join(row(one)))
    return 0


def show(
    name: str,
    /,
    *,
    node: Annotated[str | None, Parameter()] = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Show what an action takes, returns and does, and on which nodes.

    Args:
        name: the action's name.
        node: as it is on this node; default: one part for each way in which nodes have it.
        output: how to write it to stdout; json has the JSON Schemas.
        at: where the server is.
    """
    entries = asked(at, lambda client: client.actions(action=name, node=node))
    if not entries:
        raise UnknownAction(f"no node has an action {name!r} that you may run; `antiphon action ls` lists them")
    if output == "json":
        print(json_text("[" + ",".join(one.model_dump_json(exclude_none=True) for one in entries) + "]"))
        return 0
    for number, one in enumerate(entries):
        if sys.stdout.isatty():
            if number:
                print()
            _grid(one)
        else:
            for cells in rows(one):
                print("\t".join(cells))
    return 0


def row(one: ActionEntry) -> tuple[str, ...]:
    """Return what is shown of an action, in the order of `COLUMNS`."""
    contract = one.contract
    return (contract.name, str(contract.effect), _nodes(one), line(contract.description))


def rows(one: ActionEntry) -> Iterator[tuple[str, str]]:
    """Yield all that is known of an action: what, and how it is."""
    contract = one.contract
    yield "action", contract.name
    if contract.description:
        yield "description", line(contract.description)
    yield "nodes", ", ".join(one.nodes)
    yield "effect", str(contract.effect)
    yield "idempotent", "yes: it may be asked again" if contract.idempotent else "no: it is asked once"
    yield "dry run", "yes: --dry-run" if contract.has_dry_run else "no"
    if contract.compensates:
        yield "undoes", contract.compensates
    yield from (("param", text) for text in _fields(contract.params, "takes nothing"))
    yield from (("result", text) for text in _fields(contract.result, "any JSON"))
    for name, kind in contract.aggregates.items():
        yield "in all", f"{kind} of {line(name)}"


def kind_of(schema: Mapping[str, JsonValue], part: JsonValue) -> str:
    """Return what sort of value a schema's part asks for, in words."""
    if not isinstance(part, dict):
        return "anything"
    reference = part.get("$ref")
    if isinstance(reference, str):
        defs = schema.get("$defs")
        found = defs.get(reference.removeprefix(DEFS)) if isinstance(defs, dict) else None
        return kind_of(schema, found)
    if isinstance(choices := part.get("enum"), list):
        return " | ".join(json.dumps(one, ensure_ascii=False) for one in choices)
    for key in ("anyOf", "oneOf"):
        if isinstance(ways := part.get(key), list):
            return " or ".join(kind_of(schema, one) for one in ways)
    told = part.get("type")
    if told == "array":
        return f"list of {kind_of(schema, part.get('items'))}"
    return told if isinstance(told, str) else "anything"


def _fields(schema: Mapping[str, JsonValue] | None, none: str) -> Iterator[str]:
    found = None if schema is None else schema.get("properties")
    if schema is None or not isinstance(found, dict) or not found:
        yield none
        return
    fields: Mapping[str, JsonValue] = found
    required: Any = schema.get("required") or []
    for name, part in fields.items():
        words = [line(str(name)), kind_of(schema, part)]
        if isinstance(part, dict):
            words += _bounds(part)
            if name not in required and "default" in part:
                words.append(f"= {json.dumps(part['default'], ensure_ascii=False)}")
            elif name not in required:
                words.append("(optional)")
            if isinstance(part.get("description"), str):
                words.append(f"- {line(str(part['description']))}")
        yield line(" ".join(words))


def _bounds(part: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield what a number or a text may be, where its schema says so plainly."""
    for keyword, word in BOUNDS.items():
        if keyword in part:
            yield f"{word} {json.dumps(part[keyword], ensure_ascii=False)}"


def _nodes(one: ActionEntry) -> str:
    more = len(one.nodes) - NAMED_MAX
    return ", ".join(one.nodes[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")


def _table(entries: tuple[ActionEntry, ...]) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - rich, for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in COLUMNS:
        table.add_column(column, no_wrap=column in COLUMNS[:2])
    for one in entries:
        name, effect, nodes, description = row(one)
        table.add_row(Text(name, "bold"), Text(effect, STYLES[one.contract.effect]), nodes, description)
    Console(highlight=False).print(table)


def _grid(one: ActionEntry) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - rich, for people only
    from rich.text import Text  # noqa: PLC0415 - rich, too

    grid = Table.grid(padding=(0, 2, 0, 0))
    last = ""
    for what, text in rows(one):
        style = STYLES[ActionContract.model_validate(one.contract).effect] if what == "effect" else ""
        grid.add_row(Text("" if what == last else what, "dim"), Text(text, style))
        last = what
    Console(highlight=False).print(grid)
