"""The row that a message of a saga's history becomes; its time is the broker's, as everything in a history."""

from __future__ import annotations

from collections.abc import Mapping
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


def row(subject: str, data: bytes, place: Place, prefix: str) -> Row:
    """Return the row of `saga_events`; raises `Malformed` for a subject that is none of a history."""
    for kind, event in EVENTS.items():
        try:
            keys = kind.route.template.parse(subject, prefix=prefix)
        except AntiphonError:
            continue
        fact: Any = kind.__pydantic_validator__.validate_json(data)
        return (*place.row(place.at_ms), keys["saga"], event, keys.get("ticket"), *_told(fact, keys))
    raise Malformed(f"{subject[:120]!r} is no subject of a saga's history")


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
