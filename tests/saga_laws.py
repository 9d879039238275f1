"""The laws of sagas, read off what two streams keep, by code that shares nothing with the fold.

`broken` goes over the messages in the order in which they were stored and says each law that one of them breaks: one
outcome a command, one end, no progress after it; nothing done before its turn; nothing undone that was not or may not
have been done; everything undone that must be, the last commanded first; no turning back without a reason, and none
past the pivot; a person is asked only where there is no other way, and answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from antiphon.decide.saga import GRACE_MS
from antiphon.testing.rehearsal import Kept

Leg = tuple[int, str, int]
"""Step's number, way, round."""


@dataclass
class Book:
    """What was stored so far."""

    saga: str
    start: dict[str, Any] = field(default_factory=dict)
    at_ms: int = 0
    chain: list[str] = field(default_factory=list)
    commands: dict[Leg, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[tuple[int, str, int, str], dict[str, Any]] = field(default_factory=dict)
    told: set[tuple[int, str, int, str]] = field(default_factory=set)
    """Outcomes that came with a link: what is said by itself besides counts no more."""
    acted: set[tuple[int, str, int, str]] = field(default_factory=set)
    """Outcomes that a link may have been written for: no other may take their place."""
    parks: dict[Leg, dict[str, Any]] = field(default_factory=dict)
    resumes: dict[Leg, dict[str, Any]] = field(default_factory=dict)
    orders: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: dict[str, Any] | None = None

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.start["definition"]["steps"])

    def step(self, number: int) -> dict[str, Any]:
        return self.steps[number - 1]

    def numbers(self) -> range:
        return range(1, len(self.steps) + 1)

    def after(self, number: int) -> list[int]:
        said = self.step(number).get("after")
        if said is None:
            return [number - 1] if number > 1 else []
        return [at for at in self.numbers() if self.step(at)["name"] in said]

    def behind(self, number: int) -> set[int]:
        """Every step that has to be done before."""
        found = set[int]()
        for at in self.after(number):
            found |= {at} | self.behind(at)
        return found

    @property
    def pivot(self) -> int:
        return next((at for at in self.numbers() if self.step(at).get("pivot")), 0)

    @property
    def begins_ms(self) -> int:
        return max(int(self.at_ms + self.start.get("delay_ms", 0)), int(self.start.get("start_at_ms", 0)))

    def is_critical(self, number: int) -> bool:
        return bool(self.step(number).get("critical", True))

    def outcome(self, leg: Leg) -> dict[str, Any] | None:
        command = self.commands.get(leg)
        return None if command is None else self.outcomes.get((*leg, command["node"]))

    def rounds(self, number: int, way: str) -> list[Leg]:
        legs = {leg for leg in (*self.commands, *self.parks) if leg[:2] == (number, way)}
        return sorted(legs, key=lambda leg: leg[2])

    def fate(self, number: int, way: str) -> str:
        said = [self.outcome(leg) for leg in self.rounds(number, way) if leg in self.commands]
        by_hand = [self.resumes[leg] for leg in self.rounds(number, way) if leg in self.resumes]
        for one in by_hand:
            if one["order"] == "skip":
                return "skipped"
            if one["order"] == "resolve":
                if one.get("outcome", "succeeded") == "succeeded":
                    return "succeeded"
                return "failed" if way == "f" and number == self.pivot else "skipped"
        kinds = ["running" if one is None else one["outcome"] for one in said]
        for kind in ("succeeded", "running", "unknown", "failed"):
            if kind in kinds:
                return kind
        return "failed" if self.rounds(number, way) or self.is_lost(number, way) else "waiting"

    def is_lost(self, number: int, way: str) -> bool:
        """Whether a step's turn came and its references point at nothing; the tests write such as `missing`."""
        if way == "b" or "missing" not in json.dumps(self.step(number).get("params", {})):
            return False
        return all(self.is_passed(at) for at in self.after(number)) and self.is_referred(number)

    def is_referred(self, number: int) -> bool:
        """Whether what it refers to has a result that something could be missing from; below null is null."""
        return all(
            self.result(at) is not None
            for at in self.behind(number)
            if f"steps.{self.step(at)['name']}.result.missing" in json.dumps(self.step(number)["params"])
        )

    def result(self, number: int) -> Any:
        for leg in self.rounds(number, "f"):
            told = self.outcome(leg)
            if told is not None and told["outcome"] == "succeeded":
                return told.get("result")
            if leg in self.resumes and self.resumes[leg]["order"] == "resolve":
                return self.resumes[leg].get("result")
        return None

    def is_passed(self, number: int) -> bool:
        fate = self.fate(number, "f")
        return fate in ("succeeded", "skipped") or (not self.is_critical(number) and fate in ("failed", "unknown"))

    @property
    def is_committed(self) -> bool:
        return bool(self.pivot) and self.fate(self.pivot, "f") in ("succeeded", "skipped")

    @property
    def is_undoing(self) -> bool:
        return any(leg[1] == "b" for leg in (*self.commands, *self.parks))

    def dispatched(self, number: int) -> int:
        """The place in the order of dispatch."""
        legs = [leg for leg in self.rounds(number, "f") if leg in self.commands]
        return min((int(self.commands[leg]["seq"]) for leg in legs), default=0)

    def to_undo(self) -> list[int]:
        return [
            at
            for at in self.numbers()
            if self.step(at).get("compensate") and self.fate(at, "f") in ("succeeded", "unknown")
        ]

    def is_over(self, number: int) -> bool:
        return self.fate(number, "b") in ("succeeded", "skipped")

    def has_reason(self, now_ms: int) -> bool:
        failed = any(self.is_critical(at) and self.fate(at, "f") in ("failed", "unknown") for at in self.numbers())
        is_cancelled = any(one["order"] == "cancel" for one in self.orders.values())
        deadline_ms = self.begins_ms + self.start["definition"].get("deadline_ms", 3_600_000)
        return failed or is_cancelled or now_ms >= deadline_ms

    @property
    def is_in_doubt(self) -> bool:
        """Whether nobody knows of the pivot, and nothing could undo it."""
        return bool(
            self.pivot and not self.step(self.pivot).get("compensate") and self.fate(self.pivot, "f") == "unknown"
        )


