"""Golden histories: sagas as versions of this package have written them, which every later version must read alike.

    python tests/golden_sagas.py              # lists the scenarios and which of them have a file
    python tests/golden_sagas.py NAME...      # writes tests/golden/sagas/NAME.jsonl, and never over one that is there
    python tests/golden_sagas.py --missing    # writes all that have none

A file is lines of JSON: what it is about, then each stored message, then the view of the saga after all of them. To
keep what this version does, add a scenario, or give an old one a new name: a file that has been written stays as it
is, for somewhere a stream holds just that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue

from antiphon.decide.saga_view import view
from antiphon.errors import HandlerFailed, InvalidReply
from antiphon.messages.saga import SagaCompensation, SagaRetry
from antiphon.messages.saga_desk import SagaView
from antiphon.messages.saga_history import StepCommanded
from antiphon.saga import Saga
from antiphon.testing.rehearsal import Handler, Kept, NoAnswer, Rehearsal, failing
from saga_storm import storm

FOLDER: Final = Path(__file__).parent / "golden" / "sagas"
FORMAT: Final = 1
ONCE = SagaRetry(attempts_max=1, rounds_max=1)
TWICE = SagaRetry(attempts_max=1, rounds_max=2, base_ms=100)
INPUT: dict[str, JsonValue] = {"user": "u1", "amount": 5, "tags": ["a", {"b": None}]}

CHECKOUT = (
    Saga("checkout", description="Charge a card and say so", deadline_ms=600_000)
    .step("verify_user", node="users", params={"user": "{{input.user}}"})
    .step("charge_card", node="payments", params={"amount": "{{input.amount}}"}, compensate="refund_card")
    .step("ship", node="store", params={"charge": "{{steps.charge_card.result.id}}"}, compensate="unship")
    .step("send_receipt", node="mail", params={"text": "{{input.user}} paid {{input.amount}}"}, retry=TWICE)
)
ORDER = (
    Saga("order")
    .step("reserve", node="store", compensate="release")
    .step("pay", node="payments", pivot=True, retry=TWICE)
    .step("ship", node="store", retry=TWICE)
    .step("tell", node="mail", critical=False, retry=ONCE)
)
STUBBORN = (
    Saga("stubborn")
    .step("charge", node="payments", compensate=SagaCompensation(action="refund", retry=TWICE))
    .step("fail", node="mail", retry=ONCE)
)
DIAMOND = (
    Saga("diamond")
    .step("first", node="a", compensate="unfirst")
    .step("left", node="a", after="first", compensate="unleft")
    .step("right", node="b", after="first", compensate="unright")
    .step("join", node="a", after=["left", "right"], params={"of": ["{{steps.left.result}}", "{{steps.right.result}}"]})
)


def good(command: StepCommanded) -> JsonValue:
    return {"id": f"{command.step}-7"}


def bad(_command: StepCommanded) -> JsonValue:
    raise HandlerFailed("on fire")


def refused(_command: StepCommanded) -> JsonValue:
    raise InvalidReply("never that way")


def dead(_command: StepCommanded) -> JsonValue:
    raise NoAnswer


def rehearse(saga: Saga, *, delay_ms: int = 0, **other: Handler) -> Rehearsal:
    actions = {step.action for step in saga.steps} | {step.compensate.action for step in saga.steps if step.compensate}
    return Rehearsal(saga, dict.fromkeys(actions, good) | other, INPUT, id=f"golden-{saga.name}", delay_ms=delay_ms)


def ordering(rehearsal: Rehearsal, action: str, order: str, then: Handler = good) -> Rehearsal:
    """The same, with an order that comes while an action runs."""

    def handler(command: StepCommanded) -> JsonValue:
        rehearsal.order(order, text=f"while {action} ran")
        return then(command)

    rehearsal.handlers[action] = handler
    return rehearsal


def after(
    rehearsal: Rehearsal,
    order: str,
    step: str | None = None,
    *,
    text: str = "",
    outcome: str = "succeeded",
    result: JsonValue = None,
) -> Rehearsal:
    """The same, with an order that comes when it has come to rest."""
    rehearsal.run()
    rehearsal.order(order, step, text=text, outcome=outcome, result=result)
    return rehearsal


def early(rehearsal: Rehearsal, order: str) -> Rehearsal:
    """The same, with an order that comes a second after it was submitted."""
    rehearsal.run(until_ms=1_000)
    rehearsal.order(order)
    return rehearsal


SCENARIOS: Final[dict[str, Callable[[], Rehearsal]]] = {
    "happy": lambda: rehearse(CHECKOUT),
    "durable-action": lambda: rehearse(Saga("reindex").step("reindex", node="blog")),
    "durable-action-failed": lambda: rehearse(Saga("reindex").step("reindex", node="blog"), reindex=refused),
    "retry": lambda: rehearse(CHECKOUT, charge_card=failing(2, {"id": "third"})),
    "compensation": lambda: rehearse(CHECKOUT, send_receipt=bad),
    "unknown-outcome": lambda: rehearse(CHECKOUT, charge_card=dead),
    "parked-and-resolved": lambda: after(rehearse(STUBBORN, fail=bad, refund=bad), "resolve", text="done by hand"),
    "parked-and-retried": lambda: after(rehearse(STUBBORN, fail=bad, refund=failing(2)), "retry", "charge"),
    "skipped": lambda: after(rehearse(STUBBORN, fail=bad, refund=bad), "skip", "charge"),
    "abandoned": lambda: after(rehearse(STUBBORN, fail=bad, refund=refused), "abandon", text="the bank is gone"),
    "parked": lambda: rehearse(STUBBORN, fail=bad, refund=refused),
    "pivot": lambda: rehearse(ORDER, ship=failing(1, "sent")),
    "pivot-failed": lambda: rehearse(ORDER, pay=refused),
    "pivot-unknown": lambda: rehearse(ORDER, pay=dead),
    "pivot-unknown-and-failed": lambda: after(rehearse(ORDER, pay=dead), "resolve", "pay", outcome="failed"),
    "past-the-pivot-by-hand": lambda: after(rehearse(ORDER, ship=bad), "resolve", "ship", result={"id": "by hand"}),
    "best-effort": lambda: rehearse(ORDER, tell=bad),
    "dag": lambda: rehearse(DIAMOND),
    "dag-with-a-failing-branch": lambda: rehearse(DIAMOND, right=refused),
    "cancelled": lambda: ordering(rehearse(CHECKOUT), "charge_card", "cancel"),
    "cancelled-before-it-began": lambda: early(rehearse(CHECKOUT, delay_ms=60_000), "cancel"),
    "paused": lambda: ordering(rehearse(CHECKOUT), "charge_card", "pause"),
    "paused-and-resumed": lambda: after(ordering(rehearse(CHECKOUT), "charge_card", "pause"), "resume"),
    "deadline": lambda: rehearse(
        Saga("late", deadline_ms=5_000)
        .step("a", node="n", compensate="undo_a")
        .step("b", node="n", timeout_ms=60_000, compensate="undo_b"),
        b=dead,
    ),
    "delayed-start": lambda: rehearse(CHECKOUT, delay_ms=60_000),
    "unresolved": lambda: rehearse(
        Saga("typo")
        .step("a", node="n", compensate="undo_a")
        .step("b", node="n", params={"x": "{{steps.a.result.missing}}"})
    ),
}
STORMS: Final = {
    "storm-completed": 240,
    "storm-compensated": 277,
    "storm-by-hand": 261,
    "storm-together-completed": 322,
    "storm-together-compensated": 77,
}
"""Histories that several coordinators wrote under faults, by their seeds."""


def recorded(name: str) -> tuple[str, list[Kept], SagaView]:
    """What a scenario writes: the saga's id, what is stored, and how it stands after it."""
    if name in STORMS:
        world = storm(STORMS[name])
        shown = view(world.saga, world.saga.newest_ms, has_history=True)
        assert shown is not None
        return world.saga.id, world.journal.kept, shown
    rehearsal = SCENARIOS[name]()
    rehearsal.run()
    shown = view(rehearsal.stored, rehearsal.stored.newest_ms, has_history=True)
    assert shown is not None
    return rehearsal.journal.saga, rehearsal.journal.kept, shown


