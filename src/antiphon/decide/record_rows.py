"""The rows that a fact becomes: pure, typed by the message that it is, in the order of the table's columns.

What is not a legal message of its kind becomes no row but a dead fact, with its bytes and the reason, so that nothing
is lost in silence and one bad fact stops nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from antiphon.messages.alerts import AlertCleared, AlertRaised
from antiphon.messages.base import Message
from antiphon.messages.breakers import BreakerMoved
from antiphon.messages.facts import InstanceChanged, NodeChanged, SearchFinished
from antiphon.messages.identities import IdentityAudited
from antiphon.messages.jobs import ActionFinished
from antiphon.messages.policy import PolicyChanged
from antiphon.messages.records import FactsDropped
from antiphon.messages.saga_facts import SagaMoved

Row = tuple[Any, ...]
Hide = Callable[[str], str | None]
"""What is stored of a query's text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a fact stands: its stream, the message's sequence, its index within, and who wrote it."""

    stream: str
    sequence: int
    index: int
    writer: str
    at_ms: int
    """The server's time, UTC."""

    def row(self, at_ms: int) -> Row:
        """Return the values of the columns that every table of facts begins with."""
        return (timestamp(at_ms), self.writer, self.sequence, self.index)


def timestamp(at_ms: int) -> datetime:
    """Return UTC without a zone, as the tables keep it.

    >>> timestamp(1_500)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 500000)
    """
    return datetime.fromtimestamp(at_ms / 1_000, UTC).replace(tzinfo=None)


def as_is(query: str) -> str | None:
    """Return the query's text."""
    return query


def _search(fact: SearchFinished, place: Place, hide: Hide) -> Iterator[tuple[str, Row]]:
    where, covered = place.row(fact.at_ms), fact.coverage
    told: Row = (None,) * 8
    if covered is not None:
        told = (
            covered.expected, covered.answered, covered.empty, covered.failed, covered.timed_out,
            covered.skipped_open, covered.hedged, list(covered.degraded),
        )  # fmt: skip
    slow = max(fact.nodes, key=lambda line: line.took_us, default=None)
    blame: Row = (None,) * 3 if slow is None else (slow.node, slow.took_us, slow.outcome.value)
    yield "requests", (
        *where, fact.request, fact.caller, fact.delegate, hide(fact.query), fact.code, fact.took_us, fact.hits,
        fact.total, fact.duplicates, fact.fusion, fact.complete, fact.sufficient, *told, *blame,
    )  # fmt: skip
    for line in fact.nodes:
        yield "node_replies", (
            *where, fact.request, line.node, line.instance, line.outcome.value, line.hits,
            fact.contributed.get(line.node, 0), line.took_us, line.code, line.text, line.attempts, list(line.flags),
            line.reply_bytes, line.hedge, line.wasted_us, line.cached,
        )  # fmt: skip


def _action(fact: ActionFinished, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    where, counts = place.row(fact.at_ms), fact.counts
    ends = (counts.succeeded, counts.failed, counts.no_answer, counts.skipped, counts.cancelled)
    yield "actions", (
        *where, fact.request, fact.job, fact.action, fact.caller, fact.delegate, fact.effect and fact.effect.value,
        fact.dry_run, fact.took_us, fact.end and fact.end.value, fact.code, fact.by,
        sum(ends) + counts.waiting + counts.running, *ends,
    )  # fmt: skip
    for line in fact.nodes:
        yield "action_runs", (
            *where, fact.request, fact.job, fact.action, line.node, line.instance, line.state.value, line.attempts,
            line.took_us, line.code, line.text,
        )  # fmt: skip


def _breaker(fact: BreakerMoved, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    moved = (fact.node, fact.instance, fact.verb, fact.state, fact.reason)
    yield "breaker_transitions", (*place.row(fact.at_ms), *moved)


def _instance(fact: InstanceChanged, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    yield "registry_events", (*place.row(fact.at_ms), fact.node, fact.instance, fact.change, None, [])


def _node(fact: NodeChanged, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    yield "registry_events", (*place.row(fact.at_ms), fact.node, None, fact.change, fact.by, list(fact.fields))


def _raised(fact: AlertRaised, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    event = "reminded" if fact.is_reminder else "raised"
    yield "alerts", _alert(fact, place, event)


def _cleared(fact: AlertCleared, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    yield "alerts", _alert(fact, place, "cleared")


def _alert(fact: AlertRaised | AlertCleared, place: Place, event: str) -> Row:
    alert = fact.alert
    return (
        *place.row(fact.at_ms), alert.id, event, alert.kind, alert.subject, alert.severity, alert.value, alert.text,
        timestamp(alert.since_ms), alert.master,
    )  # fmt: skip


def _identity(fact: IdentityAudited, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    told = (fact.what, fact.who, fact.kind, fact.instance, fact.why, fact.where, fact.by, fact.credential)
    yield "identity_events", (*place.row(fact.at_ms), *told)


def _policy(fact: PolicyChanged, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    told = ("policy_changed", "policy", None, None, "", "", fact.by, None)
    yield "identity_events", (*place.row(fact.at_ms), *told)


def _saga(fact: SagaMoved, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    cause = fact.cause
    yield "saga_moves", (
        *place.row(fact.at_ms), fact.saga, fact.name, fact.caller, str(fact.turn), str(fact.state), fact.took_ms,
        fact.step, cause and cause.reason, fact.code or (cause and cause.code), fact.text or (cause and cause.text),
        list(fact.left),
    )  # fmt: skip


def _lost(fact: FactsDropped, place: Place, _hide: Hide) -> Iterator[tuple[str, Row]]:
    yield "fact_losses", (*place.row(fact.at_ms), fact.dropped, fact.total)


ROWS: Final[Mapping[type[Message], Any]] = {
    SearchFinished: _search,
    ActionFinished: _action,
    BreakerMoved: _breaker,
    InstanceChanged: _instance,
    NodeChanged: _node,
    AlertRaised: _raised,
    AlertCleared: _cleared,
    IdentityAudited: _identity,
    PolicyChanged: _policy,
    FactsDropped: _lost,
    SagaMoved: _saga,
}
KINDS: Final[Mapping[str, type[Message]]] = {kind.__name__: kind for kind in ROWS}
"""The facts that have rows, by name; any other is a dead fact until a recorder knows it."""


def rows(fact: Message, place: Place, hide: Hide = as_is) -> Iterator[tuple[str, Row]]:
    """Yield the table and the values of every row that a fact becomes."""
    made: Iterator[tuple[str, Row]] = ROWS[type(fact)](fact, place, hide)
    return made
