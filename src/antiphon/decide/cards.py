"""What operators have said of a node against what its instances say: who wins, and how a card changes.

Field by field: what the card sets wins, else the newest instance speaks for the node; metadata is joined key by key.
A change is a pure function of the card before it, so that a master that lost a race for the bucket makes it again on
what the other has written, and neither loses a field.

A node that operators have registered is expected until they remove it. One that they have only suspended, or set a
field of, has a card for as long as that lasts: resumed, and its fields given back, it is on its own again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from antiphon.errors import AlreadyRegistered
from antiphon.messages.card import FIELDS, NodeCard, Wish
from antiphon.messages.operators import NodeRegister, NodeUpdate
from antiphon.messages.registry import NodeRecord

STAMPS = {"registered_at_ms", "changed_at_ms", "changed_by"}
KEPT = ("description", "topics", "capabilities", "collections", "version", "weight")
"""The fields that both a card and an instance's join have, besides the metadata."""
UNKNOWN = ("search",)
"""What a registered node is taken to do while neither an operator nor an instance has said it: it stays expected."""


@dataclass(frozen=True, slots=True)
class Described:
    """A node as it counts: each field by whoever has the say."""

    description: str = ""
    topics: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    version: str = "0"
    weight: int = 100
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


def described(card: NodeCard | None, newest: NodeRecord | None) -> Described:
    """Return a node's description from its card and its newest instance, one of which is there."""
    fields: dict[str, Any] = {} if newest is None else {name: getattr(newest, name) for name in KEPT}
    if newest is None:
        fields["capabilities"] = UNKNOWN
    metadata = {} if newest is None else dict(newest.metadata)
    if card is not None:
        fields |= {name: value for name in KEPT if (value := getattr(card, name)) is not None}
        metadata |= card.metadata or {}
    return Described(**fields, metadata=metadata)


def registered(before: NodeCard | None, ask: NodeRegister, by: str, now_ms: int) -> NodeCard:
    """Return the card that says exactly what is asked.

    Raises `AlreadyRegistered` where another one is there that is not to be replaced.
    """
    said = {name: getattr(ask, name) for name in FIELDS}
    status = ask.status or (before.status if before is not None else Wish.ACTIVE)
    after = _stamped(before, ask.node, said | {"status": status, "is_registered": True}, by, now_ms)
    if before is not None and changed(before, after) and not ask.replace:
        differing = ", ".join(changed(before, after))
        raise AlreadyRegistered(f"{ask.node} is registered with another {differing}: update it, or replace the card")
    return after


def updated(before: NodeCard | None, ask: NodeUpdate, by: str, now_ms: int) -> NodeCard:
    """Return the card after some fields were given back and others set; metadata is set key by key."""
    said: dict[str, Any] = {name: None if before is None else getattr(before, name) for name in FIELDS}
    said["status"] = ask.status or (before.status if before is not None else Wish.ACTIVE)
    metadata: dict[str, str] = dict(said["metadata"] or {})
    for name in ask.unset:
        of, _, key = name.partition(".")
        if key:
            metadata.pop(key, None)
        elif of == "metadata":
            metadata.clear()
        else:
            said[of] = None
    metadata |= ask.metadata or {}
    said |= {name: value for name in FIELDS if (value := getattr(ask, name)) is not None}
    said["metadata"] = metadata or None
    said["is_registered"] = before is not None and before.is_registered
    return _stamped(before, ask.node, said, by, now_ms)


def says_nothing(card: NodeCard) -> bool:
    """Whether a card is there for nothing: nobody has registered the node, and all is as without the card."""
    return not card.is_registered and card.status is Wish.ACTIVE and all(getattr(card, name) is None for name in FIELDS)


def changed(before: NodeCard | None, after: NodeCard | None) -> tuple[str, ...]:
    """Return what differs between two cards, besides who wrote them when; of no card, everything that is set."""
    names = (*FIELDS, "status")
    if before is None or after is None:
        card = before or after
        return () if card is None else tuple(name for name in FIELDS if getattr(card, name) is not None)
    return tuple(name for name in names if getattr(before, name) != getattr(after, name))


def change(before: NodeCard | None, after: NodeCard) -> str:
    """Return what has happened, as in `NodeChanged`: the status where it has changed, as that decides who is asked."""
    was = Wish.ACTIVE if before is None else before.status
    if after.status is not was:
        return "resumed" if after.status is Wish.ACTIVE else str(after.status)
    is_new = after.is_registered and (before is None or not before.is_registered)
    return "registered" if is_new else "updated"


def _stamped(before: NodeCard | None, node: str, said: dict[str, Any], by: str, now_ms: int) -> NodeCard:
    """Return a card; one that says the same as before is that one, so that saying it again changes nothing."""
    first_ms = now_ms if before is None else before.registered_at_ms
    stamps = {"registered_at_ms": first_ms, "changed_at_ms": now_ms, "changed_by": by}
    after = NodeCard.model_validate({"node": node, **said, **stamps})
    is_same = before is not None and before.is_registered is after.is_registered and not changed(before, after)
    return before if before is not None and is_same else after
