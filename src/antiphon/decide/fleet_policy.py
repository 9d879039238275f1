"""The policy in a fleet file: who may search what and run what, and what of it has to change.

    [[policy.search]]
    who = ["group:acme", "alice"]
    nodes = ["acme-*", "docs"]

    [[policy.action]]
    who = ["group:staff"]
    actions = ["refund"]
    nodes = ["shop"]

A sort of rules that the file mentions becomes exactly what it says; one that it does not mention stays, or goes where
the file is the whole truth. All of it is one request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from antiphon.messages.policy import RULES_MAX, ActionRule, Policy, PolicySet, SearchRule

Row = tuple[str, str | None, str | None]
"""What a rule is of and for, and what it allowed and allows; None is "no such rule"."""


class SearchRuleSpec(SearchRule):
    """What a fleet file says in one `[[policy.search]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionRuleSpec(ActionRule):
    """What a fleet file says in one `[[policy.action]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicySpec(BaseModel):
    """What a fleet file says of the policy; None is "not mentioned"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: Annotated[tuple[SearchRuleSpec, ...], Field(max_length=RULES_MAX)] | None = None
    action: Annotated[tuple[ActionRuleSpec, ...], Field(max_length=RULES_MAX)] | None = None


def wanted(spec: PolicySpec | None, before: Policy, *, prune: bool) -> PolicySet:
    """Return the policy as a file wants it, seen from the policy as it is."""
    spec = spec or PolicySpec()
    search = () if prune else before.search
    action = () if prune else before.action
    if spec.search is not None:
        search = tuple(SearchRule(who=one.who, nodes=one.nodes) for one in spec.search)
    if spec.action is not None:
        action = tuple(ActionRule(who=one.who, actions=one.actions, nodes=one.nodes) for one in spec.action)
    return PolicySet(search=search, action=action)


def differences(before: Policy, after: PolicySet) -> list[Row]:
    """Return what differs, rule by rule; their order means nothing, and neither does a rule said twice."""
    return [
        *_compared("search", dict(_searching(before.search)), dict(_searching(after.search))),
        *_compared("action", dict(_acting(before.action)), dict(_acting(after.action))),
    ]


def _searching(rules: Sequence[SearchRule]) -> Iterator[tuple[str, str]]:
    said: dict[str, set[str]] = {}
    for rule in rules:
        said.setdefault(_list(rule.who), set()).update(rule.nodes)
    return ((who, _list(nodes)) for who, nodes in said.items())


def _acting(rules: Sequence[ActionRule]) -> Iterator[tuple[str, str]]:
    said: dict[str, set[str]] = {}
    for rule in rules:
        said.setdefault(_list(rule.who), set()).add(f"{_list(rule.actions)} on {_list(rule.nodes)}")
    return ((who, " and ".join(sorted(what))) for who, what in said.items())


def _compared(sort: str, before: dict[str, str], after: dict[str, str]) -> Iterator[Row]:
    for who in sorted(before.keys() | after.keys()):
        if before.get(who) != after.get(who):
            yield f"{sort} {who}", before.get(who), after.get(who)


def _list(words: Sequence[str] | set[str]) -> str:
    return f"[{', '.join(sorted(set(words)))}]"
