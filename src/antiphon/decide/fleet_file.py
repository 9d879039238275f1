"""A fleet file says how the nodes should be registered; this is its model, and what has to change to get there.

    [nodes.blog]
    description = "The company's blog"
    topics = ["python", "news"]
    weight = 50
    status = "active"
    metadata = { region = "eu" }

What the file does not mention stays as it is: nodes, fields, metadata keys and the status, so that a node that an
operator has suspended by hand is not woken by the next apply. With `prune` the file is the whole truth: cards of nodes
that it does not name are removed, and fields that it does not set are given back to the instances. The same holds for
the policy (`decide/fleet_policy.py`). Each change is one request and one readable line; applying twice changes nothing
the second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from antiphon.decide import fleet_policy
from antiphon.decide.cards import updated
from antiphon.decide.fleet_policy import PolicySpec
from antiphon.errors import InvalidSetting
from antiphon.messages.base import Name
from antiphon.messages.card import FIELDS, CardFields, NodeCard, Wish
from antiphon.messages.operators import NodeRegister, NodeRemove, NodeUpdate
from antiphon.messages.policy import Policy, PolicySet

ERRORS_SHOWN_MAX = 10
VALUE_SHOWN_MAX = 60
NONE = "not set"


class NodeSpec(CardFields):
    """What a fleet file says of one node."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    status: Wish | None = None

    def said(self) -> dict[str, Any]:
        """Return the fields that are set, besides the status."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}


class FleetFile(BaseModel):
    """A whole fleet file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: Annotated[dict[Name, NodeSpec], Field(max_length=10_000)]
    policy: PolicySpec | None = None


@dataclass(frozen=True, slots=True)
class Detail:
    """One field that a step changes; None is "not set"."""

    field: str
    before: object
    after: object

    def line(self, *, is_new: bool) -> str:
        """Return it for people: `weight: 100 -> 50`, and `weight = 50` of a node that is new."""
        if is_new and self.before is None:
            return f"{self.field} = {_shown(self.after)}"
        return f"{self.field}: {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class Change:
    """One step from what is registered to what the file says."""

    verb: Literal["register", "update", "remove", "policy"]
    node: str
    """Empty where it is of no single node."""
    request: NodeRegister | NodeUpdate | NodeRemove | PolicySet
    details: tuple[Detail, ...] = ()
    """Field by field, in the order of the card's; one metadata key is `metadata.KEY`, one rule is `search [WHO]`."""

    @property
    def removed(self) -> str | None:
        """What is gone after it, for asking whether it should be."""
        if isinstance(self.request, PolicySet):
            return None if self.request.search or self.request.action else "the policy"
        return self.node if self.verb == "remove" else None

    def __str__(self) -> str:
        """Return it as one line for people."""
        if not self.node:  # whom a rule lets in is never cut short
            return f"{self.verb}: " + "; ".join(
                f"{d.field}: {d.before or NONE} -> {d.after or NONE}" for d in self.details
            )
        said = ", ".join(one.line(is_new=self.verb == "register") for one in self.details)
        return f"{self.verb} {self.node}" + (f": {said}" if said else "")


