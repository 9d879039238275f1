"""The conversation of operators with a master about policy: who may search which nodes, who may run what where.

A rule only ever allows. While there is no rule of a sort, everybody may; with the first one, nobody may but whom a rule
names. `who` is a name, a glob of names, `group:<group>`, `kind:<kind>`, or `*` for everybody.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from antiphon.messages.base import Count, Fact, Kind, Message, Name, Request, Route
from antiphon.messages.facts import READERS
from antiphon.subjects import TOKEN, Template

OPERATORS = (Kind.OPERATOR,)
RULES_MAX: Final = 256
"""Rules of one sort; who needs more puts people into groups."""
PATTERNS_MAX: Final = 64
"""Entries of one list of a rule."""
GLOB: Final = r"[a-z0-9*?][a-z0-9_*?-]{0,62}"
"""A name in which `*` stands for any characters and `?` for one."""

Who = Annotated[
    str,
    StringConstraints(pattern=rf"^({GLOB}|group:{TOKEN.pattern}|kind:({'|'.join(Kind)}))$", max_length=69),
]
Glob = Annotated[str, StringConstraints(pattern=f"^{GLOB}$", max_length=63)]
Whos = Annotated[tuple[Who, ...], Field(min_length=1, max_length=PATTERNS_MAX)]
Globs = Annotated[tuple[Glob, ...], Field(min_length=1, max_length=PATTERNS_MAX)]


class SearchRule(Message):
    """These may search these nodes."""

    who: Whos = Field(description="names, globs of names, group:<group>, kind:<kind>")
    nodes: Globs = Field(description="names or globs of nodes")


class ActionRule(Message):
    """These may run these actions on these nodes."""

    who: Whos = Field(description="names, globs of names, group:<group>, kind:<kind>")
    actions: Globs = Field(description="names or globs of actions")
    nodes: Globs = Field(default=("*",), description="names or globs of nodes")


SearchRules = Annotated[tuple[SearchRule, ...], Field(max_length=RULES_MAX)]
ActionRules = Annotated[tuple[ActionRule, ...], Field(max_length=RULES_MAX)]


class Policy(Message):
    """Who may do what; one entry of the identities' bucket, written by masters only."""

    search: SearchRules = Field(default=(), description="empty: everybody may search every node")
    action: ActionRules = Field(default=(), description="empty: everybody may run everything everywhere")
    changed_at_ms: Count = Field(default=0, description="wall clock of the master that wrote it, UTC")
    changed_by: Name | None = Field(default=None, description="the operator who changed it last")


class PolicySet(Request[Policy]):
    """The policy becomes exactly this; setting the same again is the same as once."""

    route = Route(Template("policy.set.<caller>"), sent_by=OPERATORS, read_by=(Kind.MASTER,), queue="policy")
    size_max: ClassVar[int] = 48 * 1024
    """So that it fits into an entry of the bucket whatever is filled in."""

    search: SearchRules = Field(description="required, also where there is none: nothing may wipe the rules by default")
    action: ActionRules = ()


class PolicyGet(Request[Policy]):
    """Get the policy."""

    route = Route(Template("policy.get.<caller>"), sent_by=OPERATORS, read_by=(Kind.MASTER,), queue="policy")


class PolicyChanged(Fact):
    """An operator has changed the policy; for audit it says the whole of it."""

    route = Route(Template("fact.policy.changed.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)
    size_max: ClassVar[int] = 128 * 1024

    at_ms: Count
    by: Name = Field(description="the operator")
    policy: Policy