def lines(name: str) -> list[str]:
    saga, kept, shown = recorded(name)
    head: dict[str, Any] = {"format": FORMAT, "saga": saga, "about": name.replace("-", " ")}
    stored = [
        {"stream": one.stream, "subject": one.subject, "seq": one.seq, "at_ms": one.at_ms, "said": json.loads(one.data)}
        for one in kept
    ]
    whole = [head, *stored, {"view": json.loads(shown.model_dump_json(exclude_none=True))}]
    return [json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in whole]


def write(name: str, folder: Path = FOLDER) -> Path:
    """Write a golden history; raises `FileExistsError` where there is one."""
    path = folder / f"{name}.jsonl"
    text = "\n".join(lines(name)) + "\n"
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
    return path


def read(path: Path) -> tuple[str, list[Kept], dict[str, Any]]:
    """Return what a golden history holds: the saga's id, what was stored, the view as it was then."""
    head, *stored, last = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert head["format"] == FORMAT
    kept = [
        Kept(one["stream"], one["subject"], one["seq"], one["at_ms"], json.dumps(one["said"]).encode())
        for one in stored
    ]
    return head["saga"], kept, last["view"]


def main(arguments: list[str]) -> int:
    known = [*SCENARIOS, *STORMS]
    missing = [name for name in known if not (FOLDER / f"{name}.jsonl").exists()]
    names = missing if arguments == ["--missing"] else arguments
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        print("\n".join(f"{'     ' if name in missing else 'there'} {name}" for name in known))
        return 1 if unknown else 0
    for name in names:
        try:
            print(write(name))
        except FileExistsError:
            print(f"{name} is there, and stays: write what this version does under a new name", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
