"""One question as its asker sees it: it is asked, and asked again while nobody answers; the first answer counts.

`decide/asking.py` says when, and why. The others are told that nobody waits for them any more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from antiphon.bus.bus import Bus
from antiphon.clock import Timer
from antiphon.decide.asking import Asking
from antiphon.errors import AntiphonError, Overloaded
from antiphon.messages.search import SearchAbandoned, SearchAnswer, SearchAsk

log = structlog.get_logger("antiphon.client")

REQUEST_MAX = 60
"""Characters of a request's id to which the number of an ask is added; the bus takes 64."""


class Question:
    """One search.

    Each ask is a request of its own, so whoever is told that nobody waits for one of them (`SearchAbandoned`) never
    takes it for another, also where one master has got two of them.
    """

    def __init__(self, bus: Bus, asking: Asking, ask: SearchAsk, *, deadline_ms: int, request: str) -> None:
        self.bus, self.asking, self.ask = bus, asking, ask
        self.request, self.deadline_ms = request, deadline_ms
        self._ends_ms = bus.clock.now_ms() + deadline_ms
        self._silence_ms = asking.silence_ms(deadline_ms)
        self._asked_us = bus.clock.now_us()
        self._silent = {request: self._asked_us}
        """Requests that are waited for, and when they were asked."""
        self._again: list[asyncio.Task[SearchAnswer]] = []
        self._timer: Timer | None = None
        self._first: asyncio.Timeout | None = None
        """The wait for the first ask, which an answer to a later one ends; a task for it would cost every search."""
        self._winner: asyncio.Task[SearchAnswer] | None = None

    async def answer(self) -> SearchAnswer:
        """Return the first answer; raise the first ask's error when no ask is answered."""
        self._bear_silence()
        needed: int | None = None
        try:
            answer, needed = await self._race()
            return answer
        finally:
            self._first = None
            self._stop_asking()
            self.asking.ended(len(self._again), needed)
            for task in self._again:
                task.cancel()
            for request in tuple(self._silent):  # whoever works on it need not go on; also when this task was cancelled
                with suppress(AntiphonError):
                    await self.bus.publish(SearchAbandoned(request=request))

    async def _race(self) -> tuple[SearchAnswer, int]:
        """Return the first answer, and how many asks after the first one it took."""
        try:
            async with asyncio.timeout(None) as self._first:
                answer = await self._asked(self.request, self.deadline_ms)
        except TimeoutError:
            assert self._winner is not None, "only an answer ends the wait"
            return self._won(self._winner)
        except AntiphonError as error:
            self._first = None
            self._stop_asking()
            if not error.retryable:
                raise
            pending = set(self._again)
            while pending:  # they end with the deadline, too
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if self._winner in done:
                    return self._won(self._winner)
            raise
        return answer, 0

    async def _asked(self, request: str, budget_ms: int) -> SearchAnswer:
        try:
            answer = await self.bus.ask(self.ask, budget_ms=budget_ms, request_id=request)
        except AntiphonError:
            del self._silent[request]
            raise
        self.asking.answered(self._silent.pop(request), self.bus.clock.now_us())
        return answer

    def _bear_silence(self) -> None:
        self._timer = self.bus.clock.call_after(self._silence_ms, self._ask_again)

    def _ask_again(self) -> None:
        asks, left_ms = 1 + len(self._again), self._ends_ms - self.bus.clock.now_ms()
        if not self.asking.is_worth_it(asks, left_ms):
            return
        if self.asking.may_ask(self._asked_us):
            request = f"{self.request}-{asks + 1}" if len(self.request) <= REQUEST_MAX else self.bus.draw()
            self._silent[request] = self._asked_us = self.bus.clock.now_us()
            task = asyncio.get_running_loop().create_task(self._asked(request, left_ms))
            task.add_done_callback(self._over)
            self._again.append(task)
        self._bear_silence()

    def _over(self, task: asyncio.Task[SearchAnswer]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, AntiphonError):
            if isinstance(error, Overloaded):  # whoever has too much to do, or too much of this caller, is not pressed
                self._stop_asking()
        elif self._winner is None:
            self._winner = task
            if self._first is not None:
                self._first.reschedule(asyncio.get_running_loop().time())

    def _stop_asking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _won(self, task: asyncio.Task[SearchAnswer]) -> tuple[SearchAnswer, int]:
        answer = task.result()
        log.warning("search.asked_again", request=self.request, asks=1 + len(self._again), master=answer.master)
        return answer.model_copy(update={"request": self.request}), 1 + self._again.index(task)
