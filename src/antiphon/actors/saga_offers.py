"""Offering the commands of sagas to nodes: each a task of its own, until its outcome is stored or its time is over.

Nodes are asked, never left to fetch: so they need no rights on the streams. An instance that has taken a command is
asked again now and then, whether it still works on it; one that is gone is replaced by another one, with the same
idempotency key. While a master offers a saga's commands it keeps moving the saga's timer, so that no other master does
the same; when it dies the timer fires, and one of the others goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from antiphon.bus.bus import Bus
from antiphon.decide.dispatch import Dispatch, Pick
from antiphon.decide.registry import RegistryView
from antiphon.decide.saga import GRACE_MS
from antiphon.decide.saga_log import Ticket
from antiphon.decide.saga_state import Command, Saga
from antiphon.errors import (
    AntiphonError,
    InvalidReply,
    Malformed,
    NotAllowed,
    NotConnected,
    OutOfBudget,
    Oversize,
    UnknownAction,
    UnknownMethod,
)
from antiphon.messages.saga import SagaRetry
from antiphon.messages.saga_history import StepOutcome
from antiphon.messages.steps import NodeStep, StepEnd
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.sagas")

HOPELESS: Final = (UnknownAction, UnknownMethod, Malformed, NotAllowed, Oversize)
"""What a node says of a command that it will never do."""
DOUBTFUL: Final = (OutOfBudget, InvalidReply, NotConnected)
"""After these it may work on it all the same."""

Record = Callable[[str, Ticket, str, StepOutcome], Awaitable[bool]]
"""Stores what became of a command."""


@dataclass(frozen=True, slots=True)
class OfferBounds:
    """How long what may take, in milliseconds, and how many."""

    answer_ms: int = 4_000
    """An instance has so long to say that it works on it, or its end."""
    pause_ms: int = 100
    """Before a command that nobody has taken is offered again; doubles each time."""
    pause_ms_max: int = 2_000
    look_ms: int = 3_000
    """How often an instance that works on a command is asked whether it still does."""
    offers_max: int = 8_192
    """Commands that one master offers at once; what is more waits for its saga's timer."""


@dataclass(slots=True)
class Offered:
    """One command on offer.

    Attributes:
        saga: whose it is.
        command: the command.
        is_once: whether it may be offered once at most, as far as its node's contract is known.
    """

    saga: str
    command: Command
    is_once: bool = False
    is_marked: bool = False
    """Whether this master has taken that on."""


