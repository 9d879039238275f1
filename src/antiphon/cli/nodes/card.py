"""`antiphon node register` and `update`: what operators set of a node wins over what its instances say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from cyclopts import Group, Parameter

from antiphon.cli import listing, say
from antiphon.cli.nodes.asking import Output, asked
from antiphon.cli.options import Connection, listed
from antiphon.errors import InvalidSetting

CARD = Group("Card", sort_key=20)
Status = Literal["active", "draining", "suspended"]


@Parameter(name="*", group=CARD)
@dataclass(frozen=True, kw_only=True)
class Card:
    """What is set of a node; what is not given is the instances' own to say.

    Attributes:
        description: one or two sentences for people.
        topics: what it is about, separated by commas.
        capabilities: what it can do, separated by commas.
        collections: the names of what it holds, separated by commas.
        instances_min: how many instances there should be; fewer are shown as missing.
        weight: of each instance, where a balancer goes by weight, 0 to 10000.
        version: the version of the program behind it.
        metadata: KEY=VALUE, once for each key; added to the instances' own.
        balancer: how an instance is picked; default: the master's choice.
        max_parallel_requests: requests in flight at once; default: the master's choice.
        rate_per_minute: requests a minute; default: the master's choice.
        documents: for so many its statistics may count; default: no more than all other nodes' together.
    """

    description: str | None = None
    topics: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None
    collections: tuple[str, ...] | None = None
    instances_min: int | None = None
    weight: int | None = None
    version: str | None = None
    metadata: tuple[str, ...] | None = None
    balancer: str | None = None
    max_parallel_requests: int | None = None
    rate_per_minute: int | None = None
    documents: int | None = None

    def words(self) -> dict[str, Any]:
        """Return what is given, as `Client.register` and `Client.update` take it."""
        given = {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}
        for name in ("topics", "capabilities", "collections"):
            if name in given:
                given[name] = listed(given[name])
        if "metadata" in given:
            given["metadata"] = dict(map(_pair, given["metadata"]))
        return given


def register(
    name: str,
    /,
    *,
    status: Status | None = None,
    replace: bool = False,
    card: Card = Card(),
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Register a node: its card becomes exactly what is given, and the node is expected from now on.

    Args:
        name: the node's name.
        status: whether it is asked: active, draining or suspended; default: as it is.
        replace: replace a card that says something else.
        card: what is set.
        output: how to write the node to stdout.
        at: where the server is.
    """
    words = card.words()
    entry = asked(at, lambda client: client.register(name, status=status, replace=replace, **words))
    listing.show([entry], output)
    say(f"{name} is registered, and expected until `antiphon node rm {name}`")
    return 0


def update(
    name: str,
    /,
    *,
    status: Status | None = None,
    unset: tuple[str, ...] = (),
    card: Card = Card(),
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Set some fields of a node's card and leave the others.

    Args:
        name: the node's name.
        status: whether it is asked: active, draining or suspended.
        unset: fields to give back to the node's instances, separated by commas; metadata.KEY is one key.
        card: what is set.
        output: how to write the node to stdout.
        at: where the server is.
    """
    words, back = card.words(), tuple(map(_field, listed(unset)))
    if not words and not back and status is None:
        raise InvalidSetting("nothing to set and nothing to unset: see `antiphon node update --help`")
    entry = asked(at, lambda client: client.update(name, status=status, unset=back, **words))
    listing.show([entry], output)
    return 0


def _field(text: str) -> str:
    """Return a field's name as the messages have it; options are written with dashes."""
    name, dot, key = text.partition(".")
    return name.removeprefix("--").replace("-", "_") + dot + key


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InvalidSetting(f"--metadata {text!r}: write KEY=VALUE")
    return key.strip(), value
