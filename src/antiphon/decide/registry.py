"""Who is there: the instances of every node, what operators have said of it, and which instances are asked.

No clock and no bus: events and the time go in, the state after and what changed come out. An instance is heard at its
join, its heartbeats and its answers to pings; three missed heartbeats, or three pings in a row without an answer, mark
it down (`is_up` is the only rule), and it is back when it beats and answers again. A node that is down stays in the
expected set, so that an answer says that it is missing, until it leaves or is forgotten; one that has a card stays in
it until an operator removes it. A draining or suspended node is expected and not asked.

A sign of life changes the state in place, everything else makes a new one: a copy at each beat of 3,000 instances that
beat every second costs 18 us a beat instead of 3, and grows with their square.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from antiphon.decide.cards import Described, described
from antiphon.messages.actions import ActionContract, ActionLine
from antiphon.messages.card import NodeCard, Wish
from antiphon.messages.lane import Load
from antiphon.messages.registry import InstanceLine, NodeEntry, NodeRecord, Status

LABEL_MAX = 200
"""Characters of a description in a listing."""


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
    """The last sign of life; until there is one, when its record was read: silence is counted from there."""
    is_heard: bool = False
    """Whether there ever was one; a master that starts takes those that it has read of to be there, and asks them."""
    status: Status = Status.ACTIVE
    load: Load = field(default_factory=Load)
    misses: int = 0
    """Pings in a row without an answer."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An action of a node."""

    contract: ActionContract
    """As the newest instance has it that is heard, else the newest there is."""
    instances: tuple[str, ...]
    """Those that have it exactly so: while a new version is rolled out, old ones are not asked by its contract."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the hot path reads it."""

    node: str
    capabilities: frozenset[str]
    topics: tuple[str, ...]
    active: tuple[str, ...]
    """Instances that may be asked, in the order of their names; none of a node that is draining or suspended."""
    status: Status = Status.ACTIVE
    """What operators wish where it is not `active`, else `down` where no instance is heard."""
    alive: tuple[str, ...] = ()
    """Instances that are heard, whatever operators wish."""
    instances: tuple[str, ...] = ()
    """Every instance that is registered."""
    weights: Mapping[str, int] = field(default_factory=dict[str, int])
    """The weight of each registered instance."""
    collections: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    balancer: str | None = None
    """How an instance is picked; None is the master's setting, as for the two limits."""
    max_parallel_requests: int | None = None
    rate_per_minute: int | None = None
    docs_max: int | None = None
    """For how many documents its statistics may count, as operators have set it."""
    docs_told: int | None = None
    """How many documents it has by its own word: the most of what its instances said at their joins."""
    version: str = "0"
    weight: int = 100
    """Of the node itself, for choosing nodes by it; `weights` are the instances'."""
    actions: Mapping[str, Offer] = field(default_factory=dict[str, Offer])


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
Cards = Mapping[str, NodeCard]
"""What operators have said, by node."""


def written(state: State, record: NodeRecord, now_ms: int) -> tuple[State, list[Change]]:
    """Return the state after a record was read from the registry's bucket."""
    key = (record.node, record.instance)
    known = state.get(key)
    if known is not None and known.record == record:
        return state, []
    if known is None:
        return {**state, key: Instance(record, now_ms)}, [(*key, "joined")]
    return {**state, key: replace(known, record=record, misses=0)}, [(*key, "updated")]


def removed(state: State, key: Key) -> tuple[State, list[Change]]:
    """Return the state after a record was deleted from the bucket."""
    if key not in state:
        return state, []
    return {k: v for k, v in state.items() if k != key}, [(*key, "left")]


PATIENCE = Patience()


def is_up(silence_ms: int, misses: int, patience: Patience) -> bool:
    """Whether an instance is up that was heard so long ago and has left so many pings in a row unanswered."""
    return misses < patience.misses_max and silence_ms < patience.heartbeat_ms * patience.misses_max


def heard(
    state: State, key: Key, now_ms: int, load: Load | None = None, patience: Patience = PATIENCE
) -> tuple[State, list[Change]]:
    """Return the state, changed in place, after a sign of life; an instance that is not registered is nobody."""
    known = state.get(key)
    if known is None:
        return state, []
    after = replace(known, heard_at_ms=now_ms, is_heard=True, load=load or known.load)
    return _judged(state, key, after, now_ms, patience)


