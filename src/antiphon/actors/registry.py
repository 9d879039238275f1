"""The registry: nodes join, beat and leave, operators say what they want of them; every master shows the same view.

What is said goes to one master, which writes the bucket; all masters watch it. Heartbeats go to all masters and
never touch the bucket. The view is complete before this actor serves, so a gather's expected set is exact from the
first question on. A node's card is written by compare-and-set: a master that loses the race for it makes the change
again on what the other has written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import partial

import structlog
from pydantic import ValidationError

from antiphon import subjects
from antiphon.actors.asker import Askers
from antiphon.actors.ping import ping
from antiphon.bus.assets import registry_of
from antiphon.bus.bus import Bus, Call
from antiphon.bus.codec import encode, first_reason
from antiphon.bus.protocol import Entry, KeyValue, Watch
from antiphon.decide import balance, cards, contract, filters, registry
from antiphon.decide.policy import Access
from antiphon.decide.registry import Change, Patience, RegistryView
from antiphon.decide.turns import Turns
from antiphon.errors import NotAllowed, NotConnected, Overloaded, UnknownNode, UnknownVersion
from antiphon.messages.base import Acknowledged
from antiphon.messages.card import NodeCard
from antiphon.messages.facts import InstanceChanged, NodeChanged
from antiphon.messages.lane import Load
from antiphon.messages.operators import NodeGet, NodeRegister, NodeRemove, NodeRemoved, NodeUpdate
from antiphon.messages.ping import PingAnswer, PingAsk
from antiphon.messages.registry import (
    HeartBeaten,
    NodeEntry,
    NodeJoin,
    NodeJoined,
    NodeLeave,
    NodeList,
    NodeListing,
    NodeRecord,
    Status,
)
from antiphon.runtime.actor import Actor, ActorBounds, answers, converses, hears
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.registry")

PROTOCOL = "1"
INSTANCES_MAX = 256
"""Instances of one node; a program that joins under a new name each time must not fill the bucket."""
ATTEMPTS_MAX = 16
"""Races that a change of a card may lose; each is lost to another master's change, so this many are a quarrel."""
WATCH_LAG_MS_MAX = 500
"""How long to wait for the watch to report what is in the bucket already; it takes about one millisecond."""
WAITS_MAX = 4
"""Look-ups of one caller that wait for that at once; further ones are answered with what is known here."""
LATE_MIN = 1.5
"""A look at who is silent that comes later than so many heartbeats after the last says that this master was away."""
LISTING_BYTES_MAX = 900_000
"""A listing ends here and says where to go on; a NATS message holds 1 MB."""

Edit = Callable[[NodeCard | None], NodeCard]


