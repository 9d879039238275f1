"""One question on its way through the nodes: a conversation of the master.

It asks every expected node once, gathers exactly, falls back where nobody answered, fuses and removes duplicates.
When it is cut off (its asker has left, or the master stops) the nodes that still work on it are told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import orjson

from antiphon.actors.asker import Askers
from antiphon.actors.fallback import fall_back
from antiphon.actors.listing import Listing, coverage, line_of
from antiphon.bus.bus import Bus, Call
from antiphon.clock import Timer
from antiphon.decide import analyser, fuse
from antiphon.decide.dedupe import dedupe
from antiphon.decide.dispatch import Dispatch, Leg
from antiphon.decide.fusing import Fusing, NodeReply, Question
from antiphon.decide.gather import NEVER, Ask, Gathering
from antiphon.decide.pages import PageBounds
from antiphon.decide.policy import Principal
from antiphon.decide.registry import RegistryView, sizes
from antiphon.decide.retry import UNDELIVERED, Answer, Budget, RetryBounds, judge
from antiphon.decide.select import Requirement, select
from antiphon.errors import AntiphonError, OutOfBudget
from antiphon.messages.lane import NodeCancel, NodeSearch
from antiphon.messages.search import Outcome, SearchAsk
from antiphon.messages.wire import WireFound, WireLine, decode_found
from antiphon.node import Node
from antiphon.runtime.views import View

LANES_MAX = 4_096
"""Subjects of lanes remembered, so that they are not put together again for each search."""


@dataclass(frozen=True, slots=True)
class SearchBounds:
    """The limits and defaults of searching; `settings.py` names them for operators."""

    fusion: str = fuse.DEFAULT
    hits_min: int = 20
    """Hits asked of an engine that ranks, at least; nDCG@10 is full with 10 to 20 a node (docs/search.md)."""
    depth: int = 100
    """Hits asked of an engine that only matches."""
    reserve_ms: int = 50
    """Kept of the budget for fusing and for the way back, at most a fifth of it."""
    fallback_reserve_ms: int = 500
    """Kept of the budget for fallback nodes, at most a quarter of it, where there are any."""
    answer_bytes_max: int = 900_000
    """A page ends here even when its limit is not reached; the rest is on the next."""
    pages: PageBounds = field(default_factory=PageBounds)


@dataclass(frozen=True, slots=True)
class Ground:
    """What every search of one master stands on."""

    bus: Bus
    registry: View[RegistryView]
    askers: Askers
    dispatch: Dispatch
    suspects_itself: Callable[[], bool]
    limits: SearchBounds
    fallbacks: tuple[Node, ...]
    retries: RetryBounds
    retry_budget: Budget


class Search:
    """One question on its way through the nodes."""

    def __init__(self, ground: Ground, call: Call[SearchAsk], who: Principal) -> None:
        ask = call.message
        self.ground = ground
        self.call = call
        self.who = who
        self.clock = ground.bus.clock
        self.fusion = fuse.method(ask.fusion or ground.limits.fusion)
        ours = analyser.default()
        self.question = Question(ask.query, ours.question(ask.query), ours.id)
        self.budget_ms = self._left_ms()
        registry, shown = ground.registry.current, ground.askers.shown(who)
        self.fallbacks = [node for node in ground.fallbacks if ground.askers.may_search(who, node.name)]
        self.expected = ground.dispatch.expect(
            registry,
            select(shown, ask),
            self,
            left_ms=self.budget_ms,
            now_ms=self.clock.now_ms(),
            balancer=ask.balancer,
        )
        self.gathering = Gathering(self.expected)
        self._legs: list[Leg] = []
        self._entered = {at for at, one in enumerate(self.expected) if one.instances and not one.is_waiting}
        """Lines that hold a place in their node's compartment."""
        self._timer: Timer | None = None
        self.replies: list[NodeReply] = []
        self._payloads: list[tuple[str, bytes, tuple[int | None, int | None]]] = []
        self.flags: dict[str, tuple[str, ...]] = {}
        self.fallback_lines: list[WireLine] = []
        self._again: deque[Ask] = deque()
        self._ticket = ground.bus.draw()
        self._losses = ground.bus.transport.losses
        self._lost: deque[Ask] = deque()
        """Instances that work on it although nobody waits any more, and have not been told."""
        self._turn: asyncio.Future[None] | None = None
        self._bug: Exception | None = None

    async def gather(self) -> None:
        """Ask every expected node, and the fallback nodes where none of them answered."""
        await self._gather()
        if not self.replies and self.fallbacks:
            await self._fall_back()

    def listing(self) -> tuple[Listing, Fusing]:
        """Fuse what was gathered and remove duplicates."""
        fusing = self.fusion.fuse(self.question, self.replies)
        unique = dedupe(fusing.scored, self.replies)
        for node, flags in fusing.flags.items():
            self.flags[node] = (*self.flags.get(node, ()), *flags)
        gathering = self.gathering
        is_complete = gathering.reached == len(gathering.lines)
        ask = self.call.message
        listing = Listing(
            request=self.call.request,
            owner=self.who.name,
            ask=ask,
            question=self.question,
            fusion=self.fusion,
            unique=unique,
            payloads=self._payloads,
            coverage=coverage(gathering, self._suspects_itself, fell_back=bool(self.fallback_lines)),
            lines=[line_of(line, self.flags.get(line.node, ())) for line in gathering.lines] + self.fallback_lines,
            is_complete=is_complete,
            is_sufficient=is_complete or self._is_sufficient(),
            token=self.ground.bus.draw(),
        )
        return listing, fusing

    def _suspects_itself(self) -> bool:
        """Whether most nodes fail at once; whoever rules limit is not told, also where he sees all that there is now.

        It would tell him how the others are, or else that there are others.
        """
        return not self.ground.askers.is_limited(self.who) and self.ground.suspects_itself()

    def _is_sufficient(self) -> bool:
        ask = self.call.message
        needs = Requirement(frozenset(ask.required), frozenset(ask.optional), ask.min_coverage)
        return needs.is_met(self.gathering.answering, frozenset(line.node for line in self.gathering.lines))

    def _left_ms(self) -> int:
        """Return the budget that is left for gathering: the answer has to travel, too."""
        left = self.call.deadline_ms - self.clock.now_ms()
        return max(0, left - min(self.ground.limits.reserve_ms, left // 5))

    def _payload(self, budget_ms: int) -> bytes:
        ask, who = self.call.message, self.who
        limits = self.ground.limits
        asked = {
            "request": self.call.request,
            "ticket": self._ticket,
            "budget_ms": budget_ms,
            "query": ask.query,
            "terms": self.question.terms,
            "analyser": self.question.analyser,
            "limit": max(limits.hits_min, ask.limit),
            "depth": max(limits.depth, ask.limit),
            "caller": who.name,
        }
        if who.groups:
            asked["groups"] = who.groups
        if who.delegate is not None:
            asked |= {"delegate": who.delegate, "behalf": ask.behalf}
        return orjson.dumps(asked)

    async def _gather(self) -> None:
        payload = self._payload(self.budget_ms)
        wire = self.ground.bus.gather(self._on_reply)
        wire.bug = self._on_bug
        timers = [self.clock.call_after(self.budget_ms, self._on_deadline)]
        if self.fallbacks:
            reserve = min(self.ground.limits.fallback_reserve_ms, self.budget_ms // 4)
            timers.append(self.clock.call_after(self.budget_ms - reserve, self._on_nobody))
        try:
            asks = self.gathering.begin(self.clock.now_us())
            self.ground.dispatch.hedges.requested(len(asks))
            self.ground.retry_budget.requested(len(asks))
            self._again.extend(asks)
            self._schedule()
            while True:
                now_us, now_ms = self.clock.now_us(), self.clock.now_ms()
                if self._again:
                    asks = list(self._again)
                    self._again.clear()
                    for ask in asks:
                        self._start(ask, now_us, now_ms)
                    prefix = self.ground.bus.prefix
                    await wire.ask_each([_lane(prefix, ask.node, ask.instance) for ask in asks], payload)
                if self._bug is not None:
                    raise self._bug
                self._let_go()
                await self._tell_lost()
                if self.gathering.is_over:
                    return
                if self._again or self._bug is not None:
                    continue  # it came while the lost ones were told, when nobody waited to be woken
                self._turn = asyncio.get_running_loop().create_future()
                await self._turn
        finally:
            for timer in (*timers, self._timer):
                if timer is not None:
                    timer.cancel()
            wire.close()
            self._end()
            await self._tell_lost()

    def _start(self, ask: Ask, now_us: int, now_ms: int) -> None:
        expected = self.expected[ask.at]
        is_probe = expected.is_probe and ask.instance == expected.instances[0] and self.gathering.is_first(ask)
        self._legs.append(self.ground.dispatch.started(ask.node, ask.instance, now_us, now_ms, is_probe=is_probe))

    def _schedule(self) -> None:
        """Wake up when the next bound, hedge or retry is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_us = self.gathering.wake_us()
        if wake_us < NEVER:
            delay_ms = max(0, -(-(wake_us - self.clock.now_us()) // 1_000))
            if delay_ms < self.budget_ms:
                self._timer = self.clock.call_after(delay_ms, self._on_due)

    def _on_due(self) -> None:
        now_ms = self.clock.now_ms()
        asks = self.gathering.due(self.clock.now_us(), lambda: self.ground.dispatch.hedges.spend(now_ms))
        self._again.extend(asks)
        self._schedule()
        self._wake()

    def admitted(self, at: int) -> None:
        """Ask a node now in whose compartment there is room."""
        self._entered.add(at)
        ask = self.gathering.admit(at, self.clock.now_us())
        if ask is not None:
            self._again.append(ask)
            self._schedule()
        self._wake()

    def _let_go(self) -> None:
        """Give up what lost its hedge or passed its node's bound, and leave the compartments of nodes that are done."""
        now_us, now_ms = self.clock.now_us(), self.clock.now_ms()
        dispatch, lines = self.ground.dispatch, self.gathering.lines
        for slot, ask, _ in self.gathering.losers(now_us):
            if slot >= len(self._legs):
                continue  # it was never sent
            if lines[ask.at].outcome is Outcome.TIMED_OUT and not self._was_cut_off():
                dispatch.ended(self._legs[slot], OutOfBudget.code, now_us, now_ms)
            else:
                dispatch.abandoned(self._legs[slot], now_us, now_ms)
            self._lost.append(ask)
        for at in [at for at in self._entered if lines[at].outcome is not None]:
            self._leave(at, now_ms)

    def _leave(self, at: int, now_ms: int) -> None:
        """Give the place in a node's compartment to whoever waits for it."""
        self._entered.discard(at)
        self.ground.dispatch.left(self.gathering.lines[at].node, now_ms)

    def _was_cut_off(self) -> bool:
        """Whether this master's own connection was lost meanwhile: then silence says nothing about a node."""
        transport = self.ground.bus.transport
        return transport.losses != self._losses or not transport.is_connected

    def _end(self) -> None:
        """Let go of everything, however this search ends; nothing here waits, so no cancel can leave a count behind."""
        self._let_go()
        now_us, now_ms = self.clock.now_us(), self.clock.now_ms()
        for slot, ask, _ in self.gathering.running():
            if slot < len(self._legs):
                self.ground.dispatch.abandoned(self._legs[slot], now_us, now_ms)
                self._lost.append(ask)
        for at in self._entered:
            self.ground.dispatch.left(self.gathering.lines[at].node, now_ms)
        self._entered.clear()
        for at, one in enumerate(self.expected):
            if one.is_waiting:
                self.ground.dispatch.withdraw(one.node, self, at)

    async def _tell_lost(self) -> None:
        """Tell the instances that still work on it that nobody waits any more."""
        while self._lost:
            await self._cancel(self._lost.popleft())

    async def _cancel(self, ask: Ask) -> None:
        with suppress(AntiphonError):  # without a connection there is nobody to tell
            await self.ground.bus.tell(NodeCancel(ticket=self._ticket), node=ask.node, instance=ask.instance)

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def _on_reply(self, slot: int, data: bytes, error: AntiphonError | None) -> None:
        now_us, now_ms = self.clock.now_us(), self.clock.now_ms()
        gathering, dispatch = self.gathering, self.ground.dispatch
        leg = self._legs[slot]
        if error is None:
            try:
                found, clipped = decode_found(data, self.call.request)
            except AntiphonError as refused:
                error = refused
            else:
                dispatch.ended(leg, None, now_us, now_ms)
                if found.load is not None:
                    load = found.load
                    leg.of.loads.told(leg.instance, load.in_flight, load.latency_us, now_ms)
                at = gathering.answered(slot, len(found.hits), now_us, len(data))
                if at is not None:
                    self._keep(gathering.lines[at].node, found, data, is_clipped=clipped > 0)
        if error is not None:
            dispatch.ended(leg, error.code, now_us, now_ms)
            self._on_failure(slot, error, now_us, now_ms)
        owner = gathering.owner(slot)
        if owner in self._entered and gathering.lines[owner].outcome is not None:
            self._leave(owner, now_ms)  # now, not when the slowest of the others has answered
        if gathering.is_over or gathering.hedged or self._again:
            self._wake()

    def _keep(self, node: str, found: WireFound, data: bytes, *, is_clipped: bool) -> None:
        known = sizes(self.ground.registry.current, node)
        self.replies.append(NodeReply(node, found, *known))
        if self.call.message.paged:
            self._payloads.append((node, data, known))
        if is_clipped:
            self.flags[node] = ("hits_clipped",)

    def _on_failure(self, slot: int, error: AntiphonError, now_us: int, now_ms: int) -> None:
        def retry(attempts: int) -> int | None:
            verdict = judge(
                error,
                attempts=attempts,
                is_idempotent=True,
                left_ms=self._left_ms(),
                bounds=self.ground.retries,
                budget=self.ground.retry_budget,
                now_ms=now_ms,
                dice=self.ground.dispatch.dice.random(),
            )
            return verdict.delay_ms * 1_000 if verdict.answer is Answer.RETRY else None

        again = self.gathering.failed(
            slot, error.code, error.text, now_us, is_undelivered=isinstance(error, UNDELIVERED), retry=retry
        )
        if again is not None:
            self._again.append(again)
        self._schedule()

    def _on_bug(self, bug: Exception) -> None:
        self._bug = bug
        self._wake()

    def _on_deadline(self) -> None:
        self.gathering.deadline(self.clock.now_us())
        self._wake()

    def _on_nobody(self) -> None:
        if not self.replies:
            self._on_deadline()

    async def _fall_back(self) -> None:
        """Ask the nodes in this process; they are not expected, so they count for no coverage."""
        ask = NodeSearch.model_validate_json(self._payload(self._left_ms()))
        for one in await fall_back(self.ground.bus, self.fallbacks, ask, self._left_ms()):
            self.fallback_lines.append(one.line)
            if one.found is not None:
                self.replies.append(NodeReply(one.line.node, one.found))
                self._payloads.append((one.line.node, one.data, (None, None)))


@lru_cache(LANES_MAX)
def _lane(prefix: str, node: str, instance: str) -> str:
    return NodeSearch.route.template.subject(prefix=prefix, node=node, instance=instance)
