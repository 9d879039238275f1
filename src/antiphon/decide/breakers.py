"""All breakers as one master holds them, and the view of them that the hot path reads.

The actor feeds this with what happened and carries out the swaps it returns. A node whose breakers are all closed
is not in the view at all, so that the usual pick costs one look-up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from antiphon.decide.breaker import (
    Breaker,
    BreakerPolicy,
    Claimed,
    Effect,
    Event,
    Handled,
    Probed,
    ProbeGranted,
    State,
    Tripped,
    step,
)
from antiphon.decide.ending import Ending
from antiphon.decide.failures import Failures, Key, suspects_itself


class Probe:
    """The leave to ask an instance once; whoever takes it has to tell `Breakers.probed` what came of it."""

    __slots__ = ("instance", "is_taken", "until_ms")

    def __init__(self, instance: str, until_ms: int) -> None:
        self.instance = instance
        self.until_ms = until_ms
        self.is_taken = False

    def take(self, now_ms: int) -> bool:
        """Return whether it is the caller's now; true once."""
        if self.is_taken or now_ms >= self.until_ms:
            return False
        self.is_taken = True
        return True


@dataclass(frozen=True, slots=True)
class Shut:
    """The breakers of one node and verb that are not closed."""

    ejected: tuple[str, ...]
    """Instances in the order in which they opened."""
    held: frozenset[str] = frozenset()
    """Those that an operator holds open: no cap and no panic brings them back."""
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True, slots=True)
class BreakerView:
    """All breakers at one moment: (node, verb) -> what is not closed."""

    shut: Mapping[tuple[str, str], Shut] = field(default_factory=dict[tuple[str, str], Shut])
    policy: BreakerPolicy = field(default_factory=BreakerPolicy)


def eligible(view: BreakerView, node: str, verb: str, instances: tuple[str, ...]) -> tuple[str, ...]:
    """Return the instances that breakers let through; none when all are open: then the node itself is open.

    While at least one is closed, at most `ejected_max` of them are taken out, those that opened first: where load
    makes instances fail, taking out more makes the rest fail, too. When all are open there is no rest to protect,
    each was judged by failures of its own, and skipping the node at once is the honest answer.
    """
    shut = view.shut.get((node, verb))
    if shut is None:
        return instances
    held = shut.held
    out = [name for name in shut.ejected if name in instances]
    total = len(instances)
    if len(out) == total and not view.policy.panic_below:
        return ()
    if total - len(out) < view.policy.panic_below * total:
        return tuple(name for name in instances if name not in held)
    room = max(1, int(total * view.policy.ejected_max))
    if len(out) > room:
        out = out[:room]
    return tuple(name for name in instances if name not in out and name not in held)


def probe(view: BreakerView, node: str, verb: str, instances: tuple[str, ...], now_ms: int) -> Probe | None:
    """Take this master's leave to probe one of the instances, if there is one: ask that one first."""
    shut = view.shut.get((node, verb))
    if shut is None:
        return None
    return next((one for one in shut.probes if one.instance in instances and one.take(now_ms)), None)


class Breakers:
    """One master's breakers and counts."""

    def __init__(self, me: str, policy: BreakerPolicy | None = None) -> None:
        self.me = me
        self.policy = policy or BreakerPolicy()
        self.breakers: dict[Key, Breaker] = {}
        self.counts: dict[Key, Failures] = {}
        self.probes: dict[Key, Probe] = {}
        self.view = BreakerView(policy=self.policy)

    def ended(self, key: Key, ending: Ending, began_ms: int, now_ms: int, wall_ms: int) -> tuple[Effect, ...]:
        """Count a call that was no probe, on the hot path; nearly always there is nothing to do."""
        count = self.counts.get(key)
        if count is None:
            count = self.counts[key] = Failures(self.policy)
        reason = count.ended(ending, began_ms, now_ms)
        if reason is None or self.suspects_itself(now_ms):
            return ()
        return self.step(key, Tripped(reason, wall_ms), now_ms)

    def probed(self, key: Key, ending: Ending, now_ms: int) -> tuple[Effect, ...]:
        """Take what came of a probe; a failure that is likely this master's own judges nobody."""
        self.probes.pop(key, None)
        if ending is Ending.FAILED and self.suspects_itself(now_ms):
            ending = Ending.ABANDONED
        return self.step(key, Probed(ending), now_ms)

    def due(self, now_ms: int) -> tuple[Key, ...]:
        """Return the breakers whose wait is over; none while this master suspects itself."""
        due = [key for key, one in self.breakers.items() if (at := one.due_ms()) is not None and at <= now_ms]
        return () if not due or self.suspects_itself(now_ms) else tuple(due)

    def claim(self, key: Key, now_ms: int) -> tuple[Effect, ...]:
        """Ask for the leave to probe; `ProbeGranted` puts it into the view."""
        return self.step(key, Claimed(), now_ms)

    def step(self, key: Key, event: Event, now_ms: int) -> tuple[Effect, ...]:
        """Take an event, and renew the view where something changed."""
        before = self.breakers.get(key, Breaker())
        after, effects = step(before, event, now_ms, self.me, self.policy)
        if after == before:
            return effects
        self.breakers[key] = after
        if after.state is not before.state or isinstance(event, Handled):
            self.counts.setdefault(key, Failures(self.policy)).clear(now_ms)
        granted = next((effect for effect in effects if isinstance(effect, ProbeGranted)), None)
        if granted is not None:
            self.probes[key] = Probe(key[1], granted.until_ms)
        elif after.probe_until_ms is None:
            self.probes.pop(key, None)
        if after.record != before.record or after.probe_until_ms != before.probe_until_ms:
            self.view = self._view()
        return effects

    def forget(self, node: str, instance: str) -> None:
        """Drop an instance that left; its record, if any, comes again by the watch as long as it is in the bucket."""
        for key in [key for key in self.counts.keys() | self.breakers.keys() if key[:2] == (node, instance)]:
            self.counts.pop(key, None)
            self.probes.pop(key, None)
            self.breakers.pop(key, None)
        self.view = self._view()

    def suspects_itself(self, now_ms: int) -> bool:
        """Whether this master is the likely cause of what it sees fail: answers say `degraded: self`."""
        return suspects_itself(self.counts, now_ms, self.policy)

    def _view(self) -> BreakerView:
        ejected: dict[tuple[str, str], list[tuple[int, str]]] = {}
        held: dict[tuple[str, str], set[str]] = {}
        probes: dict[tuple[str, str], list[Probe]] = {}
        for (node, instance, verb), breaker in self.breakers.items():
            record = breaker.record
            if record is None or record.state is State.CLOSED:
                continue
            ejected.setdefault((node, verb), []).append((record.opened_at_ms, instance))
            if record.holds_ms is None:
                held.setdefault((node, verb), set()).add(instance)
            if (granted := self.probes.get((node, instance, verb))) is not None:
                probes.setdefault((node, verb), []).append(granted)
        shut = {
            at: Shut(tuple(name for _, name in sorted(out)), frozenset(held.get(at, ())), tuple(probes.get(at, ())))
            for at, out in ejected.items()
        }
        return BreakerView(shut, self.policy)
