"""The registry: nodes join, beat and leave; every master sees the same bucket and shows it as a view.

Joins and leaves go to one master, which writes the bucket; all masters watch it. Heartbeats go to all masters and
never touch the bucket. The view is complete before this actor serves, so a gather's expected set is exact from the
first question on.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import structlog
from pydantic import ValidationError

from antiphon.bus.assets import registry_of
from antiphon.bus.bus import Bus, Call, encode
from antiphon.bus.protocol import Entry, KeyValue, Watch
from antiphon.decide import registry
from antiphon.decide.registry import Change, Patience, RegistryView
from antiphon.errors import NotConnected, Overloaded, UnknownVersion
from antiphon.messages.base import Acknowledged
from antiphon.messages.facts import InstanceChanged
from antiphon.messages.registry import (
    HeartBeaten,
    NodeJoin,
    NodeJoined,
    NodeLeave,
    NodeList,
    NodeListing,
    NodeRecord,
)
from antiphon.runtime.actor import Actor, ActorBounds, answers, hears
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.registry")

PROTOCOL = "1"
INSTANCES_MAX = 256
"""Instances of one node; a program that joins under a new name each time must not fill the bucket."""


class Registry(Actor):
    """Who is there."""

    name = "registry"

    def __init__(
        self,
        bus: Bus,
        view: View[RegistryView],
        facts: Facts,
        *,
        patience: Patience | None = None,
        bounds: ActorBounds | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self.view = view
        self.facts = facts
        self.patience = patience or Patience()
        self._state: registry.State = {}
        self._own: set[registry.Key] = set()
        self._bucket: KeyValue | None = None
        self._watch: Watch | None = None

    async def started(self) -> None:
        """Read the whole bucket before the first message is taken."""
        self._bucket = await self.bus.transport.key_value(registry_of(self.bus.prefix))
        self._watch = await self._bucket.watch(self._changed)
        self._show([], is_told=False)
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
        if card.protocol.split(".")[0] != PROTOCOL:
            raise UnknownVersion(f"protocol {card.protocol!r}; this registry speaks {PROTOCOL}")
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
        self._apply(registry.heard(self._state, key, self.bus.clock.now_ms()), is_told=True)
        count = sum(node == call.caller for node, _ in self._state)
        return NodeJoined(heartbeat_ms=self.patience.heartbeat_ms, instances=count)

    @answers(NodeLeave)
    async def leave(self, call: Call[NodeLeave]) -> Acknowledged:
        """Let an instance go; leaving twice is the same as once."""
        key = (call.caller, call.message.instance)
        if key in self._state:
            with self._writing(key):
                await self._kv.delete(_key(*key))
            self._apply(registry.removed(self._state, key), is_told=True)
        return Acknowledged()

    @hears(HeartBeaten)
    async def beat(self, fact: HeartBeaten, keys: dict[str, str]) -> None:
        """Note a sign of life."""
        key = (keys["writer"], keys["instance"])
        self._apply(registry.heard(self._state, key, self.bus.clock.now_ms(), fact.load), is_told=True)

    @answers(NodeList)
    async def list_nodes(self, call: Call[NodeList]) -> NodeListing:
        """List the nodes."""
        asked = call.message
        entries = tuple(
            entry
            for entry in registry.listing(self._state, self.bus.clock.now_ms())
            if (asked.capability is None or asked.capability in entry.capabilities)
            and (asked.topic is None or asked.topic in entry.topics)
        )
        return NodeListing(nodes=entries, master=self.bus.name)

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
        node, _, instance = entry.key.partition(".")
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
        after, changes = registry.ticked(self._state, self.bus.clock.now_ms(), self.patience)
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

    def _apply(self, outcome: tuple[registry.State, list[Change]], *, is_told: bool) -> None:
        self._state, changes = outcome
        if changes:
            self._show(changes, is_told=is_told)

    def _show(self, changes: Iterable[Change], *, is_told: bool) -> None:
        self.view.replace(registry.view(self._state))
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
