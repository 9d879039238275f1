"""The rows that a message of a saga's history becomes; their time is the broker's, as everything in a history.

Each becomes one, and one more for what is stored with it: the first command of a start, the outcome that a link
follows from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from antiphon.decide.record_rows import Place, Row
from antiphon.errors import AntiphonError, Malformed
from antiphon.messages.base import Fact
from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaParked,
    SagaResumed,
    SagaStarted,
    StepCommanded,
    StepOffered,
    StepOutcome,
)

EVENTS: Final[Mapping[type[Fact], str]] = {
    SagaStarted: "started",
    StepCommanded: "commanded",
    SagaParked: "parked",
    SagaResumed: "resumed",
    SagaEnded: "ended",
    SagaOrdered: "ordered",
    StepOffered: "offered",
    StepOutcome: "outcome",
}
"""What each message is called in the table.

What a master writes when a command's time has passed (`StepVoided`) stands on the subject of the node's own word and
reads as one: an outcome that is unknown.
"""


def rows(subject: str, data: bytes, place: Place, prefix: str) -> Iterator[Row]:
    """Yield the rows of `saga_events`; raises `Malformed` for a subject that is none of a history."""
    for kind, event in EVENTS.items():
        try:
            keys = kind.route.template.parse(subject, prefix=prefix)
        except AntiphonError:
            continue
        fact: Any = kind.__pydantic_validator__.validate_json(data)
        yield _row(event, fact, place, keys)
        if isinstance(fact, SagaStarted) and fact.first is not None:
            node = next((one.node for one in fact.definition.steps if one.name == fact.first.step), None)
            ticket = fact.first.key.rpartition("/")[2]
            behind = replace(place, index=place.index + 1, writer=ticket)
            yield _row("commanded", fact.first, behind, keys | {"ticket": ticket, "node": node or ""})
        elif isinstance(fact, StepCommanded | SagaEnded) and fact.told is not None:
            told = fact.told
            behind = replace(place, index=place.index + 1, writer=told.node)
            yield _row("outcome", told.said, behind, keys | {"ticket": told.ticket, "node": told.node})
        return
    raise Malformed(f"{subject[:120]!r} is no subject of a saga's history")


def _row(event: str, fact: Any, place: Place, keys: Mapping[str, str]) -> Row:
    return (*place.row(place.at_ms), keys["saga"], event, keys.get("ticket"), *_told(fact, keys))


def _told(fact: Any, keys: Mapping[str, str]) -> Row:
    """Return the columns from `step` on; what a message does not say is null."""
    definition = getattr(fact, "definition", None)
    cause = getattr(fact, "cause", None)
    name = definition.name if definition is not None else getattr(fact, "name", None) or getattr(fact, "saga", None)
    state = getattr(fact, "outcome", None) if isinstance(fact, StepOutcome) else _state(fact)
    node = keys.get("node") or (keys.get("writer") if isinstance(fact, StepOutcome) else None)
    return (
        getattr(fact, "step", None),
        node,
        getattr(fact, "action", None),
        name,
        getattr(fact, "caller", None),
        state,
        cause.code if cause is not None else getattr(fact, "code", None),
        cause.reason if cause is not None else getattr(fact, "text", None),
        getattr(fact, "by", None),
        getattr(fact, "attempts", None),
        getattr(fact, "took_ms", None),
    )


def _state(fact: Any) -> str | None:
    if isinstance(fact, SagaEnded):
        return fact.state
    if isinstance(fact, StepCommanded):
        return "forward" if fact.undo is None else "backward"
    return getattr(fact, "order", None)
