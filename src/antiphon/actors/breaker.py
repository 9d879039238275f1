"""The breaker actor: one master's breakers, and the bucket in which all masters share what is not closed.

Counting is a plain call from a search, a few times a reply; only when something moves is there work for the mailbox:
a compare-and-set on the bucket, and what came of it back into the decision. A breaker that is due is claimed here; the
next search that comes by takes the probe, and an instance that nobody asks is pinged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import msgspec
import structlog

from antiphon.actors.pings import Echo, Pings
from antiphon.bus.assets import breakers_of
from antiphon.bus.bus import Bus, Call
from antiphon.bus.protocol import Entry, KeyValue, Watch
from antiphon.decide.breaker import (
    Breaker,
    BreakerPolicy,
    Closed,
    Effect,
    HalfOpened,
    Handled,
    Heard,
    Opened,
    ProbeGranted,
    Reason,
    Record,
    Reread,
    State,
    Swap,
    Swapped,
    Verb,
)
from antiphon.decide.breakers import Breakers, BreakerView
from antiphon.decide.dispatch import RUN, SEARCH
from antiphon.decide.ending import Ending, ending_of
from antiphon.decide.failures import Key
from antiphon.decide.registry import RegistryView
from antiphon.errors import Malformed, NotConnected, Overloaded, UnknownNode
from antiphon.messages.base import Acknowledged
from antiphon.messages.breakers import BreakerLine, BreakerList, BreakerListing, BreakerMoved, BreakerOrder
from antiphon.runtime.actor import Actor, ActorBounds, answers
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.breaker")

TICK_MS = 250
"""How often breakers are looked at that wait for a probe."""
IDLE_MS = 1_000
"""A granted probe that no search has taken within this is a ping's."""
PING_BUDGET_MS = 1_000
VERBS = (SEARCH, RUN)
"""What has breakers."""
HAND_TRIES_MAX = 8
"""Times that a reset by hand tries to be the last to write."""
NOTHING_SHUT = BreakerView()


class BreakerHandle:
    """The breaker actor as searches hold it: it stays the same when the actor is restarted."""

    def __init__(self) -> None:
        self.actor: BreakerActor | None = None

    @property
    def view(self) -> BreakerView:
        """What is not closed."""
        return NOTHING_SHUT if self.actor is None else self.actor.breakers.view

    @property
    def breakers(self) -> Mapping[Key, Breaker]:
        """Every breaker that this master knows, for people."""
        return {} if self.actor is None else self.actor.breakers.breakers

    def ended(self, key: Key, ending: Ending, began_ms: int, now_ms: int) -> None:
        """Count how a call ended that was no probe."""
        if self.actor is not None:
            self.actor.ended(key, ending, began_ms, now_ms)

    def probed(self, key: Key, ending: Ending) -> None:
        """Take what came of a probe."""
        if self.actor is not None:
            self.actor.probed(key, ending)

    def suspects_itself(self) -> bool:
        """Whether this master is the likely cause of what it sees fail."""
        return self.actor is not None and self.actor.suspects_itself()


