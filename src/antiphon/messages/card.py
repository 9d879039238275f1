"""A node's card: what operators have said of a node, field by field, beside what its instances say of themselves.

A field that operators have not set is the instances' own to say; one that they have set wins, for every master and
after every restart, until it is given back (`unset`) or the node is removed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from antiphon.messages.base import Count, Label, Message, Name, Text

Labels = Annotated[tuple[Label, ...], Field(max_length=64)]
Names = Annotated[tuple[Name, ...], Field(max_length=64)]
Metadata = Annotated[dict[Label, Label], Field(max_length=64)]
Weight = Annotated[int, Field(ge=0, le=10_000)]


class Wish(StrEnum):
    """Whether operators want a node to be asked."""

    ACTIVE = "active"
    DRAINING = "draining"
    SUSPENDED = "suspended"


class CardFields(BaseModel):
    """What operators may set of a node; None is "not set"."""

    model_config = ConfigDict(defer_build=True)

    description: Text | None = None
    topics: Labels | None = None
    capabilities: Names | None = None
    collections: Labels | None = None
    instances_min: int | None = Field(
        default=None, ge=0, le=256, description="how many instances there should be; fewer are shown as missing"
    )
    weight: Weight | None = Field(default=None, description="of each instance, where a balancer goes by weight")
    version: Label | None = None
    metadata: Metadata | None = Field(default=None, description="added to the instances' own, key by key")
    balancer: Name | None = Field(default=None, description="how an instance is picked; default: the master's")
    max_parallel_requests: int | None = Field(
        default=None, ge=1, le=100_000, description="requests in flight at once; default: the master's"
    )
    rate_per_minute: int | None = Field(
        default=None, ge=1, le=100_000_000, description="requests a minute of each master; default: no limit"
    )
    documents: Count | None = Field(
        default=None, description="for so many its statistics may count; default: no more than all others' together"
    )


FIELDS = tuple(CardFields.model_fields)
"""The names of what operators may set, besides the status."""


class NodeCard(CardFields, Message):
    """What operators have said of a node, one key-value entry; with one a node stays expected until it is removed."""

    node: Name
    status: Wish = Wish.ACTIVE
    is_registered: bool = Field(
        default=True, description="else the card is there for what it says, and goes with the last of that"
    )
    registered_at_ms: Count = Field(default=0, description="wall clock of the master that wrote it, UTC")
    changed_at_ms: Count = 0
    changed_by: Name | None = Field(default=None, description="the operator who changed it last")
