"""Whom a job is for: which nodes were meant, which of them the asker may use, and why the others are not asked.

What the asker may not see is not there; what he sees and may not run on is named (`not_allowed`), and an action that
was to run just there is refused whole, before anybody is asked. So is one whose params any of the nodes would not take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from antiphon.decide import contract, filters
from antiphon.decide.policy import Access, Principal, may_run
from antiphon.decide.registry import NodeView
from antiphon.errors import Malformed, NotAllowed, Oversize, Unconfirmed, UnknownAction, UnknownNode
from antiphon.messages.actions import TARGETS_MAX, ActionContract, ActionRun, Effect
from antiphon.messages.registry import NodeList, Status

STRENGTHS: Final = tuple(Effect)
"""The effects, the strongest last."""
NAMED_MAX: Final = 10
"""Nodes that an error names."""
WISHES: Final = frozenset({Status.SUSPENDED, Status.DRAINING})


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, and what he may.

    Attributes:
        who: the principal.
        access: the policy.
        shown: the nodes that he may search; where he may run an action he may do so without seeing the content.
    """

    who: Principal
    access: Access
    shown: Mapping[str, NodeView]

    def may(self, action: str, node: str) -> bool:
        """Whether he may run an action on a node."""
        return may_run(self.access, self.who, action, node)

    def knows(self, action: str, node: str) -> bool:
        """Whether a node is there for him."""
        return node in self.shown or self.may(action, node)


@dataclass(frozen=True, slots=True)
class Targets:
    """Whom a job is for.

    Attributes:
        nodes: by name; of a limited job, those that were drawn.
        not_allowed: who has the action, and the asker may not run it there.
        effect: the strongest of their contracts.
        is_idempotent: whether it is on all of them.
    """

    nodes: tuple[NodeView, ...]
    not_allowed: tuple[str, ...]
    effect: Effect
    is_idempotent: bool


def choose(ask: ActionRun, nodes: Mapping[str, NodeView], asker: Asker, seed: int) -> Targets:
    """Return whom a job is for.

    Args:
        ask: what was asked.
        nodes: all nodes.
        asker: who asks.
        seed: draws the nodes of a limited job whose plan has none.

    Raises:
        Malformed: it does not say where, its expression or its amounts make no sense, or the params are not taken.
        UnknownNode: a node was named that is not there.
        UnknownAction: nobody that was meant has it.
        NotAllowed: the asker may not run it on a named node, or nowhere.
        Unconfirmed: it is destructive.
        Oversize: more nodes than one job can have.
    """
    meant = _meant(ask, nodes, asker)
    allowed = [node for node in meant if asker.may(ask.action, node.node)]
    refused = tuple(node.node for node in meant if node not in allowed) if len(allowed) < len(meant) else ()
    if not allowed:
        if refused:
            raise NotAllowed(f"{asker.who.name} may run {ask.action} on none of {_listed(refused)}")
        raise UnknownAction(f"no node that was meant has an action {ask.action!r}; `antiphon action ls` lists them")
    chosen = subset(allowed, ask.plan.limit, seed if ask.plan.seed is None else ask.plan.seed)
    if len(chosen) > TARGETS_MAX:
        raise Oversize(f"{len(chosen)} nodes; one job has {TARGETS_MAX} at most: filter them, or limit it")
    contracts = [node.actions[ask.action].contract for node in chosen]
    effect = max((one.effect for one in contracts), key=STRENGTHS.index)
    targets = Targets(tuple(chosen), refused[:TARGETS_MAX], effect, all(one.idempotent for one in contracts))
    _check(ask, targets)
    return targets


def subset(nodes: Sequence[NodeView], limit: str | None, seed: int) -> Sequence[NodeView]:
    """Return so many of the nodes, drawn by a seed, in their order.

    A larger limit with the same seed has all that a smaller one had, and a node that comes or goes changes one place.
    """
    if limit is None:
        return nodes
    drawn = sorted(nodes, key=lambda node: Random(f"{seed}/{node.node}").random())  # noqa: S311 - repeatable, no secret
    kept = {node.node for node in drawn[: amount(limit, len(nodes), "limit")]}
    return [node for node in nodes if node.node in kept]


def amount(text: str, of: int, option: str) -> int:
    """Return how many of `of` are meant by `5` or `10%`, rounded up."""
    number = int(text.removesuffix("%"))
    if not text.endswith("%"):
        return number
    if number > 100:  # noqa: PLR2004 - per cent
        raise Malformed(f"{option}: {text} is more than all")
    return -(-of * number // 100)


def is_wished(node: NodeView) -> bool:
    """Whether operators want it not to be asked: then it is skipped, and no failure."""
    return node.status in WISHES


def _meant(ask: ActionRun, nodes: Mapping[str, NodeView], asker: Asker) -> list[NodeView]:
    is_filtered = any(one is not None for one in (ask.capability, ask.topic, ask.name, ask.where))
    if ask.nodes:
        found = _named(ask, nodes, asker)
    elif ask.everywhere or is_filtered:
        having = [node for node in nodes.values() if ask.action in node.actions]
        found = [node for node in having if asker.knows(ask.action, node.node)]
    else:
        raise Malformed("say where to run it: name nodes, filter them, or say everywhere")
    if not is_filtered:
        return found
    is_wanted = filters.of(NodeList(capability=ask.capability, topic=ask.topic, name=ask.name, where=ask.where))
    return [node for node in found if is_wanted(node)]


def _named(ask: ActionRun, nodes: Mapping[str, NodeView], asker: Asker) -> list[NodeView]:
    found: list[NodeView] = []
    for name in dict.fromkeys(ask.nodes):
        node = nodes.get(name)
        if node is None or not asker.knows(ask.action, name):
            raise UnknownNode(f"no node {name!r} is registered; `antiphon node ls` lists them")
        if not asker.may(ask.action, name):
            raise NotAllowed(f"{asker.who.name} may not run {ask.action} on {name}")
        if ask.action not in node.actions:
            raise UnknownAction(f"the node {name!r} has no action {ask.action!r}; `antiphon action ls` lists them")
        found.append(node)
    return found


def _check(ask: ActionRun, targets: Targets) -> None:
    checked: list[ActionContract] = []
    for node in targets.nodes:
        told = node.actions[ask.action].contract
        if any(told is one or told == one for one in checked):
            continue  # a hundred nodes of one program have one contract
        checked.append(told)
        wrong = contract.violation(told, ask.params)
        if wrong is not None:
            raise Malformed(f"{ask.action} on {node.node}: {wrong}")
        if ask.dry_run and not told.has_dry_run and told.effect is not Effect.READ:
            raise Malformed(f"{ask.action} on {node.node} has no dry run")
    if targets.effect is Effect.DESTRUCTIVE and not (ask.confirmed or ask.dry_run):
        names = [node.node for node in targets.nodes]
        raise Unconfirmed(f"{ask.action} is destructive; it would run on {_counted(names)}")


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} node{'' if len(names) == 1 else 's'}: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
