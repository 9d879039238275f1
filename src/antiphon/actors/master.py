"""The master: takes a question, asks every expected node once, and answers with one ranked list.

Each question is a conversation of its own (`actors/search.py`); this actor says whom it expects, cuts pages from
what it brings, keeps the lists that may be paged, and tells the facts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from antiphon.actors.asker import Askers
from antiphon.actors.breaker import BreakerHandle
from antiphon.actors.door import Door, DoorBounds
from antiphon.actors.listing import Listing
from antiphon.actors.search import Ground, Search, SearchBounds
from antiphon.bus.bus import Bus, Call
from antiphon.decide.cut import cut, flagged
from antiphon.decide.dispatch import Dispatch, DispatchBounds
from antiphon.decide.fusing import Fusing, NodeReply
from antiphon.decide.pages import Pages, cursor, parse_cursor
from antiphon.decide.policy import Access, Principal, Verify
from antiphon.decide.registry import RegistryView
from antiphon.decide.retry import RetryBounds
from antiphon.decide.traffic import Traffic
from antiphon.errors import Abandoned, AntiphonError, CursorExpired
from antiphon.messages.facts import SearchFinished
from antiphon.messages.search import SearchAbandoned, SearchAnswer, SearchAsk, SearchPage
from antiphon.messages.wire import WireAnswer, WireFinished, encode_wire
from antiphon.node import Node
from antiphon.runtime.actor import Actor, ActorBounds, Encoded, converses, hears
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View


class Master(Actor):
    """Answers searches."""

    name = "master"

    def __init__(
        self,
        bus: Bus,
        registry: View[RegistryView],
        facts: Facts,
        breakers: BreakerHandle,
        *,
        search: SearchBounds | None = None,
        dispatch: DispatchBounds | None = None,
        retries: RetryBounds | None = None,
        door: DoorBounds | None = None,
        bounds: ActorBounds | None = None,
        fallbacks: Sequence[Node] = (),
        access: View[Access] | None = None,
        verify: Verify | None = None,
        traffic: Traffic | None = None,
        dice: Random | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self.facts = facts
        self.traffic = traffic or Traffic()
        self.door = Door(bus, door or DoorBounds())
        self.askers = Askers(bus.clock, access or View(Access()), registry, verify, self.door.bounds.rate)
        self.ground = Ground(
            bus=bus,
            registry=registry,
            askers=self.askers,
            dispatch=Dispatch(dispatch or DispatchBounds(), breakers, dice or Random()),  # noqa: S311 - no secret, a choice
            suspects_itself=breakers.suspects_itself,
            limits=search or SearchBounds(),
            fallbacks=tuple(fallbacks),
            retries=retries or RetryBounds(),
            retry_budget=(retries or RetryBounds()).budget(),
        )
        self.pages: Pages[Listing] = Pages(self.ground.limits.pages)
        self._finished = facts.subject(SearchFinished)

    def subject_keys(self, kind: type) -> dict[str, str]:
        """Pages are asked of the master that keeps the list."""
        return {"master": self.bus.name} if kind is SearchPage else {}

    @converses(SearchAsk)
    async def search(self, call: Call[SearchAsk]) -> Encoded[SearchAnswer]:
        """Answer a question, unless its asker asks too often or this master has too much to do already."""
        began_us = self.bus.clock.now_us()
        who = Principal(call.caller)
        try:
            who = self.askers.who(call.caller, call.message.behalf)
            await self.door.enter(call, who.name)
        except AntiphonError as error:
            self._tell_refused(call, who, began_us, error.code)
            raise
        try:
            return await self._search(call, who, began_us)
        finally:
            self.door.leave()

    async def _search(self, call: Call[SearchAsk], who: Principal, began_us: int) -> Encoded[SearchAnswer]:
        try:
            search = Search(self.ground, call, who)
            await search.gather()
        except AntiphonError as error:
            self._tell_refused(call, who, began_us, error.code)
            raise
        except asyncio.CancelledError:
            self._tell_refused(call, who, began_us, Abandoned.code)
            raise
        listing, fusing = search.listing()
        answer = self.cut(listing, search.replies, fusing, offset=0, limit=call.message.limit, began_us=began_us)
        if answer.next is not None:  # it is paged, and there is more
            size = sum(len(data) for _, data, _ in listing.payloads)
            self.pages.keep(listing.token, listing, size, self.bus.clock.now_ms())
        self.traffic.finished(answer.nodes)
        if self.facts.is_on:
            self._tell_finished(who, len(fusing.scored) - len(listing.unique.scored), answer)
        return Encoded(encode_wire(answer))

    @converses(SearchPage)
    async def page(self, call: Call[SearchPage]) -> Encoded[SearchAnswer]:
        """Answer with a page of a list that is kept, to whom it was made for, while he may see all that it is from."""
        began_us = self.bus.clock.now_us()
        who = self.askers.who(call.caller, call.message.behalf)
        self.door.turn(who.name)
        master, token, offset = parse_cursor(call.message.cursor)
        if master != self.bus.name:
            raise CursorExpired(f"this cursor belongs to the master {master!r}")
        listing = self.pages.get(token, self.bus.clock.now_ms(), lambda kept: self._may_see(who, kept))
        replies = listing.replies()
        fusing = listing.fusion.fuse(listing.question, replies) if listing.ask.explain else None
        answer = self.cut(listing, replies, fusing, offset=offset, limit=call.message.limit, began_us=began_us)
        return Encoded(encode_wire(answer))

    def _may_see(self, who: Principal, listing: Listing) -> bool:
        return listing.owner == who.name and all(self.askers.may_search(who, line.node) for line in listing.lines)

    @hears(SearchAbandoned)
    async def abandon(self, fact: SearchAbandoned, keys: dict[str, str]) -> None:
        """End a search whose asker has left; another master's is not known here."""
        self.conversations.cancel(f"{keys['writer']}/{fact.request}")

    async def started(self) -> None:
        """Open what the door counts with."""
        await self.door.open()

    def conversation_key(self, call: Call[Any]) -> str:
        """Return what a search is cancelled by: only its own asker can name it."""
        return f"{call.caller}/{call.request}"

    def cut(
        self,
        listing: Listing,
        replies: Sequence[NodeReply],
        fusing: Fusing | None,
        *,
        offset: int,
        limit: int,
        began_us: int,
    ) -> WireAnswer:
        """Return one page of a list; hits are explained where the question wants it."""
        explain = fusing.explain if fusing is not None and listing.ask.explain else None
        page = cut(
            listing.unique,
            replies,
            explain,
            offset=offset,
            limit=limit,
            bytes_max=self.ground.limits.answer_bytes_max,
        )
        total = len(listing.unique.scored)
        is_more = listing.ask.paged and page.end < total
        return WireAnswer(
            request=listing.request,
            query=listing.question.text,
            terms=listing.question.terms,
            analyser=listing.question.analyser,
            fusion=listing.fusion.name,
            hits=page.hits,
            total=total,
            offset=offset,
            next=cursor(self.bus.name, listing.token, page.end) if is_more else None,
            complete=listing.is_complete,
            sufficient=listing.is_sufficient,
            coverage=listing.coverage,
            nodes=flagged(listing.lines, page.refused),
            master=self.bus.name,
            took_us=self.bus.clock.now_us() - began_us,
        )

    def _tell_finished(self, who: Principal, duplicates: int, answer: WireAnswer) -> None:
        fact = WireFinished(
            request=answer.request,
            caller=who.name,
            delegate=who.delegate,
            query=answer.query,
            at_ms=self.bus.clock.wall_ms(),
            took_us=answer.took_us,
            hits=len(answer.hits),
            total=answer.total,
            duplicates=duplicates,
            fusion=answer.fusion,
            complete=answer.complete,
            sufficient=answer.sufficient,
            coverage=answer.coverage,
            nodes=answer.nodes,
            contributed=Counter(hit.node for hit in answer.hits),
        )
        self.facts.tell_encoded(self._finished, encode_wire(fact))

    def _tell_refused(self, call: Call[SearchAsk], who: Principal, began_us: int, code: str) -> None:
        fact = SearchFinished(
            request=call.request,
            caller=who.name,
            delegate=who.delegate,
            query=call.message.query,
            at_ms=self.bus.clock.wall_ms(),
            took_us=self.bus.clock.now_us() - began_us,
            code=code,
        )
        self.facts.tell(fact)
