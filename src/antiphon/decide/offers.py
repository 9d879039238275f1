"""Which actions there are, for whoever may run them: one entry for each contract, with the nodes that have it so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from antiphon.decide.registry import NodeView
from antiphon.decide.targets import Asker
from antiphon.messages.actions import TARGETS_MAX, ActionContract, ActionEntry, ActionList, ActionListing

ROOM: Final = 900_000
"""Bytes of entries in one listing; a NATS message holds 1 MB."""


def listing(ask: ActionList, nodes: Mapping[str, NodeView], asker: Asker, master: str) -> ActionListing:
    """Return the actions that are asked for, by name, and as many as one message holds."""
    by_name: dict[str, list[tuple[ActionContract, list[str]]]] = {}
    for node in nodes.values():
        if ask.node not in (None, node.node):
            continue
        for name, offer in node.actions.items():
            if _is_wanted(ask, name) and asker.may(name, node.node):
                _note(by_name.setdefault(name, []), offer.contract, node.node)
    found: list[ActionEntry] = []
    room = ROOM
    last: str | None = None
    for name in sorted(by_name):
        entries = [ActionEntry(contract=one, nodes=tuple(names[:TARGETS_MAX])) for one, names in by_name[name]]
        room -= sum(len(entry.model_dump_json(exclude_none=True)) for entry in entries)
        if room < 0 and found:
            return ActionListing(actions=tuple(found), master=master, next=last)
        found += entries
        last = name
    return ActionListing(actions=tuple(found), master=master)


def _is_wanted(ask: ActionList, name: str) -> bool:
    return ask.action in (None, name) and (ask.after is None or name > ask.after)


def _note(entries: list[tuple[ActionContract, list[str]]], contract: ActionContract, node: str) -> None:
    for known, names in entries:
        if known is contract or known == contract:
            names.append(node)
            return
    entries.append((contract, [node]))
