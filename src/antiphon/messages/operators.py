"""The conversation of operators with the registry: register, update, remove, get; the answer is the node as it is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from antiphon.messages.base import ANYONE, Count, Kind, Message, Name, Request, Route
from antiphon.messages.card import FIELDS, CardFields, Wish
from antiphon.messages.registry import NodeEntry
from antiphon.subjects import Template

OPERATORS = (Kind.OPERATOR,)
Unset = Annotated[str, StringConstraints(pattern=rf"^({'|'.join(FIELDS)}|metadata\..+)$", max_length=210)]


class NodeRegister(CardFields, Request[NodeEntry]):
    """The node's card becomes exactly this; registering the same again is the same as once."""

    route = Route(Template("registry.register.<caller>"), sent_by=OPERATORS, read_by=(Kind.MASTER,), queue="registry")

    node: Name
    status: Wish | None = Field(default=None, description="default: as it is, active for a new one")
    replace: bool = Field(default=False, description="otherwise a card that says something else is left as it is")


class NodeUpdate(CardFields, Request[NodeEntry]):
    """Some fields of the node's card become these, the others stay; a node without a card gets one."""

    route = Route(Template("registry.update.<caller>"), sent_by=OPERATORS, read_by=(Kind.MASTER,), queue="registry")

    node: Name
    status: Wish | None = Field(default=None, description="suspended and draining nodes get no new questions")
    unset: Annotated[tuple[Unset, ...], Field(max_length=128)] = Field(
        default=(), description="fields to give back to the instances, before others are set; metadata.KEY is one key"
    )


class NodeRemoved(Message):
    """What is left of a node after its card and its silent instances were removed."""

    was_registered: bool = Field(description="whether it had a card")
    forgotten: Count = Field(default=0, description="instances that were down and are forgotten")
    left: Count = Field(default=0, description="instances that live; the node is there as long as they are")


class NodeRemove(Request[NodeRemoved]):
    """Forget what operators have said of a node, and its instances that are down; those that live are not touched."""

    route = Route(Template("registry.remove.<caller>"), sent_by=OPERATORS, read_by=(Kind.MASTER,), queue="registry")

    node: Name


class NodeGet(Request[NodeEntry]):
    """Get one node."""

    route = Route(Template("registry.get.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue="registry")

    node: Name
