"""The actor behind a node: it listens on one instance's lane, runs the author's handlers, and keeps its place.

It joins once it listens, so that it is never asked before; beats; joins again now and then, so that a registry that
has lost its memory finds it; leaves before it stops listening. While no master is there it keeps trying.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import structlog

from antiphon.acting.declared import Action
from antiphon.acting.running import RunBounds, Runs
from antiphon.acting.steps import StepBounds, Steps
from antiphon.bus.bus import Bus, Call
from antiphon.decide import present
from antiphon.errors import AntiphonError, NotAllowed, UnknownMethod
from antiphon.messages.base import Acknowledged, Message
from antiphon.messages.handler import Query
from antiphon.messages.jobs import NodeAccepted, NodeRun
from antiphon.messages.lane import Load, NodeCancel, NodeFound, NodeSearch
from antiphon.messages.ping import NodePing, NodePong
from antiphon.messages.registry import HeartBeaten, NodeJoin, NodeLeave
from antiphon.messages.steps import NodeStep, StepTaken
from antiphon.messages.wire import WireLoad
from antiphon.runtime.actor import Actor, ActorBounds, Encoded, answers, converses
from antiphon.runtime.handlers import Handlers

if TYPE_CHECKING:
    from antiphon.decide.policy import Verify

log = structlog.get_logger("antiphon.node")

SearchHandler = Callable[[Query], Any]


@dataclass(frozen=True, slots=True)
class NodeBounds:
    """A node's own limits, in milliseconds and pieces."""

    running_max: int = 256
    """Questions worked on at once; one more is refused with `Overloaded`."""
    threads_max: int = 8
    """Synchronous handlers running at once."""
    runs_max: int = 64
    """Actions running at once; one more is refused with `Overloaded`."""
    progress_ms: int = 100
    """How often one run tells how far it is; what comes in between is told with the next."""
    steps_max: int = 256
    """Steps of sagas running at once; one more is refused with `Overloaded`, and offered again later."""
    inline_ms: int = 20
    """How long the end of an action is waited for that is to be in the answer itself."""
    join_budget_ms: int = 1_000
    join_retry_ms: int = 250
    rejoin_ms: int = 30_000
    leave_budget_ms: int = 500
    stop_grace_ms: int = 5_000
    latency_alpha: float = 0.3
    """Weight of the newest handling time in the moving average that rides on replies."""


