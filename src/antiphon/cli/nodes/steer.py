"""`antiphon node suspend`, `resume`, `drain` and `rm`: whether nodes are asked, and whether they are expected."""

from __future__ import annotations

from typing import Any

from antiphon.cli import listing, say
from antiphon.cli.nodes.asking import Output, asked, is_confirmed
from antiphon.cli.options import Connection
from antiphon.client import Client
from antiphon.errors import InvalidSetting
from antiphon.messages.card import Wish
from antiphon.messages.operators import NodeRemoved
from antiphon.messages.registry import NodeEntry


def suspend(*names: str, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Have nodes no longer asked; answers say that they were skipped.

    Args:
        names: the nodes.
        output: how to write them to stdout.
        at: where the server is.
    """
    return _wish(names, Wish.SUSPENDED, output, at)


def drain(*names: str, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Have nodes asked nothing new; what they have begun ends.

    Args:
        names: the nodes.
        output: how to write them to stdout.
        at: where the server is.
    """
    return _wish(names, Wish.DRAINING, output, at)


def resume(*names: str, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Have suspended or draining nodes asked again.

    Args:
        names: the nodes.
        output: how to write them to stdout.
        at: where the server is.
    """
    return _wish(names, Wish.ACTIVE, output, at)


def rm(*names: str, yes: bool = False, output: Output = "table", at: Connection = Connection()) -> int:  # noqa: B008 - frozen
    """Forget nodes: their cards and the instances that are down. Instances that live stay until they leave.

    Args:
        names: the nodes.
        yes: ask nothing.
        output: how to write what was forgotten to stdout.
        at: where the server is.
    """
    _some(names)
    if not is_confirmed(f"forget {', '.join(names)}?", yes=yes):
        say("nothing was forgotten")
        return 1

    async def ask(client: Client) -> list[NodeRemoved]:
        return [await client.remove(name) for name in names]

    removed = dict(zip(names, asked(at, ask), strict=True))
    _show_removed(removed, output)
    return 0 if all(one.was_registered or one.forgotten for one in removed.values()) else 1


def _wish(names: tuple[str, ...], wish: Wish, output: str, at: Connection) -> int:
    _some(names)

    async def ask(client: Client) -> list[NodeEntry]:
        return [await client.update(name, status=wish) for name in names]

    listing.show(asked(at, ask), output)
    return 0


def _show_removed(removed: dict[str, NodeRemoved], output: str) -> None:
    if output == "json":
        from json import dumps  # noqa: PLC0415 - for this form only

        rows: list[dict[str, Any]] = [{"node": name, **one.model_dump()} for name, one in removed.items()]
        print(dumps(rows))
    else:
        for name, one in removed.items():
            print(f"{name}\t{'card forgotten' if one.was_registered else 'no card'}\t{one.forgotten} forgotten")
    for name, one in removed.items():
        if one.left:
            say(f"{name} is still there with {_instances(one.left)}: stop them, or `antiphon node suspend {name}`")


def _instances(count: int) -> str:
    return f"{count} live instance{'' if count == 1 else 's'}"


def _some(names: tuple[str, ...]) -> None:
    if not names:
        raise InvalidSetting("name at least one node: `antiphon node ls` lists them")
