"""Who tells an alert where several masters see the same: one record an alert in a shared bucket, by compare-and-set.

Each master judges by what it sees itself (`decide/alerts.py`). Whoever writes the record of an alert first has raised
it and tells; whoever deletes it tells that it is over. So each is told once, a master that alone sees something wrong
is heard, too, and the bucket is the list of what is open, for every master and after every restart.

The record is a lease: the master that raised it renews it, with what it sees by then, and when it has not been renewed
for `lease_ms` any master may adopt it (it sees the same) or clear it (it does not). No clock is shared: ages are
counted from when the change was heard. After an alert was cleared, a master that still sees it wrong waits for
`settle_ms` before it raises it anew, for masters do not see the same in the same moment.

A server that came back without its data has cleared nothing: the record is written back, silently, by the master whose
it was, else by another once the lease is over; so an alert that was raised is told as cleared, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from antiphon.decide.alerts import Alert, Phase


@dataclass(frozen=True, slots=True)
class AnnounceBounds:
    """The times of the shared records, in milliseconds."""

    renew_ms: int = 10_000
    lease_ms: int = 30_000
    settle_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class Record:
    """One alert that is open, as the bucket holds it."""

    id: str
    kind: str
    subject: str
    severity: str
    value: float
    text: str
    since_ms: int
    """Wall clock of whoever raised it, UTC."""
    by: str
    """The master that raised or adopted it."""
    renewed: int = 0
    """How often it was written anew: so that no renewal is the same as the last."""


@dataclass(frozen=True, slots=True)
class Swap:
    """Write (or without a record delete) if the revision is still this one, then tell the phase, if any."""

    id: str
    record: Record | None
    revision: int
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    record: Record
    revision: int
    """0: the server has lost it."""
    heard_ms: int


class Board:
    """The shared records as one master knows them; changed in place."""

    def __init__(self, me: str, bounds: AnnounceBounds | None = None) -> None:
        self.me = me
        self.bounds = bounds or AnnounceBounds()
        self._seen: dict[str, _Seen] = {}
        self._mine: set[str] = set()
        self._cleared: dict[str, int] = {}

    @property
    def open(self) -> tuple[Record, ...]:
        """Every alert that is open, by id."""
        return tuple(seen.record for _, seen in sorted(self._seen.items()))

    def heard(self, name: str, record: Record | None, revision: int, now_ms: int) -> None:
        """Take a change of the bucket."""
        if record is None:
            self._gone(name, now_ms)
            return
        known = self._seen.get(name)
        if known is not None and record.by == self.me == known.record.by and record.renewed < known.record.renewed:
            return  # an own write that is reported after the next one; revisions do not tell, a new server counts anew
        self._seen[name] = _Seen(record, revision, now_ms)
        if record.by != self.me:
            self._mine.discard(name)

    def lost(self, name: str) -> None:
        """Take it that nobody has cleared an alert, but the server has lost its record."""
        known = self._seen.get(name)
        if known is not None:
            self._seen[name] = replace(known, revision=0)

    def swapped(self, swap: Swap, revision: int | None, now_ms: int) -> None:
        """Take what became of a write; after a lost one the watch says what is there."""
        if revision is None:
            return
        if swap.record is None:
            self._gone(swap.id, now_ms)
            return
        self._mine.add(swap.id)
        self._seen[swap.id] = _Seen(swap.record, revision, now_ms)

    def due(
        self, wrong: Mapping[str, Record], began_ms: Mapping[str, int], reminded: Collection[str], now_ms: int
    ) -> list[Swap]:
        """Return what is to be written now.

        Args:
            wrong: what this master sees wrong, as it would be recorded.
            began_ms: since when, by this master's clock.
            reminded: of which of them it is time to remind.
            now_ms: the time.
        """
        swaps: list[Swap] = []
        for name, record in wrong.items():
            if name in reminded and name in self._mine:
                swaps.append(self._renewed(name, record, Phase.REMINDED))
            elif swap := self._raised(name, record, began_ms[name], now_ms):
                swaps.append(swap)
        for name, seen in self._seen.items():
            if name not in wrong and (name in self._mine or self._is_stale(seen, now_ms)):
                # what the server has lost is written back first: only whoever deletes a record tells that it is over
                swaps.append(
                    Swap(name, None, seen.revision, Phase.CLEARED)
                    if seen.revision
                    else self._renewed(name, seen.record, None)
                )
        return swaps

    def _raised(self, name: str, record: Record, began_ms: int, now_ms: int) -> Swap | None:
        seen = self._seen.get(name)
        if seen is None:
            cleared_ms = self._cleared.get(name)
            is_settled = cleared_ms is None or began_ms > cleared_ms or now_ms - cleared_ms >= self.bounds.settle_ms
            return Swap(name, record, 0, Phase.RAISED) if is_settled else None
        if name in self._mine:
            is_due = not seen.revision or now_ms - seen.heard_ms >= self.bounds.renew_ms
        else:
            is_due = self._is_stale(seen, now_ms)
        return self._renewed(name, record, None) if is_due else None

    def _renewed(self, name: str, record: Record, phase: Phase | None) -> Swap:
        """Write what is seen now; since when it is wrong stays as it was told."""
        seen = self._seen[name]
        renewed = replace(record, since_ms=seen.record.since_ms, by=self.me, renewed=seen.record.renewed + 1)
        return Swap(name, renewed, seen.revision, phase)

    def _is_stale(self, seen: _Seen, now_ms: int) -> bool:
        return now_ms - seen.heard_ms >= self.bounds.lease_ms

    def _gone(self, name: str, now_ms: int) -> None:
        if self._seen.pop(name, None) is not None:
            self._cleared[name] = now_ms
        self._mine.discard(name)
        settled = now_ms - self.bounds.settle_ms
        self._cleared = {one: at for one, at in self._cleared.items() if at > settled}


def record(alert: Alert, value: float, text: str, *, since_wall_ms: int, me: str) -> Record:
    """Return an alert as the bucket holds it, with the value and the text of now."""
    return Record(
        id=alert.id,
        kind=alert.kind,
        subject=alert.subject,
        severity=alert.severity.value,
        value=value,
        text=text,
        since_ms=since_wall_ms,
        by=me,
    )
