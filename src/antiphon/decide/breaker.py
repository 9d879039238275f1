"""The circuit breaker of one instance and verb, as one master takes part in it: closed, open, half-open.

Every master counts failures for itself (`decide.failures`); only transitions are shared, as one record in a
key-value bucket that is changed by compare-and-set and watched by all. No record means closed. An automatic record is
a *lease*: it says for how long it holds from the moment it was written, and when that is over any master may claim
the one half-open probe by the next compare-and-set. So the asker of a probe may die, and every wait has an end.

No clock is shared. A master measures a record's age from the moment when it heard it, plus what the broker's own
time stamps prove (`Heard.age_ms`); that is never more than its true age. The claimer of a probe measures from before
its write. So a probe is over for its holder before anyone else may claim it (Gray and Cheriton, Leases, 1989).

Safety: at most one live probe in the fleet; nothing opens unless it was tripped; what a hand set only a hand changes;
calls that began before a transition do not count after it. Liveness: an instance that answers again is closed within
its wait, `successes_min` probes, and one `lease_ms` for each probe that was lost, whichever path probes: a search or
the monitor's ping. `tests/unit/test_breaker.py` proves both. Background: Nygard, Release It!, 2007; the lease in
place of a half-open state that its asker's death leaves shut for ever is this module's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from antiphon.decide.ending import Ending


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When breakers move. Shares are 0 to 1."""

    failures_max: int = 5
    """Consecutive failures that open."""
    rate_max: float = 0.5
    """Share of failed calls that opens, of at least `rate_calls_min` calls within `rate_window_ms`."""
    rate_calls_min: int = 20
    rate_window_ms: int = 10_000
    wait_ms: int = 30_000
    """From opening until the first probe."""
    successes_min: int = 2
    """Successful probes that close."""
    probe_ms: int = 5_000
    """A probe that was not judged within this is lost and may be claimed anew."""
    margin_ms: int = 500
    """Kept between a probe's end for its holder and for the others: clocks do not run equally fast."""
    refused_ms: int = 1_000
    """Until the next probe after one that was refused (`Overloaded`)."""
    ejected_max: float = 0.5
    """At most this share of a node's instances, rounded down but at least one, is taken out while others are well."""
    panic_below: float = 0.0
    """When fewer than this share of a node's instances is closed, breakers are ignored (Envoy's panic threshold).

    Envoy's default is 0.5, because a proxy must send its request somewhere. A search need not: it says which node
    it skipped, so the default is off.
    """
    self_nodes_min: int = 3
    """Fewer failing nodes than this never make a master suspect itself."""
    self_share: float = 0.5
    """A master suspects itself when more than this share of the nodes that it asked of late fail at once."""
    self_window_ms: int = 10_000

    @property
    def lease_ms(self) -> int:
        """How long a claimed probe keeps others from claiming."""
        return self.probe_ms + self.margin_ms


class State(StrEnum):
    """Whether calls pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Reason(StrEnum):
    """Why it is in its state."""

    FAILURES = "consecutive_failures"
    RATE = "error_rate"
    PROBE = "probe"
    HAND = "by_hand"
    LEFT = "left"
    """Its instance has left; told, never stored."""


class Verb(StrEnum):
    """What an operator may do."""

    OPEN = "open"
    """Hold it open until another verb."""
    CLOSE = "close"
    """Hold it closed until another verb: failures open nothing."""
    RESET = "reset"
    """Forget everything and go on by itself."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the bucket holds for one instance and verb; closed by itself is no record at all."""

    state: State
    reason: Reason
    by: str
    """The master or operator that wrote it."""
    opened_at_ms: int
    """The first writer's wall clock: for people, and as the order in which the ejection cap applies."""
    holds_ms: int | None
    """From its writing until a probe may be claimed; None when it is held by hand."""
    probe: str | None = None
    """The master that probes."""
    successes: int = 0
    """Probes that succeeded so far."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Write this if the key's revision is still this one, and answer with `Swapped`; no record means delete.

    Attributes:
        record: what to write.
        revision: as heard last, 0 when there is no key; None: write whatever there is, a hand wins.
        sent_ms: this master's clock before the write.
        was: the state that this leaves.
    """

    record: Record | None
    revision: int | None
    sent_ms: int
    was: State


