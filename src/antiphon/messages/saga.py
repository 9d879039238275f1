"""What a saga is: steps on nodes, in an order, each with what undoes it; one is sent whole with its start.

A saga is data, so a deploy never changes one that runs. Steps follow each other as they are listed unless `after` says
otherwise. Params may refer to the saga's input and to what earlier steps returned: `{{input.user}}`,
`{{steps.charge.result.id}}` (`decide/saga_refs.py`). A saga of one step is a durable action. The idea is that of
Garcia-Molina and Salem, Sagas, 1987; the pivot is theirs who applied it to services (Richardson, Microservices
Patterns, 2018, chapter 4).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, Field, JsonValue
from pydantic_core import to_json

from antiphon.messages.base import Label, Message, Name, Text

STEPS_MAX: Final = 64
PARAMS_MAX: Final = 64
"""Names in one object of params or input."""
JSON_BYTES_MAX: Final = 32 * 1024
"""Of params, an input or a result: what is larger is kept elsewhere and referred to."""
DEPTH_MAX: Final = 16
TIMEOUT_MS_MIN: Final = 1_000
"""A deadline has to leave room for a redelivery (SAGAS.md, late effects)."""
TIMEOUT_MS_MAX: Final = 24 * 3_600_000
DEADLINE_MS_MAX: Final = 30 * 24 * 3_600_000
EXPRESSION_MAX: Final = 1_000
WHOLE_MAX: Final = 2**63


def _bounded(value: JsonValue) -> JsonValue:
    """Refuse what another language could not read back, or what is too deep or too large to keep."""
    _walk(value, DEPTH_MAX)
    if len(to_json(value)) > JSON_BYTES_MAX:
        raise ValueError(f"more than {JSON_BYTES_MAX} bytes of JSON")
    return value


def _walk(value: JsonValue, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError(f"more than {DEPTH_MAX} levels deep")
        for part in value.values() if isinstance(value, dict) else value:
            _walk(part, depth - 1)
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN is not equal to itself
            raise ValueError("NaN and infinities are not JSON")
    elif isinstance(value, int) and not -WHOLE_MAX <= value < WHOLE_MAX:
        raise ValueError("a whole number of more than 64 bits")


def bounded_params(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return params that are within their bounds; raise `ValueError` for others."""
    _bounded(dict(value))
    return value


Json = Annotated[JsonValue, AfterValidator(_bounded)]
"""Any JSON, of at most 32 KiB."""
Params = Annotated[dict[Label, JsonValue], AfterValidator(bounded_params), Field(max_length=PARAMS_MAX)]
Timeout = Annotated[int, Field(ge=TIMEOUT_MS_MIN, le=TIMEOUT_MS_MAX)]
Names = Annotated[tuple[Name, ...], Field(max_length=STEPS_MAX)]


ATTEMPTS_MAX: Final = 1_000
Attempts = Annotated[int, Field(ge=0, le=ATTEMPTS_MAX)]
"""Runs of the handler for one command, as its node tells; they are added up, so a node must not tell any number."""


class SagaRetry(Message):
    """How often and how fast something is tried again; the wait is drawn from zero to a cap that doubles each time."""

    attempts_max: int = Field(default=3, ge=1, le=ATTEMPTS_MAX, description="runs of the handler for one command")
    rounds_max: int = Field(
        default=3, ge=1, le=100, description="commands, where there is no other way: to undo, and after the pivot"
    )
    base_ms: int = Field(default=200, ge=1, le=3_600_000, description="the first wait is at most this")
    cap_ms: int = Field(default=30_000, ge=1, le=24 * 3_600_000, description="no wait is longer")


PATIENT: Final = SagaRetry(attempts_max=10, rounds_max=5, base_ms=500, cap_ms=60_000)
"""What undoes a step is tried for longer before a person is asked."""


class SagaCompensation(Message):
    """What undoes a step, on the step's own node; it is told what the step was given and what it returned."""

    action: Name
    params: Params = Field(default_factory=dict, description="besides the step's own; may refer to its result")
    timeout_ms: Timeout = 60_000
    retry: SagaRetry = PATIENT


class SagaStep(Message):
    """One action on one node."""

    name: Name
    node: Name | None = Field(default=None, description="who does it; or say `where`")
    where: Annotated[str, Field(max_length=EXPRESSION_MAX)] | None = Field(
        default=None, description="an expression over nodes' metadata; one node is picked when the saga is submitted"
    )
    action: Name
    params: Params = Field(default_factory=dict)
    after: Names | None = Field(default=None, description="steps that must be done; default: the one listed before")
    timeout_ms: Timeout = Field(default=30_000, description="from the command until its outcome is taken for unknown")
    retry: SagaRetry = SagaRetry()
    compensate: SagaCompensation | None = Field(default=None, description="without one there is nothing to undo")
    critical: bool = Field(default=True, description="else best effort: whatever becomes of it, the saga goes on")
    pivot: bool = Field(default=False, description="once it is done there is no way back, only forward")


class SagaDefinition(Message):
    """A saga as it is submitted."""

    size_max: ClassVar[int] = 256 * 1024
    name: Name
    description: Text = ""
    steps: Annotated[tuple[SagaStep, ...], Field(min_length=1, max_length=STEPS_MAX)]
    deadline_ms: int = Field(
        default=3_600_000,
        ge=TIMEOUT_MS_MIN,
        le=DEADLINE_MS_MAX,
        description="from its start; a saga that is not past its pivot by then is undone",
    )
