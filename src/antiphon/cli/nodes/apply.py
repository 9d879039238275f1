"""`antiphon node apply FILE`: bring the registered nodes to what a fleet file says, one readable step at a time."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, cast

from cyclopts import Parameter

from antiphon.cli import say
from antiphon.cli.nodes.asking import Output, asked, is_confirmed
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.client import Client
from antiphon.decide import fleet_file
from antiphon.decide.fleet_file import Change, FleetFile
from antiphon.errors import AntiphonError, InvalidSetting
from antiphon.messages.base import Message, Request

FILE_BYTES_MAX = 16 * 1024 * 1024


def apply(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    dry_run: bool = False,
    prune: bool = False,
    yes: bool = False,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Bring the registered nodes to what a fleet file says; what it does not mention stays as it is.

    Args:
        file: the fleet file (TOML); - reads it from stdin.
        dry_run: only say what would change.
        prune: also forget the cards of nodes, the fields and the policy, where the file does not mention them.
        yes: ask nothing.
        output: how to write the changes to stdout.
        at: where the server is.
    """
    fleet = read(file)
    return asked(at, lambda client: _apply(client, fleet, dry_run=dry_run, prune=prune, yes=yes, output=output))


def read(file: str) -> FleetFile:
    """Return a fleet file; raises `InvalidSetting` with what is wrong with it."""
    name = "stdin" if file == "-" else file
    try:
        if file == "-":
            content = sys.stdin.buffer.read(FILE_BYTES_MAX)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(FILE_BYTES_MAX)
        return fleet_file.parse(tomllib.loads(content.decode()), name)
    except OSError as error:
        raise InvalidSetting(f"{name}: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise InvalidSetting(f"{name}: {error}") from None
    except RecursionError:
        raise InvalidSetting(f"{name}: too deep to read") from None


async def _apply(client: Client, fleet: FleetFile, *, dry_run: bool, prune: bool, yes: bool, output: str) -> int:
    cards = {node.node: node.card for node in await client.nodes() if node.card is not None}
    policy = await client.policy() if prune or fleet.policy is not None else None
    steps = fleet_file.changes(fleet, cards, policy, prune=prune)
    removed = [step.removed for step in steps if step.removed is not None]
    if dry_run:
        _show(steps, output)
        say(f"{_count(steps)} would be made; nothing was changed")
        return 0
    if removed and not is_confirmed(f"forget {', '.join(removed)}?", yes=yes):
        say("nothing was changed")
        return 1
    made: list[Change] = []
    try:
        for step in steps:
            await client.bus.ask(cast("Request[Message]", step.request))
            made.append(step)
    except AntiphonError:
        failed = steps[len(made)]
        say(f"{failed.verb} {failed.node or 'of the file'} failed; {len(made)} of {_count(steps)} made")
        raise
    finally:
        _show(made, output)
    say(f"{_count(made)} made" if made else "nothing to change: everything is as the file says")
    return 0


def _show(steps: Sequence[Change], output: str) -> None:
    if output == "json":
        rows = [
            {"verb": step.verb, "node": step.node or None, "details": [asdict(one) for one in step.details]}
            for step in steps
        ]
        print(json_text(json.dumps(rows, ensure_ascii=False)))
    else:
        for step in steps:
            print(line(str(step)))
    sys.stdout.flush()


def _count(steps: Sequence[Change]) -> str:
    return f"{len(steps)} change{'' if len(steps) == 1 else 's'}"