@dataclass(frozen=True, slots=True)
class Opened:
    """It is open; `until_ms` is this master's clock, None when it is held by hand."""

    reason: Reason
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class HalfOpened:
    """Probing began."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Calls pass again: `PROBE` by its own strength, `HAND` by an operator."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class ProbeGranted:
    """This master, and no other, may ask the instance once, and has to judge it before `until_ms`."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class ProbeRefused:
    """Somebody else probes, or the grant came too late to be used."""


@dataclass(frozen=True, slots=True)
class Reread:
    """A write was refused: read the key and tell it as `Heard(..., is_read=True)`."""


Effect = Swap | Opened | HalfOpened | Closed | ProbeGranted | ProbeRefused | Reread


@dataclass(frozen=True, slots=True)
class Tripped:
    """This master's own counts say that it is to be opened."""

    reason: Reason
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """Somebody here would probe: a search that came by, or the monitor for an idle node."""


@dataclass(frozen=True, slots=True)
class Probed:
    """The granted probe ended."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Handled:
    """An operator decided."""

    verb: Verb
    by: str
    wall_ms: int


@dataclass(frozen=True, slots=True)
class Swapped:
    """A write ended: with the new revision, or None when the key's was another one or nobody knows."""

    swap: Swap
    revision: int | None


@dataclass(frozen=True, slots=True)
class Heard:
    """The bucket's entry, by the watch or (`is_read`) by a read; `age_ms` is the least that the broker proves.

    The broker proves an age by the time stamp of anything later that it sent. A read wins over a revision that
    seems newer: the bucket may have been made anew.
    """

    record: Record | None
    revision: int
    age_ms: int = 0
    is_read: bool = False


Event = Tripped | Claimed | Probed | Handled | Swapped | Heard


@dataclass(frozen=True, slots=True)
class Breaker:
    """One master's part in one breaker."""

    record: Record | None = None
    revision: int = 0
    since_ms: int = 0
    """When the record was written, as this master may believe: never earlier than it was."""
    pending: Swap | None = None
    """The one write on its way; nothing else is proposed meanwhile, except by hand."""
    probe_until_ms: int | None = None
    """The end of this master's own probe."""

    @property
    def state(self) -> State:
        """Whether calls pass, as this master knows it."""
        return State.CLOSED if self.record is None else self.record.state

    def due_ms(self) -> int | None:
        """Return when a probe may be claimed, by this master's clock; None: never."""
        record = self.record
        return None if record is None or record.holds_ms is None else self.since_ms + record.holds_ms


Step = tuple[Breaker, tuple[Effect, ...]]


def step(breaker: Breaker, event: Event, now_ms: int, me: str, policy: BreakerPolicy) -> Step:
    """Return the breaker after an event, and what is to be done; `me` is this master's name.

    The master whose write was taken tells the transition (`Opened`, `HalfOpened`, `Closed`): one fact for each.
    """
    match event:
        case Heard():
            return _heard(breaker, event, now_ms), ()
        case Swapped():
            return _swapped(breaker, event, now_ms, policy)
        case Handled():
            swap = Swap(_by_hand(event), None, now_ms, breaker.state)
            return replace(breaker, pending=swap, probe_until_ms=None), (swap,)
        case Probed(ending):
            return _probed(breaker, ending, now_ms, me, policy)
        case Tripped() | Claimed():
            return _proposed(breaker, event, now_ms, me, policy)


