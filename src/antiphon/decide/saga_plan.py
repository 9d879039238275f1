"""A saga's steps in the order in which they may go, and everything that is wrong with a definition.

`plan` lays out what is stored; `problems` is asked before anything is stored, and finds all that is wrong at once
instead of the first. The rules of the pivot make it one point in time: every critical step lies before it or after
it, so that when the pivot is commanded all that must be done before is done, and a failure elsewhere cannot come too
late to turn back. What is after it cannot be undone, so a compensation there would be a promise that nobody keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from antiphon.decide import filters
from antiphon.decide.saga_refs import BadReference, Reference, references
from antiphon.errors import InvalidSaga, Malformed, UnknownNode
from antiphon.messages.saga import SagaCompensation, SagaDefinition, SagaStep
from antiphon.messages.saga_desk import PROBLEMS_MAX, SagaProblem, SagaVerdict

REFERENCES_MAX: Final = 1_024
"""In a whole saga; those of a step that waits for its turn are filled in at every event."""
SHOWN_MAX: Final = 8
"""Problems in the text of one error."""
Pick = Callable[[SagaStep], str | None]
"""Picks a node for a step that says `where`, or None where no node matches."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One step in its place.

    Attributes:
        number: from 1, as listed.
        step: what it says.
        after: the numbers of the steps that must be done.
        before: every number that must be done, however far back.
    """

    number: int
    step: SagaStep
    after: tuple[int, ...]
    before: frozenset[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """A definition laid out.

    Attributes:
        steps: as listed; the step of number n is `steps[n - 1]`.
        order: the numbers in an order in which each comes after what it waits for.
        is_listed_in_order: whether that is the order in which they are listed.
        undoable: the numbers of those that have something that undoes them, as listed.
        pivot: the number of the pivot, 0 where there is none.
        shortest_ms: no command has less time than this.
    """

    definition: SagaDefinition
    steps: tuple[Planned, ...]
    order: tuple[int, ...]
    is_listed_in_order: bool
    undoable: tuple[int, ...]
    pivot: int
    shortest_ms: int

    def step(self, number: int) -> SagaStep:
        """Return the step of a number."""
        return self.steps[number - 1].step

    def number(self, name: str) -> int:
        """Return the number of the step of a name, 0 where there is none."""
        return next((one.number for one in self.steps if one.step.name == name), 0)

    def waves(self) -> tuple[tuple[str, ...], ...]:
        """Return the names of the steps wave by wave: those of one may run at once."""
        depth: dict[int, int] = {}
        for number in self.order:
            depth[number] = max((depth[one] + 1 for one in self.steps[number - 1].after), default=0)
        return tuple(
            tuple(one.step.name for one in self.steps if depth[one.number] == at)
            for at in range(max(depth.values()) + 1)
        )


def plan(definition: SagaDefinition) -> Plan:
    """Return a definition laid out; raises `InvalidSaga` for steps that follow nothing or themselves."""
    after = _after(definition)
    order = _ordered(after)
    if len(order) < len(after):
        raise InvalidSaga(f"steps wait for each other: {_cycle(definition, after)}")
    before: dict[int, frozenset[int]] = {}
    for number in order:
        before[number] = frozenset(after[number]).union(*(before[one] for one in after[number]))
    steps = tuple(
        Planned(number, step, after[number], before[number]) for number, step in enumerate(definition.steps, 1)
    )
    timeouts = [timeout_ms for step in definition.steps for timeout_ms in _timeouts(step)]
    pivot = next((one.number for one in steps if one.step.pivot), 0)
    undoable = tuple(one.number for one in steps if one.step.compensate is not None)
    return Plan(definition, steps, order, order == tuple(sorted(order)), undoable, pivot, min(timeouts))


def problems(definition: SagaDefinition, given: Mapping[str, JsonValue] | None = None) -> tuple[SagaProblem, ...]:
    """Return everything that is wrong with a definition, in the order of its steps; nothing: it may be submitted.

    Args:
        definition: the saga.
        given: its input; None where that is not known yet, then references to it are not checked.
    """
    names = [step.name for step in definition.steps]
    found = [
        _problem("name", name, f"two steps are called {name}") for name in dict.fromkeys(names) if names.count(name) > 1
    ]
    found += [one for at, step in enumerate(definition.steps) for one in _of_step(definition, at, step)]
    if not found:
        try:
            laid_out = plan(definition)
        except InvalidSaga as error:
            found.append(_problem("cycle", None, error.text))
        else:
            found += _of_pivot(laid_out)
            found += [one for step in laid_out.steps for one in _of_references(laid_out, step, given)]
    if not found and (count := sum(map(_count, definition.steps))) > REFERENCES_MAX:
        found.append(_problem("too_large", None, f"{count} references; the bound is {REFERENCES_MAX}"))
    if len(to_json(definition)) > SagaDefinition.size_max:
        found.append(_problem("too_large", None, f"more than {SagaDefinition.size_max} bytes of JSON"))
    return tuple(found[:PROBLEMS_MAX])


def verdict(definition: SagaDefinition, given: Mapping[str, JsonValue] | None = None) -> SagaVerdict:
    """Return whether a saga could be submitted, and its waves."""
    wrong = problems(definition, given)
    return SagaVerdict(problems=wrong, waves=() if wrong else plan(definition).waves())


def checked(definition: SagaDefinition, given: Mapping[str, JsonValue] | None = None) -> SagaDefinition:
    """Return a definition that may be submitted; raises `InvalidSaga` with what is wrong, one problem a line."""
    wrong = problems(definition, given)
    if wrong:
        lines = [one.text if one.step is None else f"{one.step}: {one.text}" for one in wrong[:SHOWN_MAX]]
        more = [f"and {len(wrong) - SHOWN_MAX} more"] if len(wrong) > SHOWN_MAX else []
        raise InvalidSaga("\n".join(lines + more))
    return definition


def settled(definition: SagaDefinition, pick: Pick) -> SagaDefinition:
    """Return a definition in which each step has its node; raises `UnknownNode` where no node matches.

    A node is picked once, when the saga is submitted, and stands in its start: the same history then means the same
    for every coordinator, whatever nodes there are by then.
    """
    if all(step.node is not None for step in definition.steps):
        return definition
    return definition.model_copy(update={"steps": tuple(_with_node(step, pick) for step in definition.steps)})


def _with_node(step: SagaStep, pick: Pick) -> SagaStep:
    if step.node is not None:
        return step
    node = pick(step)
    if node is None:
        raise UnknownNode(f"{step.name}: no node has {step.where!r} and can {step.action}")
    return step.model_copy(update={"node": node})


def _timeouts(step: SagaStep) -> Iterator[int]:
    yield step.timeout_ms
    if step.compensate is not None:
        yield step.compensate.timeout_ms


def _after(definition: SagaDefinition) -> dict[int, tuple[int, ...]]:
    """Return what each step waits for; without a word the one listed before it. Raises `InvalidSaga`."""
    numbers = {step.name: number for number, step in enumerate(definition.steps, 1)}
    found: dict[int, tuple[int, ...]] = {}
    for number, step in enumerate(definition.steps, 1):
        unknown = [name for name in step.after or () if name not in numbers]
        if unknown:
            raise InvalidSaga(f"{step.name} comes after {unknown[0]}, which is no step")
        default = (number - 1,) if number > 1 else ()
        found[number] = default if step.after is None else tuple(numbers[name] for name in dict.fromkeys(step.after))
    return found


def _ordered(after: Mapping[int, Sequence[int]]) -> tuple[int, ...]:
    """Return the numbers so that each comes after what it waits for, as listed where that leaves a choice.

    Those in a cycle, and behind one, are left out (Kahn, Topological sorting of large networks, 1962).
    """
    order: dict[int, None] = {}
    ready = True
    while ready:
        ready = False
        for number, waits_for in after.items():
            if number not in order and all(one in order for one in waits_for):
                order[number] = None
                ready = True
    return tuple(order)


def _cycle(definition: SagaDefinition, after: Mapping[int, Sequence[int]]) -> str:
    """Return one cycle for people: `a -> b -> a`, each waiting for the next."""
    left = after.keys() - set(_ordered(after))
    path = [min(left)]
    while True:
        following = next(one for one in after[path[-1]] if one in left)
        if following in path:
            names = [definition.steps[one - 1].name for one in [*path[path.index(following) :], following]]
            return " -> ".join(names)
        path.append(following)


def _problem(code: str, step: str | None, text: str) -> SagaProblem:
    return SagaProblem(code=code, step=step, text=text[:200])


def _of_step(definition: SagaDefinition, at: int, step: SagaStep) -> Iterator[SagaProblem]:
    """Yield what is wrong with a step by itself."""
    names = {one.name for one in definition.steps}
    if (step.node is None) == (step.where is None):
        yield _problem("node", step.name, "say either its node or `where`")
    if step.where is not None:
        try:
            filters.parse(step.where)
        except Malformed as error:
            yield _problem("where", step.name, error.text)
    for name in step.after or ():
        if name not in names:
            yield _problem("unknown_step", step.name, f"comes after {name}, which is no step")
    if step.pivot and not step.critical:
        yield _problem("pivot", step.name, "a pivot cannot be best effort: the saga turns on it")
    if step.pivot and any(one.pivot for one in definition.steps[:at]):
        yield _problem("pivot", step.name, "there is a pivot already: the first leaves no way back")


def _of_pivot(laid_out: Plan) -> Iterator[SagaProblem]:
    if not laid_out.pivot:
        return
    pivot = laid_out.steps[laid_out.pivot - 1]
    for one in laid_out.steps:
        is_behind = laid_out.pivot in one.before
        if is_behind and one.step.compensate is not None:
            yield _problem("pivot", one.step.name, f"is after the pivot {pivot.step.name}: nothing would ever undo it")
        if one.step.critical and one is not pivot and not is_behind and one.number not in pivot.before:
            yield _problem("pivot", one.step.name, f"is neither before nor after the pivot {pivot.step.name}")


def _of_references(laid_out: Plan, one: Planned, given: Mapping[str, JsonValue] | None) -> Iterator[SagaProblem]:
    """Yield what is wrong with the references of a step and of its compensation, which may look at the step itself."""
    forth = {laid_out.step(number).name for number in one.before}
    yield from _references(laid_out, one.step.name, one.step.params, forth, given, may_own=False)
    undo: SagaCompensation | None = one.step.compensate
    if undo is not None:
        yield from _references(laid_out, one.step.name, undo.params, forth | {one.step.name}, given, may_own=True)


def _count(step: SagaStep) -> int:
    undo = {} if step.compensate is None else step.compensate.params
    return sum(1 for params in (step.params, undo) for _ in references(params))


def _references(
    laid_out: Plan,
    name: str,
    params: Mapping[str, JsonValue],
    reachable: set[str],
    given: Mapping[str, JsonValue] | None,
    *,
    may_own: bool,
) -> Iterator[SagaProblem]:
    try:
        for one in references(params):
            text = _wrong(laid_out, one, reachable, given, may_own=may_own)
            if text is not None:
                yield _problem("unknown_reference", name, f"{{{{{one.text[:60]}}}}}: {text}")
    except BadReference as error:
        yield _problem("reference", name, str(error))


def _wrong(
    laid_out: Plan, one: Reference, reachable: set[str], given: Mapping[str, JsonValue] | None, *, may_own: bool
) -> str | None:
    """Return why a reference cannot be filled in, or None."""
    if one.root == "steps" and not laid_out.number(one.step):
        return "there is no such step"
    if one.root == "steps" and one.step not in reachable:
        return f"{one.step} does not have to be done before"
    if one.root == "result" and not may_own:
        return "only a compensation has a result to refer to; write steps.<step>.result"
    if one.root == "input" and one.path and given is not None and one.path[0] not in given:
        return "the input has no such name"
    return None