def broken(kept: Sequence[Kept], saga: str) -> list[str]:
    """Return every law that these messages break, in the order in which they were stored."""
    book = Book(saga)
    found: list[str] = []
    subjects = set[str]()
    for one in kept:
        if one.subject in subjects:
            found.append(f"{one.subject}: two messages on one subject")
        subjects.add(one.subject)
        tokens = one.subject.split(".")[2:]
        said = json.loads(one.data)
        if tokens[0] == "saga" and tokens[2] == "k":
            found += [f"{one.subject} (seq {one.seq}): {law}" for law in _link(book, tokens[3:], said, one)]
        elif tokens[0] == "saga" and tokens[2] == "x":
            book.orders[tokens[3]] = said
        elif tokens[0] == "outcome":
            found += [f"{one.subject}: {law}" for law in _outcome(book, tokens, said, one)]
    return found


def leg_of(ticket: str) -> Leg:
    digits, way, rest = ticket.partition("f") if "f" in ticket else ticket.partition("b")
    return int(digits), way, int(rest or 1)


def _outcome(book: Book, tokens: list[str], said: dict[str, Any], one: Kept) -> Iterator[str]:
    leg = leg_of(tokens[2])
    if said.get("code") == "timed_out" and leg in book.commands:
        command = book.commands[leg]
        if one.at_ms < command["at_ms"] + command["timeout_ms"] + GRACE_MS:
            yield "taken for unknown before its time"
    if (*leg, tokens[3]) not in book.told:
        book.outcomes[*leg, tokens[3]] = said


def _told(book: Book, told: dict[str, Any] | None) -> Iterator[str]:
    """Take an outcome that came with a link, before the link."""
    if told is None:
        return
    key = (*leg_of(told["ticket"]), told["node"])
    if key in book.told | book.acted:
        yield f"another outcome of {told['ticket']} after somebody acted on one"
    if key[:3] not in book.commands or book.commands[key[:3]]["node"] != told["node"]:
        yield "an outcome of nothing that was commanded there"
    book.told.add(key)
    book.outcomes[key] = told["said"]


def _act(book: Book, tokens: list[str]) -> None:
    """Note whose outcomes a link may have been written for: all, or of a command those of what comes before it."""
    steps = set(book.numbers())
    if tokens[0] == "c" and leg_of(tokens[2])[1] == "f":
        number = leg_of(tokens[2])[0]
        steps = book.behind(number) | {number}
    book.acted |= {key for key in book.outcomes if key[0] in steps}


def _link(book: Book, tokens: list[str], said: dict[str, Any], one: Kept) -> Iterator[str]:
    if book.end is not None:
        yield "progress after the end"
    if (tokens[0] == "start") is bool(book.chain):
        yield "a chain has one start, and begins with it"
    book.chain.append(one.subject)
    if tokens[0] == "start":
        book.start, book.at_ms = said, one.at_ms
        first = said.get("first")
        if first is not None:
            number = next(at for at in book.numbers() if book.step(at)["name"] == first["step"])
            yield from _commanded(book, (number, "f", 1), book.step(number)["node"], first, one)
        return
    yield from _told(book, said.get("told"))
    _act(book, tokens)
    match tokens:
        case ["c", node, ticket]:
            yield from _commanded(book, leg_of(ticket), node, said, one)
        case ["park", ticket]:
            yield from _park(book, leg_of(ticket))
            book.parks[leg_of(ticket)] = said
        case ["resume", ticket]:
            order = book.orders.get(said["nonce"], {})
            if leg_of(ticket) not in book.parks or leg_of(ticket) in book.resumes:
                yield "resumed where it was not parked"
            if order.get("ticket") != ticket or order.get("order") != said["order"]:
                yield "resumed as nobody ordered"
            book.resumes[leg_of(ticket)] = said
        case _:
            yield from _end(book, said, one.at_ms)
            book.end = said


