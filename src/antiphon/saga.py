"""A saga: steps on several systems that are all done, or whose effects are undone again.

```python
from antiphon import Saga

checkout = (
    Saga("checkout")
    .step("verify_user", node="users", params={"user": "{{input.user}}"})
    .step("charge_card", node="payments", params={"amount": "{{input.amount}}"}, compensate="refund_card")
    .step("send_receipt", node="mail", params={"charge": "{{steps.charge_card.result.id}}"})
)
assert [step.name for step in checkout.definition.steps] == ["verify_user", "charge_card", "send_receipt"]
```

A saga is data: `checkout.definition` is what is sent, `Saga.load("checkout.toml")` reads the same from a file, and
`checkout.submission({"user": "u1", "amount": 5}, id="order-4711")` is the message that begins one. Steps follow each
other unless `after` says otherwise; a saga of one step is a durable action.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict, TypeVar

from pydantic import JsonValue, ValidationError

from antiphon.decide.saga_file import parse, reasons
from antiphon.decide.saga_plan import checked, plan, problems
from antiphon.errors import InvalidSaga
from antiphon.messages.base import Message
from antiphon.messages.saga import SagaCompensation, SagaDefinition, SagaRetry, SagaStep
from antiphon.messages.saga_desk import SagaProblem, SagaSubmit

M = TypeVar("M", bound=Message)

DEADLINE_MS: Final = 3_600_000


class SubmitWords(TypedDict, total=False):
    """Under which id a saga begins, and when."""

    id: str | None
    delay_ms: int
    start_at_ms: int
    wait: bool


class Saga:
    """A saga as it is written; it never changes, each `step` returns a longer one.

    Args:
        name: what sagas of this sort are called in listings.
        description: a sentence or two for people.
        deadline_ms: from its start; what is not past its pivot by then is undone. Default: an hour.
        steps: the first ones, where they are there as messages.

    Raises:
        InvalidSaga: a word is out of its bounds; here, and from `step`.
    """

    def __init__(
        self, name: str, *, description: str = "", deadline_ms: int = DEADLINE_MS, steps: Sequence[SagaStep] = ()
    ) -> None:
        self.name = name
        self.description = description
        self.deadline_ms = deadline_ms
        self.steps = tuple(steps)
        _made(SagaDefinition, self._said(self.steps or (SagaStep(name="first", action="first"),)), f"saga {name}")

    def step(
        self,
        name: str,
        action: str | None = None,
        *,
        node: str | None = None,
        where: str | None = None,
        params: Mapping[str, JsonValue] | None = None,
        after: str | Sequence[str] | None = None,
        timeout_ms: int | None = None,
        retry: SagaRetry | None = None,
        compensate: str | SagaCompensation | None = None,
        critical: bool = True,
        pivot: bool = False,
    ) -> Saga:
        """Return this saga with one more step.

        Args:
            name: what later steps refer to it by.
            action: what its node is asked to do; default: the step's name.
            node: who does it.
            where: or an expression over nodes' metadata, `region=eu`; one is picked when the saga is submitted.
            params: may refer to `{{input.NAME}}` and `{{steps.NAME.result.PATH}}`.
            after: the steps that must be done; default: the one before, `()`: none.
            timeout_ms: until its outcome is taken for unknown. Default: 30 s.
            retry: how often its node tries. Default: 3 times.
            compensate: the action that undoes it; with params, a timeout or a policy of its own a `SagaCompensation`.
            critical: else it is best effort, and the saga goes on whatever becomes of it.
            pivot: once it is done there is no way back.
        """
        given: dict[str, Any] = {
            "node": node,
            "where": where,
            "params": params,
            "after": (after,) if isinstance(after, str) else after,
            "timeout_ms": timeout_ms,
            "retry": retry,
            "compensate": SagaCompensation(action=compensate) if isinstance(compensate, str) else compensate,
        }
        said = {key: value for key, value in given.items() if value is not None}
        flags = {"critical": critical, "pivot": pivot}
        step = _made(SagaStep, {"name": name, "action": action or name, **said, **flags}, f"step {name}")
        return Saga(self.name, description=self.description, deadline_ms=self.deadline_ms, steps=(*self.steps, step))

    @property
    def definition(self) -> SagaDefinition:
        """What is sent; raises `InvalidSaga` with everything that is wrong with it, one problem a line."""
        return checked(self.unchecked)

    @property
    def problems(self) -> tuple[SagaProblem, ...]:
        """Everything that is wrong with it; nothing: it may be submitted."""
        return problems(self.unchecked)

    @property
    def waves(self) -> tuple[tuple[str, ...], ...]:
        """The names of its steps wave by wave: those of one may run at once."""
        return plan(self.definition).waves()

    def submission(
        self,
        input: Mapping[str, JsonValue] | None = None,  # noqa: A002 - it is what references call it
        *,
        id: str | None = None,  # noqa: A002 - it is what the wire calls it
        delay_ms: int = 0,
        start_at_ms: int = 0,
        wait: bool = False,
    ) -> SagaSubmit:
        """Return the message that begins one.

        Args:
            input: what `{{input.NAME}}` refers to.
            id: the idempotency key: the same id again is the same saga.
            delay_ms: begin so much later.
            start_at_ms: begin no earlier than this, UTC.
            wait: have the answer when it has ended.

        Raises:
            InvalidSaga: it makes no sense, by itself or with this input.
        """
        given = dict(input or {})
        said = {"id": id, "definition": checked(self.unchecked, given), "input": given, "wait": wait}
        return _made(SagaSubmit, {**said, "delay_ms": delay_ms, "start_at_ms": start_at_ms}, "submission")

    @classmethod
    def load(cls, path: str | Path) -> Saga:
        """Return the saga of a file, `.json` or `.toml`.

        Raises:
            InvalidSaga: the file cannot be read, is neither, has a key that there is none of, or makes no sense.
        """
        return cls.of(checked(read(path)))

    @classmethod
    def of(cls, definition: SagaDefinition) -> Saga:
        """Return the saga of a definition, to make a longer one of it or to submit it."""
        return cls(
            definition.name,
            description=definition.description,
            deadline_ms=definition.deadline_ms,
            steps=definition.steps,
        )

    @property
    def unchecked(self) -> SagaDefinition:
        """What would be sent, whether or not its steps make sense together."""
        return _made(SagaDefinition, self._said(self.steps), f"saga {self.name}")

    def _said(self, steps: tuple[SagaStep, ...]) -> dict[str, Any]:
        own = {"name": self.name, "description": self.description, "deadline_ms": self.deadline_ms}
        return {**own, "steps": steps}

    def __repr__(self) -> str:
        return f"Saga({self.name!r}, {len(self.steps)} steps)"


def read(path: str | Path) -> SagaDefinition:
    """Return what a file says, `.json` or `.toml`, whether or not its steps make sense together.

    Raises `InvalidSaga` for a file that cannot be read, is neither, or has a key or a value that is none.
    """
    file = Path(path)
    readers = {".json": json.loads, ".toml": tomllib.loads}
    if file.suffix not in readers:
        raise InvalidSaga(f"{file}: a saga is a .toml or a .json file")
    try:
        return parse(readers[file.suffix](file.read_text(encoding="utf-8")), file.name)
    except (OSError, ValueError) as error:
        raise InvalidSaga(f"{file}: {error}") from None
    except RecursionError:
        raise InvalidSaga(f"{file}: too deep to read") from None


def _made(kind: type[M], said: Mapping[str, Any], name: str) -> M:
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        raise InvalidSaga(reasons(error, name)) from None