class Offers:
    """The commands that one master offers.

    Args:
        bus: its bus.
        registry: who is there.
        dispatch: picks instances, and learns how they do.
        now_ms: the broker's time.
        record: stores an outcome, and goes on with the saga.
        mark: takes it on to offer a command that may be offered once.
        hold: keeps other masters from offering the same.
        bounds: the limits.
    """

    def __init__(
        self,
        bus: Bus,
        registry: View[RegistryView],
        dispatch: Dispatch,
        *,
        now_ms: Callable[[], int],
        record: Record,
        mark: Callable[[str, Ticket], Awaitable[bool]],
        hold: Callable[[str], Awaitable[None]],
        bounds: OfferBounds,
    ) -> None:
        self.bus = bus
        self.registry = registry
        self.dispatch = dispatch
        self.bounds = bounds
        self._now_ms = now_ms
        self._record = record
        self._mark = mark
        self._hold = hold
        self._tasks: dict[tuple[str, Ticket], asyncio.Task[None]] = {}
        self._decided: dict[tuple[str, Ticket], asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, saga: str, command: Command) -> None:
        """Offer a command, unless this master does already."""
        key = (saga, command.ticket)
        if key in self._tasks or len(self._tasks) >= self.bounds.offers_max:
            return
        self._decided[key] = asyncio.Event()
        work = self._offer(Offered(saga, command), self._decided[key])
        task = self._tasks[key] = asyncio.get_running_loop().create_task(work, name=f"offer:{command.said.action}")
        task.add_done_callback(lambda _: self._over(key, task))

    def decided(self, saga: str, ticket: Ticket) -> None:
        """Take that a command's outcome is stored."""
        event = self._decided.get((saga, ticket))
        if event is not None:
            event.set()

    def may_be_once(self, saga: Saga) -> bool:
        """Whether some of a saga may be offered once at most, as far as the contracts of its nodes are known."""
        if saga.plan is None:
            return True
        steps = saga.plan.definition.steps
        actions = [(step.node, step.action) for step in steps]
        actions += [(step.node, step.compensate.action) for step in steps if step.compensate is not None]
        nodes = self.registry.current.nodes
        for name, action in actions:
            node = nodes.get(name or "")
            offer = None if node is None else node.actions.get(action)
            if offer is None or offer.contract.at_most_once:
                return True
        return False

    async def stop(self) -> None:
        """Offer no more; what runs on nodes goes on there."""
        for task in tuple(self._tasks.values()):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks.values()))

    def _over(self, key: tuple[str, Ticket], task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        del self._decided[key]
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("saga.bug", saga=key[0], exc_info=bug)

    async def _offer(self, on: Offered, decided: asyncio.Event) -> None:
        command, bounds = on.command, self.bounds
        due_ms = command.at_ms + command.said.timeout_ms
        pause_ms, working = bounds.pause_ms, ""
        while (left_ms := due_ms - self._now_ms()) > 0 and not decided.is_set():
            pick = self._pick(on, working)
            working, wait_ms = "", pause_ms
            if pick is not None and pick.instance is not None:
                try:
                    end = await self._ask(on, pick.instance, left_ms, is_probe=pick.is_probe)
                except HOPELESS as error:
                    await self._record(on.saga, command.ticket, command.node, _refused(error))
                    return
                except _Withheld:
                    return
                except AntiphonError as error:
                    log.info("saga.not_taken", saga=on.saga, node=command.node, instance=pick.instance, code=error.code)
                    if on.is_once and isinstance(error, DOUBTFUL):
                        return  # nobody may offer it again: it is unknown when its time is over
                else:
                    if end is not None:
                        await self._record(on.saga, command.ticket, command.node, _outcome(end, pick.instance))
                        return
                    working, wait_ms = pick.instance, bounds.look_ms
            if not working:
                pause_ms = min(2 * pause_ms, bounds.pause_ms_max)
            await self._wait(decided, min(wait_ms, left_ms))
            await self._hold(on.saga)

    def _pick(self, on: Offered, working: str) -> Pick | None:
        """Return whom to ask: the instance that works on it while it is there, else one that is picked."""
        view, command = self.registry.current, on.command
        node = view.nodes.get(command.node)
        offer = None if node is None else node.actions.get(command.said.action)
        if node is None or offer is None:
            return None
        on.is_once = offer.contract.at_most_once
        if working in node.alive:
            return Pick(working)
        return self.dispatch.pick(view, node, offer.instances, self.bus.clock.now_ms())

    async def _ask(self, on: Offered, instance: str, left_ms: int, *, is_probe: bool) -> StepEnd | None:
        command, clock = on.command, self.bus.clock
        said = command.said
        if on.is_once and not on.is_marked:
            # where nobody knows whether that is stored it counts as stored, and the command stays unoffered
            on.is_marked = True
            if not await self._mark(on.saga, command.ticket):
                raise _Withheld
        # nobody listens for an answer beyond that: by then the outcome is stored as unknown
        budget_ms = min(self.bounds.answer_ms, left_ms + GRACE_MS)
        ask = NodeStep(
            request=self.bus.draw(),
            saga=on.saga,
            ticket=str(command.ticket),
            key=said.key,
            step=said.step,
            action=said.action,
            params=said.params,
            undo=said.undo,
            retry=SagaRetry(attempts_max=1) if on.is_once else said.retry,
            budget_ms=budget_ms,
            left_ms=left_ms,
            caller=said.caller,
            groups=said.groups or (),
            delegate=said.delegate,
        )
        leg = self.dispatch.started(command.node, instance, clock.now_us(), clock.now_ms(), is_probe=is_probe)
        code: str | None = "cancelled"
        try:
            taken = await self.bus.ask(ask, budget_ms=budget_ms, node=command.node, instance=instance)
            code = None
        except AntiphonError as error:
            code = error.code
            raise
        finally:
            self.dispatch.ended(leg, code, clock.now_us(), clock.now_ms())
        if taken.load is not None:
            told = taken.load
            self.dispatch.told(command.node, instance, told.in_flight, told.latency_us, clock.now_ms())
        return taken.end

    async def _wait(self, decided: asyncio.Event, wait_ms: int) -> None:
        try:
            async with asyncio.timeout(max(1, wait_ms) / 1_000):
                await decided.wait()
        except TimeoutError:
            pass


class _Withheld(Exception):
    """A command that may be offered once was offered before, or somebody has taken that on."""


def _outcome(end: StepEnd, instance: str) -> StepOutcome:
    return StepOutcome(**dict(end), instance=instance)


def _refused(error: AntiphonError) -> StepOutcome:
    return StepOutcome(outcome="failed", code=error.code, text=error.text[:200], retryable=False, attempts=0)