def _proposed(breaker: Breaker, event: Tripped | Claimed, now_ms: int, me: str, policy: BreakerPolicy) -> Step:
    """Propose to open what is closed, or to probe what has waited long enough."""
    record, pending = breaker.record, breaker.pending
    if pending is not None and now_ms - pending.sent_ms < policy.probe_ms:
        return breaker, ()
    if isinstance(event, Tripped):
        if record is not None:
            return breaker, ()
        return _swap(breaker, Record(State.OPEN, event.reason, me, event.wall_ms, policy.wait_ms), now_ms)
    due_ms = breaker.due_ms()
    if record is None or due_ms is None or now_ms < due_ms:
        return breaker, ()
    claim = replace(record, state=State.HALF_OPEN, by=me, holds_ms=policy.lease_ms, probe=me)
    return _swap(breaker, claim, now_ms)


def _swap(breaker: Breaker, record: Record | None, now_ms: int) -> Step:
    swap = Swap(record, 0 if breaker.record is None else breaker.revision, now_ms, breaker.state)
    return replace(breaker, pending=swap, probe_until_ms=None), (swap,)


def _heard(breaker: Breaker, event: Heard, now_ms: int) -> Breaker:
    if event.revision <= breaker.revision and not event.is_read:
        return breaker
    if event.revision == breaker.revision and event.record == breaker.record:
        return breaker
    heard = replace(breaker, record=event.record, revision=event.revision, since_ms=now_ms - event.age_ms)
    return replace(heard, probe_until_ms=None)


def _by_hand(event: Handled) -> Record | None:
    if event.verb is Verb.RESET:
        return None
    state = State.OPEN if event.verb is Verb.OPEN else State.CLOSED
    return Record(state, Reason.HAND, event.by, event.wall_ms, None)


def _probed(breaker: Breaker, ending: Ending, now_ms: int, me: str, policy: BreakerPolicy) -> Step:
    """Judge by the probe; one that comes late is tried, too, and the revision says whether it was lost meanwhile."""
    record = breaker.record
    if record is None or record.probe != me or breaker.probe_until_ms is None:
        return breaker, ()
    released = replace(record, by=me, probe=None, holds_ms=0)
    match ending:
        case Ending.FAILED:
            return _swap(
                breaker,
                replace(released, state=State.OPEN, reason=Reason.PROBE, successes=0, holds_ms=policy.wait_ms),
                now_ms,
            )
        case Ending.SUCCEEDED:
            successes = record.successes + 1
            closes = successes >= policy.successes_min
            return _swap(breaker, None if closes else replace(released, successes=successes), now_ms)
        case Ending.REFUSED:
            return _swap(breaker, replace(released, holds_ms=policy.refused_ms), now_ms)
        case Ending.ABANDONED:
            return _swap(breaker, released, now_ms)


def _swapped(breaker: Breaker, event: Swapped, now_ms: int, policy: BreakerPolicy) -> Step:
    swap, revision = event.swap, event.revision
    if swap != breaker.pending:
        return breaker, ()
    is_claim = swap.record is not None and swap.record.probe is not None
    settled = replace(breaker, pending=None)
    if revision is None:
        return settled, (ProbeRefused(), Reread()) if is_claim else (Reread(),)
    told = _told(swap, now_ms)
    if revision > breaker.revision:
        settled = replace(settled, record=swap.record, revision=revision, since_ms=now_ms)
    else:  # heard of already, or a reset that found nothing, or the bucket was made anew: only a read knows
        told = (*told, Reread())
    if not is_claim:
        return settled, told
    until_ms = swap.sent_ms + policy.probe_ms
    if revision < breaker.revision or now_ms >= until_ms:
        return settled, (*told, ProbeRefused())
    return replace(settled, probe_until_ms=until_ms), (*told, ProbeGranted(until_ms))


def _told(swap: Swap, now_ms: int) -> tuple[Effect, ...]:
    """Return the transition that a write made; a claim renewed or a success counted is none."""
    record = swap.record
    if record is None or record.state is State.CLOSED:
        is_by_hand = swap.revision is None
        return (Closed(Reason.HAND if is_by_hand else Reason.PROBE),) if swap.was is not State.CLOSED else ()
    if record.state is swap.was:
        return ()
    if record.state is State.HALF_OPEN:
        return (HalfOpened(),)
    return (Opened(record.reason, None if record.holds_ms is None else now_ms + record.holds_ms),)