def _commanded(book: Book, leg: Leg, node: str, said: dict[str, Any], one: Kept) -> Iterator[str]:
    yield from _command(book, leg, node, said, one)
    book.commands[leg] = {**said, "node": node, "seq": one.seq, "at_ms": one.at_ms}


def _command(book: Book, leg: Leg, node: str, said: dict[str, Any], one: Kept) -> Iterator[str]:
    number, way, round_ = leg
    step = book.step(number)
    if leg in book.commands:
        yield "commanded twice"
    if node != step["node"] or said["key"] != f"{book.saga}/{number}{way}" or said["step"] != step["name"]:
        yield "another node, key or step"
    if any(open_ in book.parks and open_ not in book.resumes for open_ in book.rounds(number, way)):
        yield "commanded while parked"
    yield from _forth(book, leg, one) if way == "f" else _back(book, leg, said, one)
    if round_ > 1:
        yield from _again(book, leg)


def _forth(book: Book, leg: Leg, one: Kept) -> Iterator[str]:
    number, _, round_ = leg
    if book.is_undoing:
        yield "forward after it turned back"
    if one.at_ms < book.begins_ms:
        yield "before it begins"
    if round_ > 1:
        is_must = (book.is_committed and book.is_critical(number)) or (number == book.pivot and book.is_in_doubt)
        if not is_must:
            yield "done again where there is another way"
        return
    if not all(book.is_passed(at) for at in book.after(number)):
        yield "done before its turn"
    if number == book.pivot:
        before = [at for at in book.numbers() if book.is_critical(at) and number not in book.behind(at) | {at}]
        if not all(book.fate(at, "f") in ("succeeded", "skipped") for at in before):
            yield "the pivot before all that must come first"


def _back(book: Book, leg: Leg, said: dict[str, Any], one: Kept) -> Iterator[str]:
    number = leg[0]
    compensate = book.step(number).get("compensate")
    if compensate is None or compensate["action"] != said["action"]:
        yield "undone by something else"
    fate = book.fate(number, "f")
    if fate not in ("succeeded", "unknown"):
        yield f"undone though it was not done: {fate}"
    if book.is_committed:
        yield "undone past the pivot"
    if book.is_in_doubt:
        yield "undone while nobody knows of the pivot"
    if any(book.fate(at, "f") == "running" for at in book.numbers()):
        yield "undone while something runs"
    if not book.has_reason(one.at_ms):
        yield "undone without a reason"
    later = [at for at in book.to_undo() if book.dispatched(at) > book.dispatched(number)]
    if not all(book.is_over(at) for at in later):
        yield "undone before what was commanded after it"
    undo = said.get("undo") or {}
    first = book.commands[next(one for one in book.rounds(number, "f") if one in book.commands)]
    if undo.get("params") != first["params"] or undo.get("result") != book.result(number):
        yield "told of other params or another result"
    if undo.get("is_known", True) is not (fate == "succeeded"):
        yield "told wrongly whether it was done"


def _again(book: Book, leg: Leg) -> Iterator[str]:
    number, way, round_ = leg
    before = (number, way, round_ - 1)
    step = book.step(number)
    retry = step.get("retry", {}) if way == "f" else step["compensate"].get("retry", {})
    rounds_max = retry.get("rounds_max", 3 if way == "f" else 5)
    is_ordered = before in book.resumes and book.resumes[before]["order"] == "retry"
    told = book.outcome(before)
    if told is None and not is_ordered:
        yield "again before the outcome"
    elif told is not None and told["outcome"] == "succeeded":
        yield "again although it succeeded"
    if is_ordered or told is None:
        return
    if round_ > rounds_max:
        yield "more rounds than allowed"
    if told["outcome"] == "failed" and not told.get("retryable", True):
        yield "again although that cannot help"


def _park(book: Book, leg: Leg) -> Iterator[str]:
    number, way, _ = leg
    told = book.outcome(leg)
    if leg in book.commands and (told is None or told["outcome"] == "succeeded"):
        yield "parked although nothing is wrong"
    if way == "f" and not (book.is_committed and book.is_critical(number)) and not book.is_in_doubt:
        yield "parked where there is another way"
    if way == "b" and book.fate(number, "f") not in ("succeeded", "unknown"):
        yield "parked for what need not be undone"


def _end(book: Book, said: dict[str, Any], now_ms: int) -> Iterator[str]:
    if said["state"] == "abandoned":
        if not any(one["order"] == "abandon" for one in book.orders.values()):
            yield "abandoned as nobody ordered"
        return
    if any(book.fate(at, "f") == "running" for at in book.numbers()):
        yield "ended while something runs"
    if said["state"] == "completed":
        if book.is_undoing or not all(book.is_passed(at) for at in book.numbers()):
            yield "completed without all that must be done"
        return
    left = [at for at in book.to_undo() if not book.is_over(at)]
    if left or book.is_committed or book.is_in_doubt:
        yield f"ended before all was undone: {left}"
    if not book.has_reason(now_ms):
        yield "turned back without a reason"
    skipped = {book.step(at)["name"] for at in book.to_undo() if book.fate(at, "b") == "skipped"}
    if set(said.get("left", ())) != skipped:
        yield "what is left is not what was skipped"