def pinged(
    state: State, key: Key, misses: int, now_ms: int, load: Load | None = None, *, patience: Patience = PATIENCE
) -> tuple[State, list[Change]]:
    """Return the state, changed in place, after a ping.

    `misses` are those in a row until now, 0 when this one was answered.
    """
    known = state.get(key)
    if known is None or (misses and misses == known.misses):
        return state, []
    after = replace(known, misses=misses)
    if not misses:
        after = replace(after, heard_at_ms=now_ms, is_heard=True, load=load or known.load)
    return _judged(state, key, after, now_ms, patience)


def _judged(state: State, key: Key, after: Instance, now_ms: int, patience: Patience) -> tuple[State, list[Change]]:
    status = Status.ACTIVE if is_up(now_ms - after.heard_at_ms, after.misses, patience) else Status.DOWN
    changes: list[Change] = []
    if status is not after.status:
        changes = [(*key, "recovered" if status is Status.ACTIVE else "down")]
    state[key] = after if status is after.status else replace(after, status=status)
    return state, changes


def ticked(state: State, now_ms: int, patience: Patience) -> tuple[State, list[Change]]:
    """Return the state after time passed: who is down by now, and who is to be forgotten."""
    changes: list[Change] = []
    after = dict(state)
    for key, instance in state.items():
        silence_ms = now_ms - instance.heard_at_ms
        if silence_ms >= patience.forget_ms:
            changes.append((*key, "forgotten"))
            del after[key]
        elif instance.status is Status.ACTIVE and not is_up(silence_ms, instance.misses, patience):
            changes.append((*key, "down"))
            after[key] = replace(instance, status=Status.DOWN)
    return (after if changes else state), changes


def deaf(state: State, deaf_ms: int, now_ms: int) -> State:
    """Return the state after this master could hear nobody for so long: that was no silence of theirs."""
    return {key: replace(one, heard_at_ms=min(now_ms, one.heard_at_ms + deaf_ms)) for key, one in state.items()}


def view(state: State, cards: Cards) -> RegistryView:
    """Return the snapshot that the hot path reads."""
    return _shown({node: _node_view(node, card, own) for node, card, own in _nodes(state, cards)})


def refreshed(before: RegistryView, state: State, cards: Cards, changed: Iterable[str]) -> RegistryView:
    """Return `view(state, cards)`, made from the last one when only these nodes have changed since.

    A thousand nodes that join at once would else cost a thousand whole snapshots.
    """
    nodes = dict(before.nodes)
    for node in set(changed):
        own, card = _own(state, node), cards.get(node)
        if own or card is not None:
            nodes[node] = _node_view(node, card, own)
        else:
            nodes.pop(node, None)
    return _shown(nodes if nodes.keys() == before.nodes.keys() else dict(sorted(nodes.items())))


def sizes(view: RegistryView, node: str) -> tuple[int | None, int | None]:
    """Return `docs_max` and `docs_told` of a node, as `NodeReply` has them; of one that has left, nothing is known."""
    known = view.nodes.get(node)
    return (None, None) if known is None else (known.docs_max, known.docs_told)


def listing(state: State, cards: Cards, now_ms: int) -> tuple[NodeEntry, ...]:
    """Return all nodes for people, by name."""
    return tuple(_entry(node, card, own, now_ms) for node, card, own in _nodes(state, cards))


def entry(state: State, cards: Cards, node: str, now_ms: int) -> NodeEntry | None:
    """Return one node for people, or None where neither an instance nor an operator has named it."""
    own, card = _own(state, node), cards.get(node)
    return _entry(node, card, own, now_ms) if own or card is not None else None


def _own(state: State, node: str) -> list[Instance]:
    keys = sorted(key for key in state if key[0] == node)
    return [state[key] for key in keys]


def _shown(nodes: dict[str, NodeView]) -> RegistryView:
    return RegistryView(nodes, tuple(node for node in nodes.values() if "search" in node.capabilities))


