"""The auditor of the chaos: reads the streams and the ledgers, and says whatever should not be."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from antiphon.decide.saga import fold, moves
from antiphon.decide.saga_log import Entry, Way
from antiphon.decide.saga_state import Saga
from antiphon.messages.saga_history import SagaEnded

Ledger = Counter[tuple[str, str, str]]
"""How often (saga, step, way) has had its effect."""


def ledger(paths: Iterable[Path]) -> Ledger:
    """Return what all ledgers say."""
    found: Ledger = Counter()
    for path in paths:
        connection = sqlite3.connect(path, timeout=30)
        found.update((saga, step, way) for saga, step, way in connection.execute("SELECT * FROM effects"))
        connection.close()
    return found


def faults_of(name: str, entries: list[Entry], done: Ledger) -> Iterator[str]:
    """Yield what is wrong with one saga."""
    saga = Saga(name)
    for entry in entries:
        saga = fold(saga, entry)
    if saga.start is None or saga.plan is None:
        yield "it is not there"
        return
    if saga.end is None:
        yield "it has not ended"
        return
    yield from _history(saga, entries)
    yield from _effects(saga, saga.end, done)


def _history(saga: Saga, entries: list[Entry]) -> Iterator[str]:
    """Yield what is illegal in a history."""
    links = sorted((entry for entry in entries if entry.is_link), key=lambda entry: entry.seq)
    if not isinstance(links[-1].event, SagaEnded):
        yield f"something was written after its end: {links[-1].event}"
    if moves(saga, saga.newest_ms + 10**9):
        yield "it has ended and would go on"
    commands = sorted(saga.commands.values(), key=lambda command: command.seq)
    ways = [command.ticket.way for command in commands]
    if Way.BACK in ways and Way.FORTH in ways[ways.index(Way.BACK) :]:
        yield "something was done after it had begun to be undone"
    first = {one.ticket.step: one.seq for one in reversed(commands) if one.ticket.way == Way.FORTH}
    undone = [one.ticket.step for one in commands if str(one.ticket).endswith(Way.BACK)]
    if any(step not in first for step in undone):
        yield "something was undone that had not been commanded"
    elif undone != sorted(undone, key=lambda step: -first[step]):
        yield f"undone in the wrong order: {undone}"
    for one in commands:
        if saga.outcome(one.ticket) is None:
            yield f"{one.ticket} has no outcome"


def _effects(saga: Saga, end: SagaEnded, done: Ledger) -> Iterator[str]:
    """Yield where the ledgers do not say what the end does."""
    assert saga.plan is not None
    for step in saga.plan.definition.steps:
        forth, back = done[saga.id, step.name, "do"], done[saga.id, step.name, "undo"]
        if end.state == "completed":
            if (forth, back) != (1, 0):
                yield f"completed, and {step.name} was done {forth} times and undone {back} times"
        elif (forth, back) not in ((0, 0), (1, 1)):
            yield f"{end.state}, and {step.name} was done {forth} times and undone {back} times"


def faults(found: Mapping[str, list[Entry]], done: Ledger) -> list[str]:
    """Return all that is wrong with all sagas."""
    wrong = [f"{name}: {fault}" for name, entries in found.items() for fault in faults_of(name, entries, done)]
    strangers = {saga for saga, _, _ in done} - set(found)
    return wrong + [f"{name}: has effects and was never accepted" for name in sorted(strangers)]
