"""Driving sagas: from event to event, what follows is written, offered, and waited for.

No lease, no leader, no lock: any master may drive any saga at any moment, for what is written is written by
compare-and-set, and the next move follows from what is written (`decide/saga.py`). Who took a saga in drives it in its
own process; every saga has a timer in a stream, which fires when its driver has not moved it for `lease_ms`, and
whichever master gets that goes on. What nothing would ever wake is found by looking through all sagas now and then.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog

from antiphon.actors.saga_book import SagaBook
from antiphon.actors.saga_bounds import SagaBounds
from antiphon.actors.saga_broker import Broker
from antiphon.actors.saga_cache import SagaCache
from antiphon.actors.saga_offers import Offers
from antiphon.actors.saga_turns import Turns, Waiters
from antiphon.bus.codec import encode
from antiphon.bus.protocol import Subscription
from antiphon.decide import saga_view
from antiphon.decide.dispatch import Dispatch
from antiphon.decide.registry import RegistryView
from antiphon.decide.saga import Append, Move, fold, wake_ms
from antiphon.decide.saga_drive import Answer, Arm, Done, GiveBack, Handling, Load, Write
from antiphon.decide.saga_log import Entry, Ticket
from antiphon.decide.saga_state import Saga
from antiphon.decide.saga_together import commanded
from antiphon.errors import AntiphonError, NotConnected, Overloaded, WrongState
from antiphon.messages.saga_desk import SagaState
from antiphon.messages.saga_facts import SagaTurn
from antiphon.messages.saga_history import (
    SagaEnded,
    SagaOrdered,
    SagaParked,
    SagaResumed,
    SagaStarted,
    SagaTimerFired,
    StepCommanded,
    StepOutcome,
)
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.sagas")

WRITE_AGAIN_MS: Final = 250
"""Before it is tried again to write something of which nobody knows whether it was stored."""
NONCE_BYTES: Final = 8
"""Of what is drawn for an order, so that two are never one."""
POLL_MS: Final = 500
"""How often the end of a saga that another master drives is looked for."""


class SagaDriver:
    """The sagas that one master drives.

    Args:
        book: the streams, and the master's bus.
        registry: who is there.
        dispatch: picks instances.
        facts: where it is told what happens.
        limits: how long what may take.
    """

    def __init__(
        self, book: SagaBook, registry: View[RegistryView], dispatch: Dispatch, facts: Facts, limits: SagaBounds
    ) -> None:
        bus = book.bus
        self.bus = bus
        self.book = book
        self.facts = facts
        self.limits = limits
        self.broker = Broker(book, limits.look_ms, limits.reserve_permille)
        self.offers = Offers(
            bus,
            registry,
            dispatch,
            now_ms=self.now_ms,
            record=self.recorded,
            mark=book.offer,
            hold=self._hold,
            bounds=limits.offers,
        )
        self._cache = SagaCache(limits.cached_max, limits.cached_bytes_max)
        self._turns = Turns()
        self._ends = Waiters()
        self._armed_ms: OrderedDict[str, int] = OrderedDict()
        self.parked: dict[str, str] = {}
        """The sagas that are known to need a person, and why; bounded."""
        self._following: list[Subscription] = []
        self._tasks: set[asyncio.Task[object]] = set()
        self._waiting: set[str] = set()
        """The sagas that could not be driven and will be again."""

    def now_ms(self) -> int:
        """Return the broker's time, as far as this master can tell."""
        return self.broker.now_ms()

    async def start(self) -> None:
        """Take timers that have fired, and look for sagas that nothing would wake."""
        await self.broker.look()
        self._following = await self.book.follow(self._fired)
        self._spawn(self.broker.look_on(), "broker")
        self._spawn(self._sweep_on(), "sweep")

    async def leave(self) -> None:
        """Take no more timers, whoever gets them goes on; and keep nobody waiting for an end, another one tells it."""
        following, self._following = self._following, []
        self._ends.wake_all()
        for one in following:
            await one.drain()

    async def stop(self) -> None:
        """Drive no more; what runs on nodes goes on there."""
        await self.leave()
        await self.offers.stop()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def begin(self, saga: str, start: SagaStarted) -> bool:
        """Store the start of a saga and drive it; return False where its id is taken. Raises `Overloaded`."""
        if not self.broker.has_room:
            raise Overloaded("what is left of the streams is for sagas that run", retry_after_ms=self.limits.look_ms)
        # the timer first: a saga that began and has none would stand where this master dies. It is sent before the
        # start over the same connection, so once that is stored the server has it: nobody need wait for its answer
        armed_ms = self.now_ms() + self.limits.lease_ms
        start, is_all = commanded(saga, start, self.now_ms())
        arming = asyncio.ensure_future(self.book.arm(saga, armed_ms, is_first=True))
        making = asyncio.ensure_future(self.book.make(saga, Append(start, 0)))
        try:
            seq = await making
            if seq is not None:
                self._note_armed(saga, armed_ms)
                await self._begun(Entry(saga, seq, self.now_ms(), start), is_all=is_all)
            await arming
        except AntiphonError:
            self._armed_ms.pop(saga, None)
            raise
        finally:
            arming.cancel()
            making.cancel()
        return seq is not None

    async def _begun(self, entry: Entry, *, is_all: bool) -> None:
        begun = fold(Saga(entry.saga), entry)
        self._cache.keep(begun)
        self._tell(begun, SagaTurn.STARTED)
        if is_all:
            self._offer(begun)
        else:
            await self.drive(entry)

    async def order(self, name: str, said: SagaOrdered) -> None:
        """Store an order and see to it."""
        # the timer first: that of a saga which rests may be far away, and this master may die in between
        armed_ms, nonce = self.now_ms() + self.limits.lease_ms, secrets.token_hex(NONCE_BYTES)
        await self.book.arm(name, armed_ms)
        self._note_armed(name, armed_ms)
        seq = await self.book.order(name, said, nonce)
        if seq is None:
            raise WrongState(f"{name} has ended")
        log.info("saga.ordered", saga=name, order=said.order, by=said.by)
        await self.drive(Entry(name, seq, self.now_ms(), said, nonce=nonce))

    def cached(self, name: str) -> Saga | None:
        """Return what is known of a saga without a read; it may be old."""
        return self._cache.get(name)

    async def loaded(self, name: str) -> Saga:
        """Return a saga as its history says now."""
        saga = Saga(name)
        for entry in await self.book.load(name):
            saga = fold(saga, entry)
        return saga

    async def drive(self, event: Entry, *, is_again: bool = False) -> bool:
        """Handle one event; return False where it has to come again."""
        async with self._turns.of(event.saga):
            handling = Handling(event, self._cache.get(event.saga), is_again=is_again)
            try:
                saga = await self._handled(event.saga, handling)
            except AntiphonError as error:
                self._not_driven(event, error)
                saga = None
        if saga is not None:
            self._offer(saga)
        return saga is not None

    def _not_driven(self, event: Entry, error: AntiphonError) -> None:
        log.warning("saga.not_driven", saga=event.saga, code=error.code, error=error.text)
        self._cache.forget(event.saga)
        self._again(event)

    def _offer(self, saga: Saga) -> None:
        if saga.end is None and saga.start is not None:
            for ticket, command in saga.commands.items():
                if saga.outcome(ticket) is None:
                    self.offers.begin(saga.id, command)

    async def _handled(self, name: str, handling: Handling) -> Saga | None:
        """Do what a handling asks for, to its end; None where the event has to come again."""
        while True:
            match handling.next(self.now_ms()):
                case Load():
                    handling.loaded(await self.book.load(name))
                case Write(move):
                    await self._write(name, move, handling)
                case Arm(at_ms, is_first):
                    await self._arm(name, handling.saga, at_ms, is_first=is_first)
                    handling.armed()
                case Answer(reply, end):
                    await self._answer(name, reply, end)
                    handling.answered()
                case Done(saga):
                    self._remember(saga)
                    return saga
                case GiveBack():
                    return None

    async def _write(self, name: str, move: Move, handling: Handling) -> None:
        try:
            seq = await self.book.make(name, move)
        except NotConnected as error:  # it may have been stored: the streams will say
            log.info("saga.not_written", saga=name, error=error.text)
            await self.bus.clock.sleep_ms(WRITE_AGAIN_MS)
            seq = None
        if seq is None:
            self._cache.forget(name)
            handling.refused()
            return
        at_ms = self.now_ms()
        handling.written(seq, at_ms)
        saga, event = handling.saga, move.event
        assert saga is not None, "it was written from what is known of it"
        if isinstance(event, StepCommanded):
            return
        if isinstance(event, SagaParked):
            self._tell(saga, SagaTurn.PARKED, step=event.step, code=event.code, text=event.text)
            self._ends.wake(name)
        elif isinstance(event, SagaResumed):
            self._tell(saga, SagaTurn.RESUMED, step=event.step)
        elif isinstance(event, SagaEnded):
            self._tell(saga, SagaTurn.ENDED)
            self._ends.wake(name)
            self._spawn(self._arm_to_forget(saga, at_ms + self.limits.history_ms), "arm")

    async def recorded(self, name: str, ticket: Ticket, node: str, said: StepOutcome) -> bool:
        """Store an outcome and what follows from it; return False where it was decided before."""
        event, is_again = Entry(name, 0, self.now_ms(), said, ticket, node), False
        while (is_kept := await self._kept(event, is_again=is_again)) is None:
            is_again = True
            await self.bus.clock.sleep_ms(WRITE_AGAIN_MS)
        return is_kept

    async def _kept(self, event: Entry, *, is_again: bool) -> bool | None:
        """Handle an outcome that is not stored yet; return whether it is what is stored, None where it is not known."""
        saga: Saga | None = None
        async with self._turns.of(event.saga):
            handling = Handling(event, self._cache.get(event.saga), is_again=is_again, is_told=True)
            try:
                saga = await self._handled(event.saga, handling)
            except AntiphonError as error:
                if handling.is_kept is not None:
                    self._not_driven(event, error)
                elif isinstance(error, NotConnected | Overloaded):  # what a node has done is worth waiting for
                    log.info("saga.not_written", saga=event.saga, error=error.text)
                    self._cache.forget(event.saga)
                else:
                    raise
        if handling.is_kept is not None and event.ticket is not None:
            self.offers.decided(event.saga, event.ticket)
        if saga is not None:
            self._offer(saga)
        return handling.is_kept

    async def _fired(self, entry: Entry) -> bool:
        """Go on with a saga whose timer has fired: nobody has moved it, or its time has come."""
        self._armed_ms.pop(entry.saga, None)  # it is set no more, whatever this master has set it to
        if isinstance(entry.event, SagaTimerFired) and entry.event.end:
            return await self._forgotten(entry.saga, entry.event.end, has_offers=False)
        if not await self.drive(entry):
            return False
        saga = self._cache.get(entry.saga)
        if saga is None or saga.end is None:
            return True
        due_ms = saga.ended_ms + self.limits.history_ms
        if self.now_ms() < due_ms:
            return await self._arm_to_forget(saga, due_ms)
        return await self._forgotten(saga.id, saga.last, has_offers=True)

    async def _forgotten(self, name: str, end: int, *, has_offers: bool) -> bool:
        """Forget the history of a saga; return False where that is to be tried again."""
        try:
            await self.book.forget(name, end, has_offers=has_offers)
        except AntiphonError as error:
            log.info("saga.not_forgotten", saga=name, code=error.code)
            return False
        self._cache.forget(name)
        return True

    def _again(self, event: Entry) -> None:
        """Handle an event once more, later; should this master be gone by then, the timer does it."""
        if event.saga in self._waiting:
            return  # whatever comes next to it reads all that there is
        self._waiting.add(event.saga)

        async def work() -> None:
            await self.bus.clock.sleep_ms(self.limits.offers.pause_ms_max)
            self._waiting.discard(event.saga)
            await self.drive(event, is_again=True)

        self._spawn(work(), "again")

    # -- timers

    async def _arm(self, name: str, saga: Saga | None, at_ms: int, *, is_first: bool) -> None:
        now_ms = self.now_ms()
        if is_first and self._armed_ms.get(name, 0) > now_ms:
            return  # it was set when the saga was taken in
        lease_ms = now_ms + self.limits.lease_ms
        if saga is None or saga.is_at_work:  # of one that rests nobody has to take anything over
            at_ms = min(at_ms, lease_ms)
        await self.book.arm(name, at_ms)
        # by the time that it works again another master may have set it to anything: it counts for a lease at most
        self._note_armed(name, min(at_ms, lease_ms))

    async def _arm_to_forget(self, saga: Saga, at_ms: int) -> bool:
        """Have the same timer say when an ended saga's history is to be forgotten; False where it still stands.

        It says so itself where that is all that there is to do, so that nobody reads the saga again for it.
        """
        end = 0 if self.offers.may_be_once(saga) else saga.last
        with suppress(AntiphonError):  # then the one that is set fires, and looks again
            await self.book.arm(saga.id, at_ms, end=end)
            return True
        return False

    async def _hold(self, name: str) -> None:
        """Keep the timer from firing while this master works on a saga."""
        now_ms = self.now_ms()
        if self._armed_ms.get(name, 0) - now_ms > self.limits.lease_ms // 2:
            return
        saga = self._cache.get(name)
        due_ms = None if saga is None else wake_ms(saga, now_ms)
        lease_ms = now_ms + self.limits.lease_ms
        at_ms = lease_ms if due_ms is None else min(due_ms, lease_ms)
        with suppress(AntiphonError):
            await self.book.arm(name, at_ms)
            self._note_armed(name, at_ms)

    def _note_armed(self, name: str, at_ms: int) -> None:
        self._armed_ms[name] = at_ms
        self._armed_ms.move_to_end(name)
        if len(self._armed_ms) > self.limits.armed_max:
            self._armed_ms.popitem(last=False)

    async def _sweep_on(self) -> None:
        while True:
            # a task of its own: a bug in looking at one saga is told, and does not end the looking for good
            await asyncio.wait({self._spawn(self._swept(), "swept")})
            await self.bus.clock.sleep_ms(self.limits.sweep_ms)

    async def _swept(self) -> None:
        try:
            await self._sweep()
        except AntiphonError as error:
            log.info("saga.not_swept", code=error.code)

    async def _sweep(self) -> None:
        """Set a timer for each saga that is there and has none: the stream of timers may have been lost."""
        begun, timed = await self.book.ids("k.start"), await self.book.timed()
        for name in begun:
            if name in timed:
                continue
            log.warning("saga.no_timer", saga=name)
            await self.book.arm(name, self.now_ms() + self.limits.lease_ms, is_first=True)
        # what another master has parked, or had before it died, is told by this one, too
        parked = await self.book.ids("k.park.*")
        if parked:  # the ends of a month are many, and nobody needs them where nothing was ever parked
            ended = set(await self.book.ids("k.end"))
            parked = [one for one in parked if one not in ended]
        for name in {*parked[: self.limits.parked_max], *self.parked}:
            self._remember(await self.loaded(name))

    async def ended(self, name: str, until_ms: int) -> Saga:
        """Return a saga once it has ended or is parked, or as it stands when the time is over."""
        while True:
            left_ms = until_ms - self.bus.clock.now_ms()
            saga = self._cache.get(name)
            if saga is None or saga.end is None:
                await self._ends.wait(name, min(left_ms, POLL_MS))
                saga = self._cache.get(name)
            is_over = until_ms - self.bus.clock.now_ms() <= 0 or not self._following
            if saga is None or saga.end is None:  # another master may drive it
                saga = await self.loaded(name)
            if is_over or self.rests(saga):
                return saga

    def rests(self, saga: Saga) -> bool:
        """Whether nothing more becomes of a saga by itself: it has ended, or needs a person."""
        return saga.end is not None or saga_view.state_of(saga, self.now_ms()) is SagaState.PARKED

    async def _answer(self, name: str, reply: str, end: SagaEnded) -> None:
        """Tell whoever waits that a saga has ended, where that is nobody whom this master answers anyway."""
        if name in self._ends:
            self._ends.wake(name)
            return
        found = saga_view.view(Saga(name, end=end), self.now_ms())
        if found is not None:
            with suppress(AntiphonError):
                await self.bus.transport.publish(reply, encode(found))

    def _remember(self, saga: Saga) -> None:
        shown = saga_view.line(saga, self.now_ms()) if saga.parks and saga.end is None else None
        if shown is not None and shown.state is SagaState.PARKED and len(self.parked) < self.limits.parked_max:
            self.parked[saga.id] = f"{shown.name} is parked at {shown.step}: {shown.text}"[:200]
        else:
            self.parked.pop(saga.id, None)
        self._cache.keep(saga)

    def _tell(self, saga: Saga, turn: SagaTurn, **said: str | None) -> None:
        if (start := saga.start) is None:
            return
        if turn is not SagaTurn.STARTED:
            state = saga_view.state_of(saga, self.now_ms())
            say = log.warning if turn is SagaTurn.PARKED else log.info
            say("saga.moved", turn=str(turn), saga=saga.id, name=start.definition.name, state=str(state), **said)
        if self.facts.is_on:
            self.facts.tell(saga_view.moved(saga, start, turn, self.now_ms(), **said))

    def _spawn(self, work: Coroutine[Any, Any, object], what: str) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(work, name=f"sagas:{what}")
        self._tasks.add(task)
        task.add_done_callback(self._spawned_over)
        return task

    def _spawned_over(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("saga.bug", exc_info=bug)