def _nodes(state: State, cards: Cards) -> Iterable[tuple[str, NodeCard | None, list[Instance]]]:
    by_node: dict[str, list[Instance]] = {node: [] for node in cards}
    for (node, _), instance in sorted(state.items()):
        by_node.setdefault(node, []).append(instance)
    return ((node, cards.get(node), by_node[node]) for node in sorted(by_node))


def _described(card: NodeCard | None, instances: list[Instance]) -> Described:
    newest = max((one.record for one in instances), key=lambda record: record.joined_at_ms, default=None)
    return described(card, newest)


def _status(card: NodeCard | None, instances: list[Instance]) -> Status:
    if card is not None and card.status is not Wish.ACTIVE:
        return Status(card.status)
    return Status.ACTIVE if any(one.status is Status.ACTIVE for one in instances) else Status.DOWN


def _weight(card: NodeCard | None, instance: Instance) -> int:
    return instance.record.weight if card is None or card.weight is None else card.weight


def _node_view(node: str, card: NodeCard | None, instances: list[Instance]) -> NodeView:
    it, status = _described(card, instances), _status(card, instances)
    alive = tuple(one.record.instance for one in instances if one.status is Status.ACTIVE)
    return NodeView(
        node,
        frozenset(it.capabilities),
        it.topics,
        alive if status is Status.ACTIVE else (),
        status=status,
        alive=alive,
        instances=tuple(one.record.instance for one in instances),
        weights={one.record.instance: _weight(card, one) for one in instances},
        collections=it.collections,
        metadata=it.metadata,
        balancer=None if card is None else card.balancer,
        max_parallel_requests=None if card is None else card.max_parallel_requests,
        rate_per_minute=None if card is None else card.rate_per_minute,
        docs_max=None if card is None else card.documents,
        docs_told=_documents(instances),
        version=it.version,
        weight=it.weight,
        actions=_offers(instances),
    )


def _offers(instances: Iterable[Instance]) -> dict[str, Offer]:
    """Return the actions of a node by name."""
    newest_first = sorted(
        instances, key=lambda one: (one.status is Status.ACTIVE, one.record.joined_at_ms), reverse=True
    )
    offered: dict[str, ActionContract] = {}
    by: dict[str, list[str]] = {}
    for one in newest_first:
        for contract in one.record.actions:
            if offered.setdefault(contract.name, contract) == contract:
                by.setdefault(contract.name, []).append(one.record.instance)
    return {name: Offer(offered[name], tuple(sorted(by[name]))) for name in sorted(offered)}


def _documents(instances: Iterable[Instance]) -> int | None:
    return max((one.record.documents for one in instances if one.record.documents is not None), default=None)


def _entry(node: str, card: NodeCard | None, instances: list[Instance], now_ms: int) -> NodeEntry:
    it = _described(card, instances)
    return NodeEntry(
        node=node,
        description=it.description,
        topics=it.topics,
        capabilities=it.capabilities,
        collections=it.collections,
        status=_status(card, instances),
        version=it.version,
        weight=it.weight,
        metadata=dict(it.metadata),
        balancer=None if card is None else card.balancer,
        max_parallel_requests=None if card is None else card.max_parallel_requests,
        rate_per_minute=None if card is None else card.rate_per_minute,
        documents=_documents(instances) if card is None or card.documents is None else card.documents,
        actions=tuple(_action_line(offer.contract) for offer in _offers(instances).values()),
        instances=tuple(_line(card, one, now_ms) for one in instances),
        card=card,
    )


def _action_line(contract: ActionContract) -> ActionLine:
    return ActionLine(name=contract.name, effect=contract.effect, description=contract.description[:LABEL_MAX])


def _line(card: NodeCard | None, one: Instance, now_ms: int) -> InstanceLine:
    return InstanceLine(
        instance=one.record.instance,
        status=one.status,
        version=one.record.version,
        weight=_weight(card, one),
        joined_at_ms=one.record.joined_at_ms,
        heard_ms_ago=max(0, now_ms - one.heard_at_ms) if one.is_heard else None,
        in_flight=one.load.in_flight,
        latency_us=one.load.latency_us,
    )
