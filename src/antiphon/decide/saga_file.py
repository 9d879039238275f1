"""A saga as a file says it, JSON or TOML: the same words as on the wire, and a mistyped one is refused.

    name = "checkout"

    [[steps]]
    name = "charge"
    node = "payments"
    action = "charge_card"
    params = { amount = "{{input.amount}}" }
    compensate = { action = "refund" }

Messages are read with unknown fields ignored, so that an older reader understands a newer writer. A file is written by
a person, for this version, and `compensatte` is no compensation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast

from pydantic import BaseModel, ValidationError

from antiphon.errors import InvalidSaga
from antiphon.messages.saga import SagaCompensation, SagaDefinition, SagaRetry, SagaStep

ERRORS_SHOWN_MAX: Final = 10
NESTED: Final[dict[tuple[type[BaseModel], str], type[BaseModel]]] = {
    (SagaDefinition, "steps"): SagaStep,
    (SagaStep, "retry"): SagaRetry,
    (SagaStep, "compensate"): SagaCompensation,
    (SagaCompensation, "retry"): SagaRetry,
}
"""Which fields hold what is read by a model of its own; params are the handler's and may have any name."""


def parse(content: object, name: str = "saga.toml") -> SagaDefinition:
    """Return the saga that a file says; whether its steps make sense together is `saga_plan.problems`' to say.

    Raises `InvalidSaga` with the path of each key that is unknown or wrong, one a line.
    """
    unknown = [f"{name}: {path}: there is no such key" for path in _unknown(SagaDefinition, content)]
    if unknown:
        raise InvalidSaga(_shown(unknown))
    try:
        return SagaDefinition.model_validate(content)
    except ValidationError as error:
        raise InvalidSaga(reasons(error, name)) from None


def reasons(error: ValidationError, name: str) -> str:
    """Return what is wrong with values, one a line, without the values."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)
    return _shown([f"{name}: {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in wrong])


def _shown(lines: list[str]) -> str:
    more = [f"and {len(lines) - ERRORS_SHOWN_MAX} more"] if len(lines) > ERRORS_SHOWN_MAX else []
    return "\n".join(lines[:ERRORS_SHOWN_MAX] + more)


def _unknown(kind: type[BaseModel], content: object, path: str = "") -> Iterator[str]:
    if isinstance(content, list):
        for at, one in enumerate(cast("list[object]", content)):
            yield from _unknown(kind, one, f"{path}{at}.")
    elif isinstance(content, Mapping):
        for key, value in cast("Mapping[str, object]", content).items():
            if key not in kind.model_fields:
                yield f"{path}{key}"
            elif (kind, key) in NESTED:
                yield from _unknown(NESTED[kind, key], value, f"{path}{key}.")
