"""The sagas actor: takes sagas and orders in, and answers for them, also for those that other masters drive."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from random import Random
from typing import Final

from antiphon.actors.asker import Askers
from antiphon.actors.breaker import BreakerHandle
from antiphon.actors.saga_book import SagaBook
from antiphon.actors.saga_bounds import SagaBounds
from antiphon.actors.saga_driver import SagaDriver
from antiphon.actors.waits import Waits
from antiphon.bus.bus import Bus, Call
from antiphon.bus.codec import encode
from antiphon.decide import saga_access, saga_desk, saga_view
from antiphon.decide.dispatch import RUN, Dispatch, DispatchBounds
from antiphon.decide.limit import Rate
from antiphon.decide.policy import Access, Principal, Verify, may_run
from antiphon.decide.registry import RegistryView
from antiphon.decide.saga_log import Ticket
from antiphon.decide.saga_plan import verdict
from antiphon.decide.saga_state import Saga
from antiphon.errors import (
    InvalidSaga,
    Malformed,
    NotAllowed,
    Overloaded,
    UnknownNode,
    UnknownSaga,
    WrongState,
)
from antiphon.messages.base import Acknowledged
from antiphon.messages.saga import SagaDefinition, SagaStep
from antiphon.messages.saga_desk import (
    PROBLEMS_MAX,
    SagaGet,
    SagaLine,
    SagaList,
    SagaListing,
    SagaOrder,
    SagaProblem,
    SagaState,
    SagaSubmit,
    SagaValidate,
    SagaVerdict,
    SagaView,
)
from antiphon.messages.saga_history import (
    StepOutcome,
)
from antiphon.messages.steps import StepEnded
from antiphon.runtime.actor import Actor, ActorBounds, converses
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View

RESERVE_MS: Final = 50
"""Kept of the asker's budget for the way back."""
LOADS_MAX: Final = 16
"""Sagas read at once for a listing."""
LISTED_BYTES_MAX: Final = SagaListing.size_max - 1_024
"""Of the lines of one page; what is left is room for the rest of the answer."""
DRAWN_BYTES: Final = 16


