"""Who is there: the instances of every node, and which of them are asked.

Pure: events and the time go in, a new state and what changed come out. An instance is heard at its join, its
heartbeats and its replies; three missed heartbeats mark it down, its next sign of life brings it back. A node that
is down stays in the expected set, so that an answer says that it is missing, until it leaves or is forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from antiphon.messages.lane import Load
from antiphon.messages.registry import InstanceLine, NodeEntry, NodeRecord, Status


@dataclass(frozen=True, slots=True)
class Patience:
    """How long silence is borne, in milliseconds."""

    heartbeat_ms: int = 1_000
    misses_max: int = 3
    forget_ms: int = 900_000


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance as this master sees it; `heard_at_ms` is this master's clock."""

    record: NodeRecord
    heard_at_ms: int
    status: Status = Status.ACTIVE
    load: Load = field(default_factory=Load)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the hot path reads it."""

    node: str
    capabilities: frozenset[str]
    topics: tuple[str, ...]
    active: tuple[str, ...]
    """Instances that may be asked, in the order of their names."""


@dataclass(frozen=True, slots=True)
class RegistryView:
    """All nodes at one moment."""

    nodes: Mapping[str, NodeView] = field(default_factory=dict[str, NodeView])
    searchable: tuple[NodeView, ...] = ()
    """The nodes that can search, by name: the expected set of a question to everybody."""


Key = tuple[str, str]
Change = tuple[str, str, str]
"""(node, instance, what happened to it), as in `InstanceChanged`."""
State = dict[Key, Instance]


def written(state: State, record: NodeRecord, now_ms: int) -> tuple[State, list[Change]]:
    """Return the state after a record was read from the registry's bucket."""
    key = (record.node, record.instance)
    known = state.get(key)
    if known is not None and known.record == record:
        return state, []
    change = "joined" if known is None else "updated"
    return {**state, key: Instance(record, now_ms)}, [(*key, change)]


def removed(state: State, key: Key) -> tuple[State, list[Change]]:
    """Return the state after a record was deleted from the bucket."""
    if key not in state:
        return state, []
    return {k: v for k, v in state.items() if k != key}, [(*key, "left")]


def heard(state: State, key: Key, now_ms: int, load: Load | None = None) -> tuple[State, list[Change]]:
    """Return the state after a sign of life; an instance that is not registered is nobody."""
    known = state.get(key)
    if known is None:
        return state, []
    changes: list[Change] = [(*key, "recovered")] if known.status is Status.DOWN else []
    alive = replace(known, heard_at_ms=now_ms, status=Status.ACTIVE, load=load or known.load)
    return {**state, key: alive}, changes


def ticked(state: State, now_ms: int, patience: Patience) -> tuple[State, list[Change]]:
    """Return the state after time passed: who is down by now, and who is to be forgotten."""
    changes: list[Change] = []
    after = dict(state)
    for key, instance in state.items():
        silence_ms = now_ms - instance.heard_at_ms
        if silence_ms >= patience.forget_ms:
            changes.append((*key, "forgotten"))
            del after[key]
        elif silence_ms >= patience.heartbeat_ms * patience.misses_max and instance.status is Status.ACTIVE:
            changes.append((*key, "down"))
            after[key] = replace(instance, status=Status.DOWN)
    return (after if changes else state), changes


def view(state: State) -> RegistryView:
    """Return the snapshot that the hot path reads."""
    by_node: dict[str, list[Instance]] = {}
    for (node, _), instance in sorted(state.items()):
        by_node.setdefault(node, []).append(instance)
    nodes = {node: _node_view(node, instances) for node, instances in by_node.items()}
    return RegistryView(nodes, tuple(n for n in nodes.values() if "search" in n.capabilities))


def _node_view(node: str, instances: list[Instance]) -> NodeView:
    newest = max(instances, key=lambda i: i.record.joined_at_ms).record
    return NodeView(
        node,
        frozenset(newest.capabilities),
        newest.topics,
        tuple(i.record.instance for i in instances if i.status is Status.ACTIVE),
    )


def listing(state: State, now_ms: int) -> tuple[NodeEntry, ...]:
    """Return all nodes for people, by name."""
    by_node: dict[str, list[Instance]] = {}
    for (node, _), instance in sorted(state.items()):
        by_node.setdefault(node, []).append(instance)
    return tuple(_entry(node, instances, now_ms) for node, instances in by_node.items())


def _entry(node: str, instances: list[Instance], now_ms: int) -> NodeEntry:
    newest = max(instances, key=lambda i: i.record.joined_at_ms).record
    lines = tuple(
        InstanceLine(
            instance=i.record.instance,
            status=i.status,
            version=i.record.version,
            heard_ms_ago=max(0, now_ms - i.heard_at_ms),
            in_flight=i.load.in_flight,
            latency_us=i.load.latency_us,
        )
        for i in instances
    )
    is_up = any(line.status is Status.ACTIVE for line in lines)
    return NodeEntry(
        node=node,
        description=newest.description,
        topics=newest.topics,
        capabilities=newest.capabilities,
        status=Status.ACTIVE if is_up else Status.DOWN,
        instances=lines,
    )