class BreakerActor(Actor):
    """One master's breakers."""

    name = "breaker"

    def __init__(
        self,
        bus: Bus,
        registry: View[RegistryView],
        facts: Facts,
        handle: BreakerHandle,
        *,
        policy: BreakerPolicy | None = None,
        bounds: ActorBounds | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self.registry = registry
        self.facts = facts
        self.breakers = Breakers(bus.name, policy)
        handle.actor = self
        self.pings = Pings(bus, wait_ms=PING_BUDGET_MS)
        self._seen: RegistryView | None = None
        self._bucket: KeyValue | None = None
        self._watch: Watch | None = None

    # -- told by searches, through the handle

    def ended(self, key: Key, ending: Ending, began_ms: int, now_ms: int) -> None:
        """Count how a call ended that was no probe."""
        effects = self.breakers.ended(key, ending, began_ms, now_ms, self.bus.clock.wall_ms())
        if effects:
            self.tell(partial(self._carry_out, key, effects))

    def probed(self, key: Key, ending: Ending) -> None:
        """Take what came of a probe."""
        effects = self.breakers.probed(key, ending, self.bus.clock.now_ms())
        if effects:
            self.tell(partial(self._carry_out, key, effects))

    def suspects_itself(self) -> bool:
        """Whether this master is the likely cause of what it sees fail."""
        return self.breakers.suspects_itself(self.bus.clock.now_ms())

    # -- life

    async def started(self) -> None:
        """Read the whole bucket before the first message is taken."""
        self._bucket = await self.bus.transport.key_value(breakers_of(self.bus.prefix))
        self._watch = await self._bucket.watch(self._changed)
        self.tell_after(TICK_MS, self._tick)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does, and watch no more."""
        await super().stop(is_crashed=is_crashed)
        self.pings.stop()
        if self._watch is not None:
            await self._watch.stop()

    @answers(BreakerList)
    async def list_breakers(self, call: Call[BreakerList]) -> BreakerListing:
        """List what is not closed by itself."""
        lines = tuple(
            BreakerLine.model_validate(
                {"node": node, "instance": instance, "verb": verb, **msgspec.to_builtins(breaker.record)}
            )
            for (node, instance, verb), breaker in sorted(self.breakers.breakers.items())
            if breaker.record is not None and call.message.node in (None, node)
        )
        return BreakerListing(breakers=lines, suspects_itself=self.suspects_itself(), master=self.bus.name)

    @answers(BreakerOrder)
    async def order(self, call: Call[BreakerOrder]) -> Acknowledged:
        """Move breakers by hand; a hand wins over whatever masters write."""
        asked = call.message
        if asked.verb not in VERBS:
            raise Malformed(f"{asked.verb!r} has no breakers; {' and '.join(VERBS)} have")
        node = self.registry.current.nodes.get(asked.node)
        known = {
            instance for name, instance, verb in self.breakers.breakers if (name, verb) == (asked.node, asked.verb)
        }
        known |= set(node.instances if node is not None else ())
        instances = [asked.instance] if asked.instance else sorted(known)
        if not instances or not known.issuperset(instances):
            which = "an instance" if asked.instance is None else f"the instance {asked.instance!r}"
            raise UnknownNode(f"no node {asked.node!r} with {which} is registered; `antiphon node ls` lists them")
        for instance in instances:
            key = (asked.node, instance, asked.verb)
            event = Handled(Verb(asked.order), call.caller, self.bus.clock.wall_ms())
            await self._carry_out(key, self.breakers.step(key, event, self.bus.clock.now_ms()), must=True)
        return Acknowledged()

    # -- the shared bucket

    @property
    def _kv(self) -> KeyValue:
        assert self._bucket is not None, "started() opens the bucket"
        return self._bucket

    def _changed(self, entry: Entry) -> None:
        """Take a change of the bucket; it is short and does not wait, so it needs no turn in the mailbox."""
        key = _key_of(entry.key)
        if key is None:
            return
        known = self.breakers.breakers.get(key, Breaker())
        if entry.is_lost:
            self._hear(key, Entry(entry.key, None, 0), is_read=True)
            if known.record is not None and known.record.holds_ms is None:
                self.tell(partial(self._write_back, entry.key, known.record))
        elif entry.value is not None and entry.revision < known.revision:
            self.tell(partial(self._reread, key))  # late word, or a bucket that was made anew
        else:
            self._hear(key, entry, is_read=False)

    async def _write_back(self, name: str, held: Record) -> None:
        """Give the bucket back what an operator holds and its server has lost; another master may be first."""
        try:
            await self._kv.update(name, msgspec.json.encode(held), 0)
        except NotConnected:
            self.tell_after(TICK_MS, partial(self._write_back, name, held))

    def _hear(self, key: Key, entry: Entry, *, is_read: bool) -> None:
        try:
            record = None if entry.value is None else msgspec.json.decode(entry.value, type=Record)
        except msgspec.DecodeError as error:
            log.warning("breaker.record_unreadable", key=entry.key, error=str(error)[:200])
            return
        if record is None and key not in self.breakers.breakers:
            return  # the end of one that is forgotten already
        self.breakers.step(key, Heard(record, entry.revision, is_read=is_read), self.bus.clock.now_ms())

    async def _carry_out(self, key: Key, effects: Iterable[Effect], *, must: bool = False) -> None:
        left = list(effects)
        while left:
            effect = left.pop(0)
            if isinstance(effect, Swap):
                left += await self._swap(key, effect, must=must)
            elif isinstance(effect, Reread):
                await self._reread(key)
            elif isinstance(effect, ProbeGranted):
                self.tell_after(IDLE_MS, partial(self._ping_if_idle, key))
            elif isinstance(effect, Opened):
                self._tell(key, State.OPEN, effect.reason)
            elif isinstance(effect, HalfOpened):
                self._tell(key, State.HALF_OPEN, Reason.PROBE)
            elif isinstance(effect, Closed):
                self._tell(key, State.CLOSED, effect.reason)

    async def _swap(self, key: Key, swap: Swap, *, must: bool) -> tuple[Effect, ...]:
        """Write if nobody else has; a write that may or may not have been taken is read again."""
        revision: int | None = None
        try:
            revision = await self._write(".".join(key), swap)
        except NotConnected:
            if must:
                raise
            log.info("breaker.not_written", key=".".join(key))
        return self.breakers.step(key, Swapped(swap, revision), self.bus.clock.now_ms())

    async def _write(self, name: str, swap: Swap) -> int | None:
        kv = self._kv
        if swap.record is not None:
            data = msgspec.json.encode(swap.record)
            return await (kv.put(name, data) if swap.revision is None else kv.update(name, data, swap.revision))
        if swap.revision is not None:
            return await kv.drop(name, swap.revision)
        for _ in range(HAND_TRIES_MAX):  # by hand: whatever is there, and whoever writes meanwhile
            entry = await kv.get(name)
            if entry is None:
                return 0
            if (revision := await kv.drop(name, entry.revision)) is not None:
                return revision
        raise Overloaded(f"other masters keep writing {name}; try again", retry_after_ms=TICK_MS)

    async def _reread(self, key: Key) -> None:
        name = ".".join(key)
        try:
            entry = await self._kv.get(name)
        except NotConnected:
            return  # the watch compares when the connection is back
        self._hear(key, entry or Entry(name, None, 0), is_read=True)

    def _tell(self, key: Key, state: State, reason: Reason) -> None:
        node, instance, verb = key
        log.warning("breaker.moved", node=node, instance=instance, verb=verb, state=state.value, reason=reason.value)
        fields = {"node": node, "instance": instance, "verb": verb, "state": state.value, "reason": reason.value}
        self.facts.tell(BreakerMoved.model_validate({"at_ms": self.bus.clock.wall_ms(), **fields}))

    # -- probes

    async def _tick(self) -> None:
        now_ms = self.bus.clock.now_ms()
        await self._forget_who_left()
        for key in self.breakers.due(now_ms):
            node = self.registry.current.nodes.get(key[0])
            if node is not None and key[1] in node.active:  # one that is down or suspended is not asked
                await self._carry_out(key, self.breakers.claim(key, now_ms))
        self.tell_after(TICK_MS, self._tick)

    async def _forget_who_left(self) -> None:
        """Forget instances that the registry no longer knows, in the bucket, too: a new one of that name starts anew.

        What a hand holds goes with its instance; `antiphon node suspend` is what outlives a restart.
        """
        if self.registry.current is self._seen:
            return
        self._seen = self.registry.current
        known = {(node.node, instance) for node in self._seen.nodes.values() for instance in node.instances}
        for key in [key for key in self.breakers.counts.keys() | self.breakers.breakers if key[:2] not in known]:
            breaker = self.breakers.breakers.get(key, Breaker())
            if breaker.record is not None:
                if not await self._drop(key, breaker.revision):
                    continue
                if breaker.state is not State.CLOSED:
                    self._tell(key, State.CLOSED, Reason.LEFT)
            self.breakers.forget(*key[:2])

    async def _drop(self, key: Key, revision: int) -> bool:
        """Return whether the record is gone from the bucket now, by whomever."""
        try:
            await self._kv.drop(".".join(key), revision)
        except NotConnected:
            self._seen = None  # at the next tick again
            return False
        return True

    async def _ping_if_idle(self, key: Key) -> None:
        """Probe an instance that no search has come by for, so that an idle node comes back, too."""
        probe = self.breakers.probes.get(key)
        if probe is None or not probe.take(self.bus.clock.now_ms()):
            return

        def answered(echo: Echo) -> None:
            self.probed(key, ending_of(echo.code, echo.took_us // 1_000))

        await self.pings.ask(key[0], key[1], answered)


def _key_of(name: str) -> Key | None:
    parts = name.split(".")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else None  # noqa: PLR2004 - node, instance, verb
