"""A saga as people and listings see it, and as it is kept when it has ended.

The end carries its own view: when everything else is purged, what `saga show` says stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from pydantic import JsonValue
from pydantic_core import to_json

from antiphon.decide.saga_plan import Plan
from antiphon.decide.saga_state import Fate, Saga, Standing, cause, standing
from antiphon.messages.saga_desk import HISTORY_MAX, SagaEventLine, SagaLine, SagaState, SagaView
from antiphon.messages.saga_facts import SagaMoved, SagaTurn
from antiphon.messages.saga_history import Ended, SagaCause, SagaEnded, SagaStarted, SagaStepLine

RESULTS_BYTES_MAX: Final = 256 * 1024
"""Of all results in one end; those that do not fit are named."""
HISTORY_BYTES_MAX: Final = 256 * 1024
"""Of all events in one view; the latest are shown."""
Order: TypeAlias = tuple[int, int, int]
"""Stamp, sequence in its stream, rank."""
SETTLED: Final = (Fate.SUCCEEDED, Fate.FAILED, Fate.UNKNOWN, Fate.SKIPPED)


def state_of(saga: Saga, now_ms: int) -> SagaState:
    """Return how a saga stands."""
    if saga.end is not None:
        return SagaState(saga.end.state)
    if saga.plan is None:
        return SagaState.RUNNING
    stand = standing(saga, saga.plan)
    if any(leg.is_parked for leg in (*stand.forth.values(), *stand.back.values())):
        return SagaState.PARKED
    if saga.is_paused:
        return SagaState.PAUSED
    if cause(saga, saga.plan, stand, now_ms) is not None:
        return SagaState.COMPENSATING
    return SagaState.SCHEDULED if now_ms < saga.begins_ms and not saga.commands else SagaState.RUNNING


def view(saga: Saga, now_ms: int, *, has_history: bool = False) -> SagaView | None:
    """Return one saga as it stands, None where there is none; the time is the broker's."""
    history = _latest(events(saga)) if has_history else ()
    if saga.end is not None:
        end = saga.end
        return SagaView(
            id=saga.id,
            state=SagaState(end.state),
            ended_ms=saga.ended_ms,
            begins_ms=saga.begins_ms,
            deadline_ms=saga.deadline_ms,
            history=history,
            **{name: getattr(end, name) for name in ("name", "caller", "cause", "steps", "started_ms", "results")},
            cut=end.cut,
            left=end.left,
        )
    if saga.start is None or saga.plan is None:
        return None
    stand = standing(saga, saga.plan)
    return SagaView(
        id=saga.id,
        name=saga.start.definition.name,
        state=state_of(saga, now_ms),
        caller=saga.start.caller,
        cause=cause(saga, saga.plan, stand, now_ms),
        steps=tuple(_lines(saga.plan, stand)),
        started_ms=saga.started_ms,
        begins_ms=saga.begins_ms,
        deadline_ms=saga.deadline_ms,
        history=history,
    )


def line(saga: Saga, now_ms: int) -> SagaLine | None:
    """Return one saga as a listing and the index of open sagas have it, None where there is none."""
    whole = view(saga, now_ms)
    if whole is None:
        return None
    at = next((one for one in whole.steps if one.is_parked), None)
    at = at or next((one for one in whole.steps if "running" in (one.state, one.undo)), None)
    return SagaLine(
        id=whole.id,
        name=whole.name,
        state=whole.state,
        caller=whole.caller,
        started_ms=whole.started_ms,
        moved_ms=saga.newest_ms,
        done=sum(one.state == "succeeded" for one in whole.steps),
        total=len(whole.steps),
        step=None if at is None or whole.ended_ms is not None else at.step,
        text=at.text if at is not None and at.is_parked else _why(whole.cause),
    )


def moved(saga: Saga, start: SagaStarted, turn: SagaTurn, now_ms: int, **said: str | None) -> SagaMoved:
    """Return what is told of a saga that has begun, was parked, went on or has ended."""
    end = saga.end
    return SagaMoved(
        saga=saga.id,
        name=start.definition.name,
        caller=start.caller,
        turn=turn,
        state=state_of(saga, now_ms),
        at_ms=now_ms,
        took_ms=max(0, now_ms - saga.started_ms),
        cause=None if end is None else end.cause,
        left=() if end is None else end.left,
        **said,
    )


def ended(saga: Saga, plan: Plan, stand: Standing, state: Ended, why: SagaCause | None) -> SagaEnded:
    """Return the end of a saga, with all that is kept of it."""
    assert saga.start is not None
    results, cut = _results(plan, stand) if state == "completed" else ({}, ())
    return SagaEnded(
        state=state,
        name=saga.start.definition.name,
        caller=saga.start.caller,
        digest=saga.start.digest,
        cause=why if state != "completed" else None,
        started_ms=saga.started_ms,
        steps=tuple(_lines(plan, stand)),
        results=results,
        cut=cut,
        left=() if state == "completed" else stand.left(plan),
    )