class Sagas(Actor):
    """Drives sagas."""

    name = "sagas"

    def __init__(
        self,
        bus: Bus,
        registry: View[RegistryView],
        facts: Facts,
        breakers: BreakerHandle,
        *,
        limits: SagaBounds | None = None,
        rate: Rate | None = None,
        dispatch: DispatchBounds | None = None,
        bounds: ActorBounds | None = None,
        access: View[Access] | None = None,
        verify: Verify | None = None,
        dice: Random | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self.facts = facts
        self.registry = registry
        self.limits = limits or SagaBounds()
        self.access = access or View(Access())
        self.askers = Askers(bus.clock, self.access, registry, verify, rate)
        self._dispatch = Dispatch(dispatch or DispatchBounds(), breakers, dice or Random(), verb=RUN)  # noqa: S311 - a choice
        self._driver: SagaDriver | None = None
        self.waits = Waits(self.limits.waits_max, self.limits.caller_waits_max)
        self.lists = Waits(self.limits.lists_max, self.limits.caller_lists_max)

    @property
    def driver(self) -> SagaDriver:
        """What drives them."""
        assert self._driver is not None, "started() makes it"
        return self._driver

    @property
    def parked(self) -> Mapping[str, str]:
        """The sagas that this master knows to need a person, and why."""
        return {} if self._driver is None else self._driver.parked

    async def started(self) -> None:
        """Open the streams."""
        book = await SagaBook.open(self.bus, self.limits.keep_ms, self.limits.shards, self.limits.bytes_max)
        self._driver = SagaDriver(book, self.registry, self._dispatch, self.facts, self.limits)

    async def serving(self) -> None:
        """Go on with what others have left."""
        await self.driver.start()

    async def stopping(self) -> None:
        """Go on with nothing more that others leave."""
        await self.driver.leave()

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does; whoever gets the timers drives on."""
        await super().stop(is_crashed=is_crashed)
        if self._driver is not None:
            await self._driver.stop()

    # -- what is asked

    @converses(SagaSubmit)
    async def submit(self, call: Call[SagaSubmit]) -> SagaView:
        """Take a saga in, and answer with how it stands, at once or when it has ended or is parked."""
        ask, who = call.message, self.askers.who(call.caller, call.message.behalf)
        self.askers.count(who, "submit a saga")
        saga = ask.id or secrets.token_hex(DRAWN_BYTES)
        refused = None
        try:
            is_new = await self._begun(saga, ask, who, call)
        except (InvalidSaga, NotAllowed, UnknownNode, Overloaded) as error:
            # nodes, rules and room may have changed since it began: whoever asks again gets his saga all the same
            is_new, refused = False, error
        if not is_new:
            there = await self.driver.loaded(saga)
            if refused is not None and there.start is None and there.end is None:
                raise refused
            saga_desk.check_same(there, ask, who.name)
            if there.end is not None or not ask.wait:
                return self._view(there)
        with self.waits.of(who.name) as has_room:
            if ask.wait and has_room:
                return self._view(await self.driver.ended(saga, call.deadline_ms - RESERVE_MS))
        return self._view(self.driver.cached(saga) or await self.driver.loaded(saga))

    @converses(SagaGet)
    async def get(self, call: Call[SagaGet]) -> SagaView:
        """Say how a saga stands."""
        ask, who = call.message, self.askers.who(call.caller, call.message.behalf)
        saga = await self._seen(ask.id, who)
        if ask.wait and not self.driver.rests(saga):
            with self.waits.of(who.name) as has_room:
                if has_room:
                    saga = await self.driver.ended(ask.id, call.deadline_ms - RESERVE_MS)
        return self._view(saga, has_history=ask.history)

    @converses(SagaList)
    async def list_sagas(self, call: Call[SagaList]) -> SagaListing:
        """List sagas by id."""
        ask, who = call.message, self.askers.who(call.caller, call.message.behalf)
        with self.lists.of(who.name) as has_room:
            if not has_room:
                text = "as many listings are made as there may be at once"
                raise Overloaded(text, retry_after_ms=self.bounds.retry_after_ms)
            return await self._listed(ask, who, call.deadline_ms)

    async def _listed(self, ask: SagaList, who: Principal, until_ms: int) -> SagaListing:
        is_operator = self.access.current.is_operator(who.name)
        caller = ask.caller if is_operator else who.name
        if not is_operator and ask.caller not in (None, who.name):
            return SagaListing(sagas=())
        ids = [one for one in await self._ids(ask.state) if ask.after is None or one > ask.after]
        found: list[SagaLine] = []
        room = LISTED_BYTES_MAX
        for at in range(0, len(ids), LOADS_MAX):
            sagas = await asyncio.gather(*(self.driver.loaded(one) for one in ids[at : at + LOADS_MAX]))
            for one in (saga_view.line(saga, self.driver.now_ms()) for saga in sagas):
                is_wanted = one is not None and (
                    (ask.state is None or one.state == ask.state)
                    and (ask.name is None or one.name == ask.name)
                    and (caller is None or one.caller == caller)
                )
                if one is None or not is_wanted:
                    continue
                room -= len(encode(one)) + 1
                if len(found) == ask.limit or room < 0:
                    return SagaListing(sagas=tuple(found), next=found[-1].id)
                found.append(one)
            if until_ms - self.bus.clock.now_ms() <= RESERVE_MS:
                return SagaListing(sagas=tuple(found), next=ids[min(at + LOADS_MAX, len(ids)) - 1])
        return SagaListing(sagas=tuple(found))

    @converses(SagaOrder)
    async def order(self, call: Call[SagaOrder]) -> SagaView:
        """Store an order, and answer with how the saga stands when it was seen to."""
        ask, who = call.message, self.askers.who(call.caller, call.message.behalf)
        saga = await self._seen(ask.id, who)
        said = saga_desk.order(ask, saga, who.name, is_operator=self.access.current.is_operator(who.name))
        await self.driver.order(ask.id, said)
        return self._view(await self.driver.loaded(ask.id))

    @converses(SagaValidate)
    async def validate(self, call: Call[SagaValidate]) -> SagaVerdict:
        """Say what is wrong with a saga."""
        ask, who = call.message, self.askers.who(call.caller)
        found = verdict(ask.definition, ask.input)
        wrong = (*found.problems, *self._problems(ask.definition, who))
        return SagaVerdict(problems=wrong[:PROBLEMS_MAX], waves=() if wrong else found.waves)

    @converses(StepEnded)
    async def step_ended(self, call: Call[StepEnded]) -> Acknowledged:
        """Store what became of a command, as its node tells, and go on with the saga."""
        told, node = call.message, call.caller
        ticket = Ticket.parse(told.ticket)
        if ticket is None:
            raise Malformed(f"{told.ticket!r} is no ticket")
        saga = self.driver.cached(told.saga)
        if saga is None or ticket not in saga.commands:
            saga = await self.driver.loaded(told.saga)
        command = saga.commands.get(ticket)
        if command is None or command.node != node:
            raise WrongState(f"nothing was commanded of {node} under {told.ticket} of {told.saga}, or it is over")
        outcome = StepOutcome(**dict(told.end), instance=told.instance)
        if not await self.driver.recorded(told.saga, ticket, node, outcome):
            there = (await self.driver.loaded(told.saga)).outcomes.get((ticket, node))
            if there is not None and there.said != outcome:
                raise WrongState(f"{told.saga} {told.ticket} was decided before: {there.said.outcome}")
        return Acknowledged()

    # -- taking in

    async def _begun(self, saga: str, ask: SagaSubmit, who: Principal, call: Call[SagaSubmit]) -> bool:
        """Store the start of a saga and drive it; return False where its id is taken."""
        start = saga_desk.begin(
            ask,
            who.name,
            lambda step: self._pick(step, who),
            groups=who.groups,
            delegate=who.delegate,
            reply=call.reply or None,
        )
        wrong = list(self._problems(start.definition, who))
        if wrong:
            is_forbidden = any(one.code == "not_allowed" for one in wrong)
            text = "\n".join(f"{one.step}: {one.text}" for one in wrong)
            raise (NotAllowed if is_forbidden else InvalidSaga)(text)
        return await self.driver.begin(saga, start)

    def _problems(self, definition: SagaDefinition, who: Principal) -> list[SagaProblem]:
        access = self.access.current
        nodes = self.registry.current.nodes
        return list(saga_access.problems(definition, nodes, lambda action, node: may_run(access, who, action, node)))

    def _pick(self, step: SagaStep, who: Principal) -> str | None:
        access, nodes = self.access.current, self.registry.current.nodes
        return saga_access.pick(step, nodes, lambda action, node: may_run(access, who, action, node))

    # -- what may be seen

    async def _seen(self, name: str, who: Principal) -> Saga:
        """Return a saga that somebody may see: its caller, and operators; for others there is none."""
        saga = await self.driver.loaded(name)
        there = saga.end or saga.start
        if there is None or not (there.caller == who.name or self.access.current.is_operator(who.name)):
            raise UnknownSaga(f"there is no saga {name!r}, or none that is yours")
        return saga

    async def _ids(self, state: SagaState | None) -> list[str]:
        ended = await self.driver.book.ids("k.end")
        if state in (SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.ABANDONED):
            return ended
        there = await self.driver.book.ids("k.park.*" if state is SagaState.PARKED else "k.start")
        over = set(ended)
        return sorted(over.union(there)) if state is None else [one for one in there if one not in over]

    def _view(self, saga: Saga, *, has_history: bool = False) -> SagaView:
        found = saga_view.view(saga, self.driver.now_ms(), has_history=has_history)
        if found is None:
            raise UnknownSaga(f"there is no saga {saga.id!r}, or none that is yours")
        return found
