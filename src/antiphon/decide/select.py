"""Which nodes a question expects an answer from, and what makes the answer sufficient."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.decide.registry import NodeView, RegistryView
from antiphon.errors import UnknownNode
from antiphon.messages.search import SearchAsk


@dataclass(frozen=True, slots=True)
class Requirement:
    """What the asker needs before an answer is sufficient."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    min_coverage: float = 0.0

    def is_met(self, answered: frozenset[str], expected: frozenset[str]) -> bool:
        """Whether every required node answered and enough of the nodes that are not optional did."""
        if answered == expected:
            return True
        if not self.required <= answered:
            return False
        counted = expected - self.optional
        share = len(counted & answered) / len(counted) if counted else 1.0
        return share >= self.min_coverage


def select(view: RegistryView, ask: SearchAsk) -> tuple[NodeView, ...]:
    """Return the expected set: the named nodes, or every node that can search.

    Raises `UnknownNode` when a named or required node is not registered or cannot search.
    """
    for name in (*ask.nodes, *ask.required):
        node = view.nodes.get(name)
        if node is None or "search" not in node.capabilities:
            raise UnknownNode(f"no node {name!r} that can search is registered; `antiphon node ls` lists them")
    if not ask.nodes:
        return view.searchable
    wanted = {*ask.nodes, *ask.required}
    return tuple(node for node in view.searchable if node.node in wanted)