def events(saga: Saga) -> Iterator[SagaEventLine]:
    """Yield every event of a history in the order in which the broker stored them, as far as that can be known."""
    return (one for _, one in sorted(_events(saga), key=lambda found: found[0]))


def _latest(every: Iterable[SagaEventLine]) -> tuple[SagaEventLine, ...]:
    """Return the latest events, as many as one view has room for."""
    found: list[SagaEventLine] = []
    room = HISTORY_BYTES_MAX
    for one in reversed(tuple(every)):
        room -= len(one.model_dump_json(exclude_none=True).encode()) + 1
        if room < 0 or len(found) == HISTORY_MAX:
            break
        found.append(one)
    return tuple(reversed(found))


def _events(saga: Saga) -> Iterator[tuple[Order, SagaEventLine]]:
    if saga.start is not None:
        yield (saga.started_ms, 0, 0), SagaEventLine(at_ms=saga.started_ms, event="started", who=saga.start.caller)
    for ticket, command in saga.commands.items():
        text = "" if command.said.undo is None else f"undo: {command.said.action}"
        named = SagaEventLine(at_ms=0, event="", ticket=str(ticket), step=command.said.step, who=command.node)
        yield (command.at_ms, command.seq, 0), _event(named, command.at_ms, "commanded", text)
        told = saga.outcome(ticket)
        if told is not None:
            # the streams have no common order: at the same stamp it comes before what could follow from it
            seq = command.seq if told.at_ms == command.at_ms else 0
            yield (told.at_ms, seq, 1), _event(named, told.at_ms, told.said.outcome, told.said.code, told.said.text)
    yield from _by_hand(saga)
    if saga.end is not None:
        yield (saga.ended_ms, saga.last, 2), SagaEventLine(at_ms=saga.ended_ms, event="ended", text=saga.end.state)


def _by_hand(saga: Saga) -> Iterator[tuple[Order, SagaEventLine]]:
    for ticket, parked in saga.parks.items():
        named = SagaEventLine(at_ms=0, event="", ticket=str(ticket), step=parked.said.step)
        yield (parked.at_ms, parked.seq, 0), _event(named, parked.at_ms, "parked", parked.said.code, parked.said.text)
    for ticket, resumed in saga.resumes.items():
        said = resumed.said
        named = SagaEventLine(at_ms=0, event="", ticket=str(ticket), step=said.step, who=said.by)
        yield (resumed.at_ms, resumed.seq, 0), _event(named, resumed.at_ms, "resumed", said.order)
    for order in saga.orders:
        named = SagaEventLine(at_ms=0, event="", ticket=order.said.ticket, who=order.said.by)
        yield (order.at_ms, order.seq, 0), _event(named, order.at_ms, "ordered", order.said.order, order.said.text)


def _event(named: SagaEventLine, at_ms: int, event: str, *texts: str | None) -> SagaEventLine:
    text = ": ".join(one for one in texts if one)[:200]
    return named.model_copy(update={"at_ms": at_ms, "event": event, "text": text})


def _lines(plan: Plan, stand: Standing) -> Iterator[SagaStepLine]:
    for number, leg in stand.forth.items():
        step, back = plan.step(number), stand.back.get(number)
        is_undone = back is not None and (back.first is not None or back.is_parked or back.is_done)
        now = back if back is not None and is_undone else leg
        yield SagaStepLine(
            step=step.name,
            node=step.node or "",
            action=step.action,
            ticket=str(now.ticket) if now.fate is not Fate.WAITING else None,
            state=leg.fate.value,
            undo=back.fate.value if back is not None and is_undone else None,
            is_parked=now.is_parked,
            attempts=leg.attempts + (0 if back is None else back.attempts),
            began_ms=None if leg.first is None else leg.first.at_ms,
            ended_ms=now.ended_ms if now.fate in SETTLED else None,
            code=now.code if now.is_open or now.is_parked else leg.code,
            text=now.text if now.is_open or now.is_parked else leg.text,
        )


def _results(plan: Plan, stand: Standing) -> tuple[dict[str, JsonValue], tuple[str, ...]]:
    """Return the results by step, as many as fit, and the names of those that do not."""
    results: dict[str, JsonValue] = {}
    cut: list[str] = []
    room = RESULTS_BYTES_MAX
    for number, leg in stand.forth.items():
        if leg.is_done and leg.result is not None:
            size = len(to_json(leg.result))
            if size > room:
                cut.append(plan.step(number).name)
            else:
                room -= size
                results[plan.step(number).name] = leg.result
    return results, tuple(cut)


def _why(cause_: SagaCause | None) -> str | None:
    if cause_ is None:
        return None
    at = cause_.step or cause_.by
    return f"{cause_.reason} {at}" if at else cause_.reason