class Responder(Actor):
    """One instance of a node."""

    name = "node"

    def __init__(
        self,
        bus: Bus,
        *,
        instance: str,
        card: NodeJoin,
        search: SearchHandler | None,
        actions: Mapping[str, Action] | None = None,
        bounds: NodeBounds | None = None,
        verify: Verify | None = None,
        documents: Callable[[], int | None] | None = None,
    ) -> None:
        self.node_bounds = bounds or NodeBounds()
        super().__init__(
            bus,
            bounds=ActorBounds(
                conversations_max=self.node_bounds.running_max, stop_grace_ms=self.node_bounds.stop_grace_ms
            ),
        )
        self.instance = instance
        self.card = card
        self.joined = asyncio.Event()
        self._handlers = Handlers(self.node_bounds.threads_max, bus.name, instance)
        self._search = None if search is None else self._handlers.runner(search, present.listed)
        self._verify = verify
        self._documents = documents
        limits = self.node_bounds
        self.runs = Runs(
            bus,
            instance,
            actions or {},
            self._handlers,
            load=lambda: self.load,
            bounds=RunBounds(limits.runs_max, limits.progress_ms, limits.inline_ms),
        )
        self.steps = Steps(
            bus, instance, actions or {}, self._handlers, bounds=StepBounds(running_max=limits.steps_max)
        )
        self._latency_us = 0.0
        self._made_ms = bus.clock.now_ms()
        self._heartbeat_ms = self.node_bounds.join_retry_ms
        self._beats_left = 0
        self._not_joined = ""
        """Why not, as it was told last."""

    def subject_keys(self, kind: type[Message]) -> dict[str, str]:  # noqa: ARG002 - all subjects are this lane
        """Return this instance's own lane."""
        return {"node": self.bus.name, "instance": self.instance}

    async def serving(self) -> None:
        """Join, now that the lane is listened to."""
        self.bus.transport.on_reconnect(self._forget_joining)
        self.tell(self._keep_place)

    async def stopping(self) -> None:
        """Leave, so that nobody asks any more; in turn, so that no join that is under way comes after it."""
        left = asyncio.Event()

        async def leave() -> None:
            await self._leave()
            left.set()

        self.tell(leave)
        patience_ms = self.node_bounds.join_budget_ms + self.node_bounds.leave_budget_ms
        with suppress(TimeoutError):
            await asyncio.wait_for(left.wait(), patience_ms / 1_000)

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does, then end the threads."""
        await super().stop(is_crashed=is_crashed)
        await asyncio.gather(
            self.runs.stop(self.node_bounds.stop_grace_ms), self.steps.stop(self.node_bounds.stop_grace_ms)
        )
        self._handlers.stop()

    @property
    def load(self) -> Load:
        """How busy this instance is."""
        return Load(in_flight=self._in_flight, latency_us=round(self._latency_us))

    @property
    def _in_flight(self) -> int:
        return len(self.conversations) + len(self.runs) + len(self.steps)

    def _load_since_start(self) -> Load:
        counted = {"cancelled": self.conversations.cancelled, "wasted_us": self.conversations.wasted_us}
        return self.load.model_copy(update=counted)

    def conversation_key(self, call: Call[Any]) -> str:
        """Return what a search is cancelled by: its master's ticket, for two callers may choose one request id."""
        return getattr(call.message, "ticket", None) or call.request

    @answers(NodeCancel)
    async def cancel(self, call: Call[NodeCancel]) -> Acknowledged:
        """Cut off the handler of a question or a job that nobody waits for."""
        self.conversations.cancel(call.message.ticket)
        self.runs.cancel(call.message.ticket)
        return Acknowledged()

    @converses(NodeSearch)
    async def search(self, call: Call[NodeSearch]) -> Encoded[NodeFound]:
        """Answer a question of a master."""
        ask = call.message
        if self._verify is not None and (ask.behalf is not None or ask.delegate is not None):
            self._check_behalf(ask, self._verify)
        return cast("Encoded[NodeFound]", await self.find(ask))

    @converses(NodeRun)
    async def run_action(self, call: Call[NodeRun]) -> NodeAccepted:
        """Begin an action; how far it is and how it ended goes into the job's record."""
        ask = call.message
        if self._verify is not None and (ask.behalf is not None or ask.delegate is not None):
            self._check_behalf(ask, self._verify)
        end = await self.runs.accept(ask)
        return NodeAccepted(job=ask.job, end=end, load=self.load)

    @converses(NodeStep)
    async def take_step(self, call: Call[NodeStep]) -> StepTaken:
        """Do or undo a step of a saga."""
        return StepTaken(end=await self.steps.take(call.message), load=self.load)

    @converses(NodePing)
    async def ping(self, call: Call[NodePing]) -> NodePong:  # noqa: ARG002 - a ping asks nothing else
        """Say that this instance is there; not in the mailbox, where a join may be waiting for a master."""
        load = self.load
        others = load.model_copy(update={"in_flight": load.in_flight - 1})  # this one is no work
        return NodePong(load=others, version=self.card.version, uptime_ms=self.bus.clock.now_ms() - self._made_ms)

    def _check_behalf(self, ask: NodeSearch | NodeRun, verify: Verify) -> None:
        """Raise `NotAllowed` where something is asked on somebody's behalf and no token says so."""
        try:
            _claimed(ask, verify)
        except NotAllowed as error:
            self.bus.counters.refuse(error.code)
            log.warning("node.behalf_refused", node=self.bus.name, request=ask.request, error=error.text)
            raise

    async def find(self, ask: NodeSearch) -> bytes:
        """Run the author's handler and return the encoded `NodeFound`; whatever it raises is `HandlerFailed`."""
        if self._search is None:
            raise UnknownMethod(f"the node {self.bus.name} has no search handler")
        query = Query(
            text=ask.query,
            terms=ask.terms,
            analyser=ask.analyser,
            limit=ask.limit,
            depth=ask.depth,
            caller=ask.caller,
            budget_ms=ask.budget_ms,
            request=ask.request,
            groups=ask.groups,
            delegate=ask.delegate,
        )
        began = self.bus.clock.now_us()
        with self._handlers.blamed("the search handler", ask.request):
            result = present.found(await self._search(query))
        took = self.bus.clock.now_us() - began
        self._latency_us += self.node_bounds.latency_alpha * (took - self._latency_us)
        load = WireLoad(self._in_flight, round(self._latency_us))
        room = min(NodeFound.size_max, self.bus.transport.payload_max)
        data, left_out = present.encode(query, result, load, bytes_max=room)
        if left_out:
            log.warning("node.hits_left_out", node=self.bus.name, request=ask.request, left_out=left_out)
        return data

    # -- keeping its place

    def _forget_joining(self) -> None:
        """Join again at the next beat: the server or its data may be new."""
        self._beats_left = 0

    async def _leave(self) -> None:
        if self.joined.is_set():
            budget_ms = self.node_bounds.leave_budget_ms
            try:
                await self.bus.ask(NodeLeave(instance=self.instance), budget_ms=budget_ms, instance=self.instance)
            except AntiphonError as error:
                log.warning("node.not_left", node=self.bus.name, instance=self.instance, code=error.code)

    async def _keep_place(self) -> None:
        if self.is_stopping:
            return
        if self._beats_left > 0:
            self._beats_left -= 1
            await self._beat()
        else:
            await self._join()
        self.tell_after(self._heartbeat_ms, self._keep_place)

    async def _join(self) -> None:
        try:
            budget_ms = self.node_bounds.join_budget_ms
            answer = await self.bus.ask(self._introduction(), budget_ms=budget_ms, instance=self.instance)
        except AntiphonError as error:
            self._heartbeat_ms = self.node_bounds.join_retry_ms
            tell = log.debug if self._not_joined == error.code else log.info  # it is tried four times a second
            tell("node.not_joined", node=self.bus.name, instance=self.instance, code=error.code, error=error.text)
            self._not_joined = error.code
            return
        self._not_joined = ""
        self._heartbeat_ms = answer.heartbeat_ms
        self._beats_left = max(1, self.node_bounds.rejoin_ms // answer.heartbeat_ms)
        if not self.joined.is_set():
            log.info("node.joined", node=self.bus.name, instance=self.instance, instances=answer.instances)
            self.joined.set()

    def _introduction(self) -> NodeJoin:
        """Return what this instance says of itself, with how many documents it has by now."""
        if self._documents is None:
            return self.card
        try:
            return NodeJoin.model_validate({**self.card.model_dump(), "documents": self._documents()})
        except Exception:
            # the author's bug; a node whose size is not known is asked all the same
            log.exception("node.size_unknown", node=self.bus.name)
            return self.card

    async def _beat(self) -> None:
        try:
            await self.bus.publish(HeartBeaten(load=self._load_since_start()), instance=self.instance)
        except AntiphonError as error:
            log.info("node.not_beaten", node=self.bus.name, code=error.code)


def _claimed(ask: NodeSearch | NodeRun, verify: Verify) -> None:
    """Raise `NotAllowed` unless a token says that this delegate asks for this caller."""
    if ask.behalf is None or ask.delegate is None:
        raise NotAllowed("it is asked on somebody's behalf, and one of token and delegate is missing")
    claims = verify(ask.behalf, ask.delegate)
    if (claims.principal, claims.delegate) != (ask.caller, ask.delegate):
        raise NotAllowed("the on-behalf-of token names somebody else")
