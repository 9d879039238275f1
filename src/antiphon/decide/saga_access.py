"""Whether a saga can be carried out by the nodes that are there, and whether who submits it may: looked at once.

That is at its submission, so that a mistake is heard at once and not after the card was charged. Later the fleet may
change under a saga that runs; a node that is not there by then is waited for until the step's time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from antiphon.decide import contract, filters
from antiphon.decide.registry import NodeView
from antiphon.decide.saga_known import known
from antiphon.decide.saga_refs import BadReference, references
from antiphon.errors import InvalidSaga, Malformed
from antiphon.messages.registry import NodeList
from antiphon.messages.saga import Params, SagaDefinition, SagaStep
from antiphon.messages.saga_desk import SagaProblem

May = Callable[[str, str], bool]
"""Whether an action may be run on a node."""


def pick(step: SagaStep, nodes: Mapping[str, NodeView], may: May) -> str | None:
    """Return the node for a step that says `where`: the first by name that has the action, is active and allowed."""
    is_wanted = filters.of(NodeList(where=step.where))
    able = (
        name
        for name, node in sorted(nodes.items())
        if step.action in node.actions and node.active and may(step.action, name) and is_wanted(node)
    )
    return next(able, None)


def problems(definition: SagaDefinition, nodes: Mapping[str, NodeView], may: May) -> Iterator[SagaProblem]:
    """Yield what is wrong with a definition as the fleet is; whether each step makes sense is for others to say."""
    pursued = _pursued(definition)
    for step in definition.steps:
        if step.node is None:
            if step.where is not None and not _has_node(step, nodes, may):
                text = f"no node that you may use has {step.action} and is where {step.where}"
                yield SagaProblem(code="no_node", step=step.name, text=text[:200])
            continue
        wanted = [(step.action, step.params, step.retry.rounds_max if step.name in pursued else 1)]
        if step.compensate is not None:
            undo = step.compensate
            wanted.append((undo.action, undo.params or step.params, undo.retry.rounds_max))
        for action, params, rounds_max in wanted:
            found = _wrong(step.node, action, params, nodes, may) or _again(step.node, action, rounds_max, nodes)
            if found is not None:
                code, text = found
                yield SagaProblem(code=code, step=step.name, text=text[:200])


def _pursued(definition: SagaDefinition) -> set[str]:
    """Return the steps that are commanded round after round: the pivot, and what must be done after it."""
    try:
        laid_out = known(definition).plan
    except InvalidSaga:  # that is said already
        return set()
    at = laid_out.pivot
    musts = (one for one in laid_out.steps if one.step.critical and (one.number == at or at in one.before))
    return {one.step.name for one in musts} if at else set()


def _again(name: str, action: str, rounds_max: int, nodes: Mapping[str, NodeView]) -> tuple[str, str] | None:
    """Return what is wrong with commanding an action again by itself."""
    if rounds_max == 1 or not nodes[name].actions[action].contract.at_most_once:
        return None
    return "at_most_once", f"{action} is never begun twice, and would be here: say retry.rounds_max = 1"


def _has_node(step: SagaStep, nodes: Mapping[str, NodeView], may: May) -> bool:
    try:
        return pick(step, nodes, may) is not None
    except Malformed:  # that is said already
        return True


def _wrong(name: str, action: str, params: Params, nodes: Mapping[str, NodeView], may: May) -> tuple[str, str] | None:
    node = nodes.get(name)
    if not may(action, name):  # says nothing of whether there is such a node
        return "not_allowed", f"you may not run {action} on {name}"
    if node is None:
        return "unknown_node", f"no node {name!r} is registered; `antiphon node ls` lists them"
    offer = node.actions.get(action)
    if offer is None:
        return "unknown_action", f"the node {name!r} has no action {action!r}; `antiphon action ls` lists them"
    try:
        if any(True for _ in references(params)):
            return None  # what they will be is not known yet; the node looks at them
    except BadReference:  # that is said already
        return None
    wrong = contract.violation(offer.contract, params)
    return None if wrong is None else ("params", f"{action}: {wrong}")
