"""The monitor's alerts: what this master sees wrong, the bucket in which masters agree who tells it, and the telling.

An alert is told to the log, as a fact to any number of subscribers, and to the sinks that were given; see
`decide/alerts.py` for when, and `decide/announce.py` for by whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from antiphon.bus.assets import alerts_of
from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Entry, KeyValue, Watch
from antiphon.decide import alerts
from antiphon.decide.alerts import RULES, Alert, AlertBounds, Alerts, Observation, Phase
from antiphon.decide.announce import Board, Record, Swap, record
from antiphon.errors import NotConnected
from antiphon.messages.alerts import AlertCleared, AlertRaised, OpenAlert
from antiphon.runtime.keeping import Keeper
from antiphon.runtime.sinks import SinkSpool

log = structlog.get_logger("antiphon.alerts")


class Condition(NamedTuple):
    """Something that may be wrong, as it is now."""

    kind: str
    subject: str
    value: float
    text: str

    @property
    def id(self) -> str:
        """What its alert is called."""
        return f"{self.kind}:{self.subject}"


class AlertDesk:
    """The alerts of one master; called by its monitor only, one call at a time."""

    def __init__(self, bus: Bus, sinks: Sequence[SinkSpool], bounds: AlertBounds, keeper: Keeper | None = None) -> None:
        self.bus = bus
        self.sinks = tuple(sinks)
        self.bounds = bounds
        self.keeper = keeper
        self.state = Alerts()
        self.board = Board(bus.name)
        self._local: dict[str, Alert] = {}
        """What this master sees wrong, as it was when it began."""
        self._now: dict[str, Condition] = {}
        """The same as it is now, or was when it was seen last."""
        self._reminded: set[str] = set()
        self._bucket: KeyValue | None = None
        self._watch: Watch | None = None

    async def start(self) -> None:
        """Read the whole bucket."""
        self._bucket = await self.bus.transport.key_value(alerts_of(self.bus.prefix))
        self._watch = await self._bucket.watch(self._changed)

    async def stop(self) -> None:
        """Watch no more; what is open stays in the bucket for the other masters."""
        if self._watch is not None:
            await self._watch.stop()

    @property
    def open(self) -> tuple[OpenAlert, ...]:
        """Every alert that is open, whichever master told it."""
        return tuple(map(_shown, self.board.open))

    def observe(self, conditions: Iterable[Condition]) -> None:
        """Take how things are; what was looked at before and is not told of any more is right."""
        now_ms = self.bus.clock.now_ms()
        told: list[Alert] = []
        now = {(one.kind, one.subject): one for one in conditions}
        seen = [Observation(one.kind, one.subject, one.value) for one in now.values()]
        gone = [Observation(*key, _right(key[0])) for key in self.state.entries if key not in now]
        for one in (*seen, *gone):
            self.state, some = alerts.observed(self.state, one, now_ms, self.bounds)
            told += some
        self.state, some = alerts.ticked(self.state, now_ms, self.bounds)
        for alert in (*told, *some):
            if alert.phase is Phase.CLEARED:
                self._local.pop(alert.id, None)
                self._now.pop(alert.id, None)
            else:
                self._local[alert.id] = alert
            if alert.phase is Phase.REMINDED:
                self._reminded.add(alert.id)
        self._now |= {one.id: one for one in now.values() if one.id in self._local}

    async def tell(self) -> None:
        """Write what is due to the bucket, and tell what this master was the one to write."""
        clock = self.bus.clock
        now_ms, wall_ms = clock.now_ms(), clock.wall_ms()
        wrong: dict[str, Record] = {}
        for name, alert in self._local.items():
            now, since_wall_ms = self._now[name], wall_ms - (now_ms - alert.since_ms)
            wrong[name] = record(alert, now.value, now.text, since_wall_ms=since_wall_ms, me=self.bus.name)
        began_ms = {name: alert.since_ms for name, alert in self._local.items()}
        reminded, self._reminded = self._reminded, set()
        for swap in self.board.due(wrong, began_ms, reminded, now_ms):
            before = next((one for one in self.board.open if one.id == swap.id), None)
            revision = await self._write(swap)
            self.board.swapped(swap, revision, clock.now_ms())
            shown = swap.record or before
            if revision is not None and swap.phase is not None and shown is not None:
                await self._announce(shown, swap.phase)

    async def _write(self, swap: Swap) -> int | None:
        assert self._bucket is not None, "start() opens the bucket"
        name = swap.id.replace(":", ".")
        try:
            if swap.record is None:
                return await self._bucket.drop(name, swap.revision)
            return await self._bucket.update(name, msgspec.json.encode(swap.record), swap.revision)
        except NotConnected:
            log.info("alert.not_written", alert=swap.id)
            return None

    async def _announce(self, shown: Record, phase: Phase) -> None:
        alert, at_ms = _shown(shown), self.bus.clock.wall_ms()
        fact: AlertRaised | AlertCleared
        if phase is Phase.CLEARED:
            fact = AlertCleared(at_ms=at_ms, alert=alert, kind=RULES[alert.kind].cleared_kind)
            log.info("alert.cleared", alert=alert.id, kind=fact.kind)
        else:
            fact = AlertRaised(at_ms=at_ms, alert=alert, is_reminder=phase is Phase.REMINDED)
            say = log.error if alert.severity == "critical" else log.warning
            say("alert.raised", alert=alert.id, severity=alert.severity, text=alert.text, reminder=fact.is_reminder)
        for sink in self.sinks:
            sink.put(fact)
        if self.keeper is not None:
            self.keeper.keep(type(fact).__name__, encode(fact))
        try:
            await self.bus.publish(fact)
        except NotConnected:
            log.info("alert.not_published", alert=alert.id)

    def _changed(self, entry: Entry) -> None:
        name = entry.key.replace(".", ":", 1)
        if entry.is_lost:
            self.board.lost(name)
            return
        try:
            found = None if entry.value is None else msgspec.json.decode(entry.value, type=Record)
        except msgspec.DecodeError as error:
            log.warning("alert.record_unreadable", key=entry.key, error=str(error)[:200])
            return
        self.board.heard(name, found, entry.revision, self.bus.clock.now_ms())


def _right(kind: str) -> float:
    rule = RULES[kind]
    return min(rule.clear_at, 0.0) if rule.raise_at > rule.clear_at else max(rule.clear_at, 1.0)


def _shown(one: Record) -> OpenAlert:
    fields = {name: getattr(one, name) for name in ("id", "kind", "subject", "severity", "value", "text", "since_ms")}
    return OpenAlert.model_validate(fields | {"master": one.by})
