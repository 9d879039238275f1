"""Alerts: what somebody should know, said once when it begins, now and then while it lasts, and once when it is over.

An alert has a raising and a clearing level with room between them (hysteresis), and each has to hold for a while, so
that a value that trembles about a level does not ring. Its id is made of what it is about (`node_down:blog`), so all
masters that see the same thing name it alike, and subscribers keep one of each, as Prometheus' Alertmanager does with
fingerprints. The number of alerts is bounded; what does not fit is counted, and raised when there is room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Phase(StrEnum):
    """Which of an alert's messages this is."""

    RAISED = "raised"
    REMINDED = "reminded"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a kind of alert begins and ends."""

    kind: str
    cleared_kind: str
    severity: Severity
    raise_at: float = 1.0
    clear_at: float = 0.0
    """Above `raise_at` where low values are wrong, else below it."""
    hold_ms: int = 0
    """How long it has to be wrong before it is raised."""
    clear_hold_ms: int = 0
    """How long it has to be right before it is cleared."""

    def is_wrong(self, value: float) -> bool | None:
        """Return whether a value is wrong; None between the levels, where everything stays as it is."""
        if self.raise_at > self.clear_at:
            return True if value >= self.raise_at else False if value <= self.clear_at else None
        return True if value < self.raise_at else False if value >= self.clear_at else None


RULES: Final[Mapping[str, Rule]] = {
    rule.kind: rule
    for rule in (
        Rule("node_down", "node_recovered", Severity.CRITICAL),
        Rule("breaker_open", "breaker_closed", Severity.WARNING),
        Rule("coverage_below", "coverage_restored", Severity.WARNING, 0.90, 0.95, 5_000, 10_000),
        Rule("error_rate", "error_rate_normal", Severity.WARNING, 0.10, 0.05, 5_000, 10_000),
        Rule("saga_parked", "saga_goes_on", Severity.CRITICAL),
        Rule("facts_dropped", "facts_kept", Severity.WARNING),
        Rule("recorder_degraded", "recorder_recording", Severity.CRITICAL),
        Rule("recorder_behind", "recorder_caught_up", Severity.WARNING, hold_ms=5_000),
        Rule("recorder_silent", "recorder_heard", Severity.CRITICAL),
    )
}
"""A condition such as node_down is observed as 1 or 0, a measure as its value between 0 and 1."""


@dataclass(frozen=True, slots=True)
class AlertBounds:
    """The limits of alerts."""

    remind_ms: int = 900_000
    alerts_max: int = 1_000
    """Raised ones and those that are about to be."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A value of one kind about one subject, e.g. a node."""

    kind: str
    subject: str
    value: float


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to subscribers; times are those of the observer's clock."""

    id: str
    """The same from its raising to its clearing, and the same for every master: `node_down:blog`."""
    kind: str
    phase: Phase
    severity: Severity
    subject: str
    value: float
    since_ms: int
    """When it began to be wrong."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that is wrong, or was a moment ago."""

    value: float
    since_ms: int
    told_ms: int | None = None
    """When it was raised or reminded of; None = not yet raised."""
    right_ms: int | None = None
    """Since when it is right again."""


Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Alerts:
    """Everything that is wrong."""

    entries: Mapping[Key, Entry] = field(default_factory=dict[Key, Entry])
    dropped: int = 0
    """Observations of something wrong for which there was no room."""

    @property
    def open(self) -> tuple[str, ...]:
        """The ids of the alerts that are raised, sorted."""
        return tuple(sorted(":".join(key) for key, entry in self.entries.items() if entry.told_ms is not None))


BOUNDS: Final = AlertBounds()


def observed(
    state: Alerts, seen: Observation, now_ms: int, bounds: AlertBounds = BOUNDS, rules: Mapping[str, Rule] = RULES
) -> tuple[Alerts, list[Alert]]:
    """Return the state after an observation, and what to tell."""
    key, rule = (seen.kind, seen.subject), rules[seen.kind]
    entry = state.entries.get(key)
    is_wrong = rule.is_wrong(seen.value)
    if entry is None:
        if not is_wrong:
            return state, []
        if len(state.entries) >= bounds.alerts_max:
            return replace(state, dropped=state.dropped + 1), []
        entry = Entry(seen.value, now_ms)
    elif is_wrong:
        entry = replace(entry, value=seen.value, right_ms=None)
    elif is_wrong is False:
        entry = replace(entry, value=seen.value, right_ms=now_ms if entry.right_ms is None else entry.right_ms)
    return _told(state, {key: entry}, now_ms, bounds, rules)


def ticked(
    state: Alerts, now_ms: int, bounds: AlertBounds = BOUNDS, rules: Mapping[str, Rule] = RULES
) -> tuple[Alerts, list[Alert]]:
    """Return the state after time passed: what has held long enough, and what to remind of."""
    return _told(state, state.entries, now_ms, bounds, rules)


def _told(
    state: Alerts, changed: Mapping[Key, Entry], now_ms: int, bounds: AlertBounds, rules: Mapping[str, Rule]
) -> tuple[Alerts, list[Alert]]:
    entries = dict(state.entries)
    alerts: list[Alert] = []
    for key, entry in changed.items():
        after, phase = _judged(entry, rules[key[0]], now_ms, bounds)
        if phase is not None:
            alerts.append(_alert(key, entry, phase, rules[key[0]]))
        if after is None:
            entries.pop(key, None)
        else:
            entries[key] = after
    return (state if entries == state.entries else replace(state, entries=entries)), alerts


def _judged(entry: Entry, rule: Rule, now_ms: int, bounds: AlertBounds) -> tuple[Entry | None, Phase | None]:
    """Return what becomes of an entry, and what to tell of it."""
    if entry.right_ms is not None:
        if entry.told_ms is None:
            return None, None
        is_over = now_ms - entry.right_ms >= rule.clear_hold_ms
        return (None, Phase.CLEARED) if is_over else (entry, None)
    if entry.told_ms is None:
        is_due = now_ms - entry.since_ms >= rule.hold_ms
        return (replace(entry, told_ms=now_ms), Phase.RAISED) if is_due else (entry, None)
    if now_ms - entry.told_ms >= bounds.remind_ms:
        return replace(entry, told_ms=now_ms), Phase.REMINDED
    return entry, None


def _alert(key: Key, entry: Entry, phase: Phase, rule: Rule) -> Alert:
    kind, severity = (rule.cleared_kind, Severity.INFO) if phase is Phase.CLEARED else (rule.kind, rule.severity)
    return Alert(":".join(key), kind, phase, severity, key[1], entry.value, entry.since_ms)
