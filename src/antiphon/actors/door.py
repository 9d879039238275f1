"""The door of a master: who may come in now.

Two questions before any work: how often does this caller ask, and how much is being worked on already.

The caller's rate is judged in this process first, for a tenth of a microsecond. Where several masters share the
callers, each would allow the whole rate; with `is_exact` the ones let in are counted together, in a counter stream.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from antiphon.bus.assets import counters_of
from antiphon.bus.bus import Bus, Call
from antiphon.bus.protocol import Counter
from antiphon.decide.admission import Admission, AdmissionBounds
from antiphon.decide.limit import Limiter, Rate, Window, judge_counted
from antiphon.errors import NotConnected, Overloaded

PREVIOUS_MAX = 10_000
"""Counts of the last window remembered; one more is read again."""


@dataclass(frozen=True, slots=True)
class DoorBounds:
    """Whom a master lets in."""

    rate: Rate | None = field(default_factory=Rate)
    """Of each caller; None is no limit."""
    is_exact: bool = False
    """Whether callers are counted over all masters."""
    admission: AdmissionBounds = field(default_factory=AdmissionBounds)


class Door:
    """One master's door."""

    def __init__(self, bus: Bus, bounds: DoorBounds) -> None:
        self.bus = bus
        self.bounds = bounds
        self.admission = Admission(bounds.admission)
        self._callers: Limiter[str] = Limiter()
        self._readers: Limiter[str] = Limiter()
        self._counter: Counter | None = None
        self._previous: OrderedDict[tuple[str, int], int] = OrderedDict()

    async def open(self) -> None:
        """Open the shared counters, where callers are counted exactly."""
        if self.bounds.is_exact and self.bounds.rate is not None:
            self._counter = await self.bus.transport.counter(counters_of(self.bus.prefix))

    async def enter(self, call: Call[Any], name: str) -> None:
        """Let somebody's question in, to be followed by `leave`; raises `Overloaded` with when to come back."""
        now_ms = self.bus.clock.now_ms()
        rate = self.bounds.rate
        if rate is not None:
            after_ms = self._callers.judge(name, rate, now_ms).retry_after_ms
            if not after_ms and self._counter is not None:
                after_ms = await self._count(self._counter, name, rate)
            if after_ms:
                text = f"{name} may search {rate.count} times in {rate.period_ms // 1_000} s"
                raise Overloaded(text, retry_after_ms=after_ms)
        verdict = self.admission.enter(now_ms - call.arrived_ms, now_ms)
        if not verdict.is_allowed:
            raise Overloaded("this master has too much to do", retry_after_ms=verdict.retry_after_ms)

    def turn(self, name: str) -> None:
        """Let somebody have a page of a list; as many as he may ask questions, and they count for themselves."""
        rate = self.bounds.rate
        after_ms = 0 if rate is None else self._readers.judge(name, rate, self.bus.clock.now_ms()).retry_after_ms
        if rate is not None and after_ms:
            text = f"{name} may turn {rate.count} pages in {rate.period_ms // 1_000} s"
            raise Overloaded(text, retry_after_ms=after_ms)

    def leave(self) -> None:
        """Note that a question that was let in has ended."""
        self.admission.leave()

    async def _count(self, counter: Counter, caller: str, rate: Rate) -> int:
        """Count one in over all masters, and take it back if it is one too many; return when to come back, or 0."""
        window = Window.at(self.bus.clock.wall_ms(), rate.period_ms)
        subject = window.counter("caller", caller, self.bus.prefix)
        try:
            counted = await counter.add(subject, 1)
            previous = await self._before(counter, caller, window)
            verdict = judge_counted(previous, counted, rate, window.elapsed_ms)
            if verdict.is_allowed:
                return 0
            await counter.add(subject, -1)
        except NotConnected:
            return 0  # the local rate has let it in; without the counter it is one rate a master
        now_ms = self.bus.clock.now_ms()
        self._callers.hold(caller, rate, now_ms + verdict.retry_after_ms, now_ms)
        return verdict.retry_after_ms

    async def _before(self, counter: Counter, caller: str, window: Window) -> int:
        """Return the count of the window before; it is read once, for it does not change any more."""
        key = (caller, window.number - 1)
        if key not in self._previous:
            last = Window(window.number - 1, 0)
            self._previous[key] = await counter.value(last.counter("caller", caller, self.bus.prefix))
            if len(self._previous) > PREVIOUS_MAX:
                self._previous.popitem(last=False)
        return self._previous[key]