def parse(content: Mapping[str, Any], name: str = "fleet.toml") -> FleetFile:
    """Return the model of a file that was read.

    Raises `InvalidSetting` with the path of each key that is unknown or wrong, one a line.
    """
    try:
        return FleetFile.model_validate(content)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        lines = [f"{name}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong[:ERRORS_SHOWN_MAX]]
        more = [f"and {len(wrong) - ERRORS_SHOWN_MAX} more"] if len(wrong) > ERRORS_SHOWN_MAX else []
        raise InvalidSetting("\n".join(lines + more)) from None


def changes(
    fleet: FleetFile, cards: Mapping[str, NodeCard], policy: Policy | None = None, *, prune: bool = False
) -> list[Change]:
    """Return the steps from what is registered to the file.

    The policy comes first, so that a node is never there before it is said who may search it; then nodes by name,
    removals last.

    Args:
        fleet: the file.
        cards: what operators have said of nodes until now.
        policy: who may do what until now; None where it is not asked about.
        prune: whether the file is the whole truth.
    """
    steps = [] if policy is None else _ruling(fleet.policy, policy, prune=prune)
    for node, spec in sorted(fleet.nodes.items()):
        card = cards.get(node)
        step = _registering(node, spec) if card is None else _updating(card, spec, prune=prune)
        if card is not None and not card.is_registered:
            step = _adopting(card, spec, step)
        if step is not None:
            steps.append(step)
    gone = sorted(cards.keys() - fleet.nodes.keys()) if prune else ()
    return steps + [Change("remove", node, NodeRemove(node=node)) for node in gone]


def _ruling(spec: PolicySpec | None, before: Policy, *, prune: bool) -> list[Change]:
    request = fleet_policy.wanted(spec, before, prune=prune)
    details = tuple(Detail(*row) for row in fleet_policy.differences(before, request))
    return [Change("policy", "", request, details)] if details else []


def _registering(node: str, spec: NodeSpec) -> Change:
    said = spec.said()
    details = [Detail(name, None, value) for name, value in said.items()]
    if spec.status is not None:
        details.append(Detail("status", None, str(spec.status)))
    return Change("register", node, NodeRegister(node=node, status=spec.status, **said), tuple(details))


def _adopting(card: NodeCard, spec: NodeSpec, step: Change | None) -> Change:
    """Return the registration of a node of which operators have said something without registering it."""
    update = None if step is None else step.request
    wanted = updated(card, update, "fleet-file", 0) if isinstance(update, NodeUpdate) else card
    said = {name: getattr(wanted, name) for name in FIELDS}
    request = NodeRegister(node=card.node, status=spec.status, replace=True, **said)
    return Change("register", card.node, request, () if step is None else step.details)


def _updating(card: NodeCard, spec: NodeSpec, *, prune: bool) -> Change | None:
    wanted: dict[str, Any] = {}
    unset: list[str] = []
    details: list[Detail] = []
    for name in FIELDS:
        before, after = getattr(card, name), getattr(spec, name)
        if name == "metadata":
            _compare_keys(before or {}, after, wanted, unset, details, prune=prune)
        elif after is not None and after != before:
            wanted[name] = after
            details.append(Detail(name, before, after))
        elif after is None and before is not None and prune:
            unset.append(name)
            details.append(Detail(name, before, None))
    if spec.status is not None and spec.status is not card.status:
        wanted["status"] = spec.status
        details.append(Detail("status", str(card.status), str(spec.status)))
    if not details:
        return None
    return Change("update", card.node, NodeUpdate(node=card.node, unset=tuple(unset), **wanted), tuple(details))


def _compare_keys(
    before: Mapping[str, str],
    after: Mapping[str, str] | None,
    wanted: dict[str, Any],
    unset: list[str],
    details: list[Detail],
    *,
    prune: bool,
) -> None:
    """Compare metadata key by key."""
    said = after or {}
    differing = {key: value for key, value in said.items() if before.get(key) != value}
    if differing:
        wanted["metadata"] = differing
    details += [Detail(f"metadata.{key}", before.get(key), value) for key, value in differing.items()]
    extra = [key for key in before if key not in said] if prune else []
    # all of it at once where nothing stays: the keys could be more than one request may name
    unset += [f"metadata.{key}" for key in extra] if said else ["metadata"] * bool(extra)
    details += [Detail(f"metadata.{key}", before[key], None) for key in extra]


def _shown(value: object) -> str:
    """Return a value for people, on one line and short."""
    if value is None:
        return NONE
    if isinstance(value, tuple):
        return _shown(f"[{', '.join(map(str, cast('tuple[object, ...]', value)))}]")
    text = ascii(value)[1:-1] if isinstance(value, str) else str(value)
    return text if len(text) <= VALUE_SHOWN_MAX else text[: VALUE_SHOWN_MAX - 3] + "..."