class Registry(Actor):
    """Who is there."""

    name = "registry"

    def __init__(
        self,
        bus: Bus,
        view: View[RegistryView],
        facts: Facts,
        *,
        access: View[Access] | None = None,
        patience: Patience | None = None,
        bounds: ActorBounds | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self.view = view
        self.askers = Askers(bus.clock, access or View(Access()), view)
        self.facts = facts
        self.patience = patience or Patience()
        self._state: registry.State = {}
        self._cards: dict[str, NodeCard] = {}
        self._revisions: dict[str, int] = {}
        self._editing = asyncio.Lock()
        self._reported = asyncio.Event()
        self._own: set[registry.Key] = set()
        self._ticked_ms = 0
        self._bucket: KeyValue | None = None
        self._watch: Watch | None = None
        self._waits: Turns[str] = Turns(WAITS_MAX)

    async def started(self) -> None:
        """Read the whole bucket before the first message is taken."""
        self._bucket = await self.bus.transport.key_value(registry_of(self.bus.prefix))
        self._watch = await self._bucket.watch(self._changed)
        self.view.replace(registry.view(self._state, self._cards))
        self._ticked_ms = self.bus.clock.now_ms()
        self.tell_after(self.patience.heartbeat_ms, self._tick)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does, and watch no more."""
        await super().stop(is_crashed=is_crashed)
        if self._watch is not None:
            await self._watch.stop()

    @answers(NodeJoin)
    async def join(self, call: Call[NodeJoin]) -> NodeJoined:
        """Take an instance in, or update its record."""
        card = call.message
        if subjects.is_master(call.caller):
            raise NotAllowed(f"{call.caller!r} is a name of masters")
        self._check_instance(call)
        if card.protocol.split(".")[0] != PROTOCOL:
            raise UnknownVersion(f"protocol {card.protocol!r}; this registry speaks {PROTOCOL}")
        for action in card.actions:
            contract.check(action)
        key = (call.caller, card.instance)
        known = self._state.get(key)
        if known is None and sum(node == call.caller for node, _ in self._state) >= INSTANCES_MAX:
            text = f"{INSTANCES_MAX} instances of {call.caller} are registered; the silent ones are forgotten in time"
            raise Overloaded(text, retry_after_ms=self.patience.forget_ms)
        joined_at = known.record.joined_at_ms if known is not None else self.bus.clock.wall_ms()
        record = NodeRecord(node=call.caller, joined_at_ms=joined_at, **card.model_dump())
        if known is None or known.record != record:
            with self._writing(key):
                await self._kv.put(_key(*key), encode(record))
            self._apply(registry.written(self._state, record, self.bus.clock.now_ms()), is_told=True)
        now_ms = self.bus.clock.now_ms()
        self._apply(registry.heard(self._state, key, now_ms, patience=self.patience), is_told=True)
        count = sum(node == call.caller for node, _ in self._state)
        return NodeJoined(heartbeat_ms=self.patience.heartbeat_ms, instances=count)

    @answers(NodeLeave)
    async def leave(self, call: Call[NodeLeave]) -> Acknowledged:
        """Let an instance go; leaving twice is the same as once."""
        self._check_instance(call)
        key = (call.caller, call.message.instance)
        # another master may have taken it in a moment ago; what is not there is not deleted, for that leaves a marker
        if key in self._state or await self._kv.get(_key(*key)) is not None:
            await self._until(lambda: key in self._state)
            with self._writing(key):
                await self._kv.delete(_key(*key))
            self._apply(registry.removed(self._state, key), is_told=True)
        return Acknowledged()

    @hears(HeartBeaten)
    async def beat(self, fact: HeartBeaten, keys: dict[str, str]) -> None:
        """Note a sign of life."""
        key = (keys["writer"], keys["instance"])
        now_ms = self.bus.clock.now_ms()
        self._apply(registry.heard(self._state, key, now_ms, fact.load, self.patience), is_told=True)

    def pinged(self, key: registry.Key, misses: int, load: Load | None) -> None:
        """Take what came of the monitor's ping; it is short and does not wait, so it needs no turn in the mailbox."""
        now_ms = self.bus.clock.now_ms()
        self._apply(registry.pinged(self._state, key, misses, now_ms, load, patience=self.patience), is_told=True)

    @converses(NodeRegister)
    async def register(self, call: Call[NodeRegister]) -> NodeEntry:
        """Make a node's card what an operator says."""
        ask, now_ms = call.message, self.bus.clock.wall_ms()
        _check_balancer(ask)
        return await self._edit(ask.node, lambda card: cards.registered(card, ask, call.caller, now_ms))

    @converses(NodeUpdate)
    async def update(self, call: Call[NodeUpdate]) -> NodeEntry:
        """Change some fields of a node's card."""
        ask, now_ms = call.message, self.bus.clock.wall_ms()
        _check_balancer(ask)
        await self._known(ask.node, call.caller, lambda: self.view.current)
        return await self._edit(ask.node, lambda card: cards.updated(card, ask, call.caller, now_ms))

    @converses(NodeGet)
    async def get(self, call: Call[NodeGet]) -> NodeEntry:
        """Return one node that the caller may search."""
        who = self.askers.who(call.caller)
        return await self._known(call.message.node, call.caller, lambda: self.askers.shown(who))

    @answers(NodeRemove)
    async def remove(self, call: Call[NodeRemove]) -> NodeRemoved:
        """Forget a node's card and its silent instances."""
        node = call.message.node
        card = await self._forget_card(node, call.caller)
        own = [(key, one) for key, one in self._state.items() if key[0] == node]
        if card is None and not own:
            raise _unknown(node)
        silent = [key for key, one in own if one.status is Status.DOWN]
        for key in silent:
            with self._writing(key):
                await self._kv.delete(_key(*key))
            self._apply(registry.removed(self._state, key), is_told=True)
        return NodeRemoved(was_registered=card is not None, forgotten=len(silent), left=len(own) - len(silent))

    @answers(NodeList)
    async def list_nodes(self, call: Call[NodeList]) -> NodeListing:
        """List the nodes that the caller may search and that have what is asked for, as many as one message holds."""
        is_wanted = filters.of(call.message)
        shown = self.askers.shown(self.askers.who(call.caller)).nodes
        found: list[NodeEntry] = []
        room = min(LISTING_BYTES_MAX, self.bus.transport.payload_max)
        for entry in registry.listing(self._state, self._cards, self.bus.clock.now_ms()):
            if entry.node in shown and is_wanted(entry):
                room -= len(encode(entry))
                if room < 0 and found:
                    return NodeListing(nodes=tuple(found), master=self.bus.name, next=found[-1].node)
                found.append(entry)
        return NodeListing(nodes=tuple(found), master=self.bus.name)

    @converses(PingAsk)
    async def ping(self, call: Call[PingAsk]) -> PingAnswer:
        """Ping every instance of some nodes."""
        return await ping(call, self.view.current)

    def _check_instance(self, call: Call[NodeJoin] | Call[NodeLeave]) -> None:
        """Raise unless an instance speaks for itself alone, and for a node that is not suspended."""
        self.askers.who(call.caller)
        if call.message.instance != call.keys["instance"]:
            raise NotAllowed(f"the instance {call.keys['instance']!r} speaks for itself, and for no other")

    @property
    def _kv(self) -> KeyValue:
        assert self._bucket is not None, "started() opens the bucket"
        return self._bucket

    @contextmanager
    def _writing(self, key: registry.Key) -> Generator[None]:
        """Tell of a change as ours even when the watch reports it before the write has returned."""
        self._own.add(key)
        try:
            yield
        finally:
            self._own.discard(key)

    def _changed(self, entry: Entry) -> None:
        """Take a change of the bucket; it is short and does not wait, so it needs no turn in the mailbox."""
        self._take(entry)
        self._reported.set()
        self._reported = asyncio.Event()

    async def _write_back(self, key: str) -> None:
        """Give the bucket back what its server has lost and this master still knows; another master may be first."""
        node, _, instance = key.partition(".")
        known = self._state.get((node, instance))
        lost = known.record if known is not None else self._cards.get(node)
        if lost is None:
            return
        try:
            await self._kv.update(key, encode(lost), 0)
        except NotConnected:
            self.tell_after(self.patience.heartbeat_ms, partial(self._write_back, key))

    def _take(self, entry: Entry) -> None:
        node, _, instance = entry.key.partition(".")
        if entry.is_lost:
            self.tell(partial(self._write_back, entry.key))
            return
        if not instance:
            self._card_changed(node, entry)
            return
        is_told = (node, instance) in self._own
        if entry.value is None:
            self._apply(registry.removed(self._state, (node, instance)), is_told=is_told)
            return
        try:
            record = NodeRecord.model_validate_json(entry.value)
        except ValidationError as error:
            log.warning("registry.record_unreadable", key=entry.key, errors=error.error_count())
            return
        self._apply(registry.written(self._state, record, self.bus.clock.now_ms()), is_told=is_told)

    async def _tick(self) -> None:
        now_ms, heartbeat_ms = self.bus.clock.now_ms(), self.patience.heartbeat_ms
        since_ms, self._ticked_ms = now_ms - self._ticked_ms, now_ms
        if not self.bus.transport.is_connected:
            self._state = registry.deaf(self._state, since_ms, now_ms)
        elif since_ms > heartbeat_ms * LATE_MIN:  # this process stood still, and has not read what came meanwhile
            self._state = registry.deaf(self._state, since_ms - heartbeat_ms, now_ms)
        after, changes = registry.ticked(self._state, now_ms, self.patience)
        # before anything is awaited: what the bucket reports meanwhile must not be overwritten
        self._apply((after, changes), is_told=True)
        for node, instance, change in changes:
            if change == "forgotten":
                await self._forget(node, instance)
        self.tell_after(self.patience.heartbeat_ms, self._tick)

    async def _forget(self, node: str, instance: str) -> None:
        try:
            await self._kv.delete(_key(node, instance))
        except NotConnected as error:
            # its record stays, and whoever reads it forgets it again
            log.warning("registry.record_kept", node=node, instance=instance, error=error.text)

    # -- cards: written by whoever is told first, shown by the watch alone, so that no master shows an older one again

    async def _edit(self, node: str, edit: Edit) -> NodeEntry:
        async with self._editing:  # so that only other masters' changes can be raced against
            before, after, revision = await self._write(node, edit)
        is_gone = cards.says_nothing(after)
        if after is not before and not (is_gone and before is None):
            self._tell_card(cards.change(before, after), node, after.changed_by, cards.changed(before, after))
        await self._until(lambda: self._revisions.get(node, revision if is_gone else 0) >= revision)
        entry = registry.entry(self._state, {node: after, **self._cards}, node, self.bus.clock.now_ms())
        assert entry is not None, "it has a card, or had one a moment ago"
        return entry.model_copy(update={"card": None}) if entry.card is after and is_gone else entry

    async def _write(self, node: str, edit: Edit) -> tuple[NodeCard | None, NodeCard, int]:
        """Return the card before, after, and the revision; one that says nothing after is not kept."""
        for _ in range(ATTEMPTS_MAX):
            found = await self._kv.get(node)
            before, revision = _read_card(found), 0 if found is None else found.revision
            after = edit(before)
            written: int | None = revision
            if cards.says_nothing(after):
                written = revision if found is None else await self._kv.drop(node, revision)
            elif after is not before:
                written = await self._kv.update(node, encode(after), revision)
            if written is not None:
                return before, after, written
        raise self._quarrel(node)

    async def _forget_card(self, node: str, by: str) -> NodeCard | None:
        for _ in range(ATTEMPTS_MAX):
            # the bucket is asked, not the state: another master may have written the card a moment ago
            found = await self._kv.get(node)
            if found is None:
                return None
            revision = await self._kv.drop(node, found.revision)
            if revision is not None:
                break
        else:
            raise self._quarrel(node)
        try:
            card = _read_card(found)
        except UnknownVersion:
            card = None
        card = card or NodeCard(node=node)
        self._tell_card("removed", node, by, cards.changed(card, None))
        await self._until(lambda: self._revisions.get(node, revision) >= revision)
        return card

    def _quarrel(self, node: str) -> Overloaded:
        text = f"other masters have changed the card of {node} {ATTEMPTS_MAX} times meanwhile"
        return Overloaded(text, retry_after_ms=self.bounds.retry_after_ms)

    async def _known(self, node: str, caller: str, shown: Callable[[], RegistryView]) -> NodeEntry:
        """Return a node of a view; one that another master has taken in a moment ago is waited for.

        Also one that is there and not shown, so that the time tells nobody which of the two it is. Nobody has many
        wait, or names that nobody has would keep the places that operators need.
        """
        if node not in shown().nodes:
            with self._waits.taken(caller) as may_wait:
                if may_wait:
                    await self._until(lambda: node in shown().nodes)
        entry = registry.entry(self._state, self._cards, node, self.bus.clock.now_ms())
        if entry is None or node not in shown().nodes:
            raise _unknown(node)
        return entry

    async def _until(self, true: Callable[[], bool]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_LAG_MS_MAX / 1_000):
                while not true():
                    await self._reported.wait()

    def _card_changed(self, node: str, entry: Entry) -> None:
        try:
            card = _read_card(entry)
        except UnknownVersion as error:
            log.warning("registry.record_unreadable", key=entry.key, error=error.text)
            return
        if card is None:
            self._cards.pop(node, None)
            self._revisions.pop(node, None)
        else:
            self._cards[node] = card
            self._revisions[node] = entry.revision
        self._refresh([node])

    def _tell_card(self, change: str, node: str, by: str | None, fields: tuple[str, ...]) -> None:
        log.info("node.card_changed", node=node, change=change, by=by, fields=fields)
        at_ms = self.bus.clock.wall_ms()
        fact = {"at_ms": at_ms, "node": node, "change": change, "by": by, "fields": fields}
        self.facts.tell(NodeChanged.model_validate(fact))

    def _apply(self, outcome: tuple[registry.State, list[Change]], *, is_told: bool) -> None:
        self._state, changes = outcome
        if changes:
            self._show(changes, is_told=is_told)

    def _refresh(self, changed: Iterable[str]) -> None:
        # a bucket is read as a whole at the start: one snapshot at its end, not one a record
        if self._watch is not None:
            self.view.replace(registry.refreshed(self.view.current, self._state, self._cards, changed))

    def _show(self, changes: Iterable[Change], *, is_told: bool) -> None:
        self._refresh(node for node, _, _ in changes)
        for node, instance, change in changes:
            log.info("node.changed", node=node, instance=instance, change=change)
            if is_told:
                self.facts.tell(
                    InstanceChanged.model_validate(
                        {"at_ms": self.bus.clock.wall_ms(), "node": node, "instance": instance, "change": change}
                    )
                )


def _key(node: str, instance: str) -> str:
    return f"{node}.{instance}"


def _read_card(entry: Entry | None) -> NodeCard | None:
    if entry is None or entry.value is None:
        return None
    try:
        return NodeCard.model_validate_json(entry.value)
    except ValidationError as error:
        raise UnknownVersion(f"the card of {entry.key} cannot be read: {first_reason(error)}") from None


def _unknown(node: str) -> UnknownNode:
    return UnknownNode(f"no node {node!r} is registered; `antiphon node ls` lists them")


def _check_balancer(ask: NodeRegister | NodeUpdate) -> None:
    if ask.balancer is not None:
        balance.strategy(ask.balancer)
