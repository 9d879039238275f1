"""The bus: typed publish, ask, gather and serve, once, above any transport.

One wildcard subscription on the connection's own inbox takes every answer; a dictionary says who waits for it.
That is two to three times cheaper than a subscription and a future for each request (nats-facts.md). The last token of
each reply subject is 128 random bits, so only the one who was asked can answer, once: an answer on a token that nobody
waits for is dropped and counted.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import structlog

from antiphon import subjects
from antiphon.bus import opening
from antiphon.bus.bounds import Bounds, Counters
from antiphon.bus.codec import (
    BUDGET,
    ERROR,
    ERROR_CODE,
    REQUEST,
    RETRY_AFTER,
    TOLD,
    TYPE,
    decode,
    encode,
    reply_error,
)
from antiphon.bus.gather import Gather, OnReply
from antiphon.bus.protocol import Delivery, Headers, Subscription, Transport
from antiphon.clock import Clock, LoopClock
from antiphon.errors import (
    AntiphonError,
    InvalidReply,
    Malformed,
    NoResponders,
    NotAllowed,
    NotAuthenticated,
    OutOfBudget,
    Oversize,
)
from antiphon.messages.base import Fact, Message, Request

log = structlog.get_logger("antiphon.bus")

if TYPE_CHECKING:  # what a registry is made of, which a node has no use for
    from antiphon.decide.grants import Rights
    from antiphon.decide.policy import Verify

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)

ANSWERS_MAX = 1_000
"""Answers to one question to everybody that wait to be read; more are dropped."""


@dataclass(slots=True)
class Call(Generic[M]):
    """One request as it is served.

    Attributes:
        message: what is asked, validated.
        caller: who asks: the subject's last token, which the server lets only its owner publish.
        keys: the other keys of the subject.
        request: the request's id.
        deadline_ms: when the asker stops waiting, on this process's clock.
        arrived_ms: when it was taken from the connection, on this process's clock.
        via: the connection that brought it, which the answer has to take; whoever holds it keeps it open.
    """

    bus: Bus
    message: M
    caller: str
    keys: dict[str, str]
    request: str
    deadline_ms: int
    reply: str
    arrived_ms: int
    via: object = None
    answered: bool = False

    async def answer(self, reply: Message | bytes) -> None:
        """Send the answer; a second one is a bug. Bytes are an answer that is already encoded."""
        assert not self.answered, "a call is answered once"
        self.answered = True
        data = reply if isinstance(reply, bytes) else encode(reply)
        via, self.via = self.via, None
        if not self.reply:
            return
        try:
            await self.bus.transport.publish(self.reply, data, via=via)
        except Oversize as error:
            await self.bus.refuse(self.reply, error, via=via)

    def refuse_soon(self, error: AntiphonError) -> None:
        """Send an error from where nothing can be waited for."""
        self.bus.soon(self.refuse(error))

    async def refuse(self, error: AntiphonError) -> None:
        """Send an error; after an answer there is nothing left to say."""
        if not self.answered:
            self.answered = True
            via, self.via = self.via, None
            await self.bus.refuse(self.reply, error, via=via)


Serve = Callable[[Call[M]], None]
"""Is called with a request as it is read; it must not block."""
Vet = Callable[[type[Request[Any]], str], None]
"""Is told what is asked by whom before it is read; raises `NotAllowed` where he may not."""
Heard = Callable[[M, dict[str, str]], None]
"""Is called with a fact and the keys of its subject as it is read; it must not block."""


class Bus:
    """One identity's connection, typed."""

    def __init__(  # noqa: D417 - the arguments are described
        self,
        transport: Transport,
        *,
        name: str,
        session: str,
        prefix: str = subjects.PREFIX,
        clock: Clock | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """Wrap a transport; call `start` before the first question.

        Args:
            transport: a connection whose inbox prefix is `subjects.inbox(name, session)`.
            name: the identity, the last token of everything this bus asks and tells.
            session: one process's or connection's own token.
        """
        self.transport = transport
        self.name = subjects.token(name)
        self.prefix = prefix
        self.clock: Clock = clock or LoopClock()
        self.bounds = bounds or Bounds()
        self.counters = Counters()
        self.inbox = subjects.inbox(name, session)
        # a corner of its own: nats-py's requests and watches use the same inbox, and their answers are no strays
        self.inbox_dot = self.inbox + ".r."
        self._waiting: dict[str, tuple[Gather, int]] = {}
        self._late: OrderedDict[str, None] = OrderedDict()
        self._entropy = ""
        self._entropy_at = 0
        self._started = False
        self._closing: list[Callable[[], Awaitable[None]]] = []
        self._refusals: set[asyncio.Task[None]] = set()
        self.verify: Verify | None = None
        """Reads on-behalf-of tokens, where this identity has been given the keys for it."""
        self.rejected: Callable[[], None] | None = None
        """Is called when an answer says that whoever was asked does not know who this is."""
        self.vet: Vet | None = None
        self.rights: Rights | None = None
        """What the server lets this identity do, where that is known; the rest it would drop in silence."""

    async def start(self) -> None:
        """Subscribe to the inbox."""
        if not self._started:
            self._started = True
            await self.transport.tap(self.inbox_dot + ">", self._take)

    def before_close(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call when the bus is closed, while there still is a connection."""
        self._closing.append(call)

    async def close(self) -> None:
        """Drain every subscription and disconnect."""
        while self._closing:
            await self._closing.pop()()
        await self.transport.close()

    # -- asking

    async def publish(self, fact: Fact, **keys: str) -> None:
        """Tell a fact to whoever listens."""
        subject = fact.route.template.subject(prefix=self.prefix, writer=self.name, **keys)
        await self.transport.publish(subject, encode(fact))

    async def tell(self, order: Request[Any], **keys: str) -> None:
        """Send an order that nobody answers (`Route.is_told`); its reply subject proves that it is this bus's."""
        assert order.route.is_told, f"{type(order).__name__} is asked"
        subject = order.route.template.subject(prefix=self.prefix, **keys)
        await self.transport.publish(subject, encode(order), reply=self.inbox_dot + TOLD)

    async def ask(
        self, request: Request[R], *, budget_ms: int | None = None, request_id: str | None = None, **keys: str
    ) -> R:
        """Ask one question and return its answer.

        Args:
            request: the question; its class names the answer's.
            budget_ms: how long to wait; it travels, so the answering side stops in time too.
            request_id: the id under which logs and facts know the request; drawn where not given.
            keys: the keys of the subject besides the caller.

        Raises:
            OutOfBudget: no answer in time.
            NoResponders: nobody listens on the subject.
            InvalidReply: the answer is not the declared reply.
            AntiphonError: whatever the answering side raised, as its own class.
        """
        if "caller" in request.route.template.keys:
            keys["caller"] = self.name
        subject = request.route.template.subject(prefix=self.prefix, **keys)
        self._check_rights(subject)
        budget = self.bounds.budget_default_ms if budget_ms is None else budget_ms
        headers = {TYPE: request.wire_type(), BUDGET: str(budget), REQUEST: request_id or self.draw()}
        data = await self.ask_bytes(subject, encode(request), headers=headers, budget_ms=budget)
        try:
            return cast("R", decode(request.reply_type(), data))
        except (Malformed, Oversize) as error:
            raise InvalidReply(error.text) from None

    def _check_rights(self, subject: str) -> None:
        if self.rights is not None and not self.rights.may_publish(subject):
            raise NotAllowed(f"{self.name} may not ask {subject!r} here: it takes another kind of identity")

    async def ask_bytes(self, subject: str, data: bytes, *, headers: Headers | None = None, budget_ms: int) -> bytes:
        """Ask with a payload that is already encoded, and return the answer's payload."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()

        def on_reply(_slot: int, payload: bytes, error: AntiphonError | None) -> None:
            if not answer.done():
                if error is None:
                    answer.set_result(payload)
                else:
                    answer.set_exception(error)

        def out_of_budget() -> None:
            if not answer.done():
                answer.set_exception(OutOfBudget(f"no answer within {budget_ms} ms"))

        gather = Gather(self, on_reply)
        timer = self.clock.call_after(budget_ms, out_of_budget)
        try:
            await gather.ask(subject, data, headers=headers)
            return await answer
        finally:
            timer.cancel()
            gather.close()

    async def ask_all(self, request: Request[R], *, wait_ms: int, quiet_ms: int = 100, **keys: str) -> list[R]:
        """Ask everybody who serves a request that has no queue group, and return what they say.

        Nobody knows how many they are (NATS ADR-47), so this returns when nobody has said anything for `quiet_ms`, at
        the latest after `wait_ms`. It is for people who look, never for searches: those know whom they expect.

        Raises `NoResponders` when nobody serves it, `OutOfBudget` when nobody answers, else what the first one raised
        when all of them did.
        """
        if "caller" in request.route.template.keys:
            keys["caller"] = self.name
        subject = request.route.template.subject(prefix=self.prefix, **keys)
        self._check_rights(subject)
        arrived: asyncio.Queue[Delivery] = asyncio.Queue(maxsize=ANSWERS_MAX)
        inbox = f"{self.inbox}.all.{self.draw()}"

        async def receive(delivery: Delivery) -> None:
            if not arrived.full():
                arrived.put_nowait(delivery)

        headers = {TYPE: request.wire_type(), BUDGET: str(wait_ms), REQUEST: self.draw()}
        subscription = await self.transport.subscribe(inbox, receive)
        try:
            await self.transport.publish(subject, encode(request), reply=inbox, headers=headers)
            end_ms = self.clock.now_ms() + wait_ms
            return cast("list[R]", await self._answers(arrived, request.reply_type(), end_ms, quiet_ms))
        finally:
            await subscription.drain()

    async def _answers(
        self, arrived: asyncio.Queue[Delivery], kind: type[Message], end_ms: int, quiet_ms: int
    ) -> list[Message]:
        answers: list[Message] = []
        failed: AntiphonError | None = None
        patience_ms = end_ms - self.clock.now_ms()
        while patience_ms > 0:
            try:
                delivery = await asyncio.wait_for(arrived.get(), patience_ms / 1_000)
            except TimeoutError:
                break
            try:
                error = reply_error(delivery.headers)
                if error is not None:
                    raise error
                answers.append(decode(kind, delivery.data))
            except AntiphonError as told:
                failed = failed or told
                if isinstance(told, NoResponders):
                    break
            patience_ms = min(quiet_ms, end_ms - self.clock.now_ms())
        if not answers:
            raise failed or OutOfBudget("no answer within the wait")
        return answers

    def gather(self, on_reply: OnReply) -> Gather:
        """Return a gather: ask any number, get each answer by its slot, close when enough is known."""
        return Gather(self, on_reply)

    def draw(self) -> str:
        """Return 128 fresh random bits as 32 hexadecimal digits; drawn from the system in blocks."""
        at = self._entropy_at
        if at >= len(self._entropy):
            self._entropy = os.urandom(4_096).hex()
            at = 0
        self._entropy_at = at + 32
        return self._entropy[at : at + 32]

    def expect(self, token: str, gather: Gather, slot: int) -> None:
        """Route the answer on `token` to a gather."""
        self._waiting[token] = (gather, slot)

    def give_up(self, token: str) -> bool:
        """Wait no more for `token`; return whether it was still open: then its answer will be late."""
        if self._waiting.pop(token, None) is None:
            return False
        self._late[token] = None
        if len(self._late) > self.bounds.late_tokens_max:
            self._late.popitem(last=False)
        return True

    def _take(self, subject: str, data: bytes, headers: Headers | None) -> None:
        token = subject[len(self.inbox_dot) :]
        waiting = self._waiting.pop(token, None)
        if waiting is None:
            if token in self._late:
                del self._late[token]
                self.counters.late += 1
            else:
                self.counters.strays += 1
            return
        error = reply_error(headers) if headers else None
        if self.rejected is not None and isinstance(error, NotAuthenticated):
            self.rejected()
        waiting[0].receive(waiting[1], data, error)

    # -- serving

    async def serve(
        self, kind: type[Request[Any]], serve: Serve[Any], *, queue: str | None = None, **keys: str
    ) -> Subscription:
        """Answer requests of one kind; what is not a legal request is answered with a typed error and never served."""
        pattern = kind.route.template.pattern(prefix=self.prefix, **keys)

        def receive(delivery: Delivery) -> None:
            try:
                call = self._open(kind, delivery)
            except AntiphonError as error:
                self.counters.refuse(error.code)
                # whose reply it is shows even where the caller's name is not a legal one
                if not kind.route.is_told and opening.may_reply(
                    kind, delivery.subject.rpartition(".")[2], delivery.reply
                ):
                    self.soon(self.refuse(delivery.reply, error, via=self.transport.way_of(delivery)))
                return
            if call is not None:
                serve(call)

        return await self.transport.hand(pattern, receive, queue=queue if queue is not None else kind.route.queue)

    async def hear(self, kind: type[Fact], heard: Heard[Any], **keys: str) -> Subscription:
        """Hear facts of one kind; what is not a legal fact is counted and dropped."""
        pattern = kind.route.template.pattern(prefix=self.prefix, **keys)

        def receive(delivery: Delivery) -> None:
            try:
                found = kind.route.template.parse(delivery.subject, prefix=self.prefix)
                fact = decode(kind, delivery.data)
            except AntiphonError as error:
                self.counters.refuse(error.code)
                return
            heard(fact, found)

        return await self.transport.hand(pattern, receive, queue=kind.route.queue)

    def soon(self, refusal: Coroutine[Any, Any, None]) -> None:
        """Send a refusal from where nothing can be waited for; of very many at once some are not sent."""
        if len(self._refusals) >= self.bounds.refusals_max:
            refusal.close()
            return
        task = asyncio.get_running_loop().create_task(refusal)
        self._refusals.add(task)
        task.add_done_callback(self._refusals.discard)

    async def refuse(self, reply: str, error: AntiphonError, *, via: object = None) -> None:
        """Send an error to a reply subject, by the way that the request came; its class crosses as its code."""
        if not reply:
            return
        text = error.text.replace("\r", " ").replace("\n", " ").encode("ascii", "replace").decode()[:1_000]
        headers = {ERROR_CODE: error.code, ERROR: text or error.code}
        if error.retry_after_ms is not None:
            headers[RETRY_AFTER] = str(error.retry_after_ms)
        try:
            await self.transport.publish(reply, b"", headers=headers, via=via)
        except AntiphonError as failed:
            log.warning("bus.refusal_not_sent", code=error.code, error=failed.code)

    def _open(self, kind: type[Request[Any]], delivery: Delivery) -> Call[Any] | None:
        keys = kind.route.template.parse(delivery.subject, prefix=self.prefix)
        caller = keys.pop("caller", "")
        if not opening.may_reply(kind, caller, delivery.reply):
            self.counters.laundered += 1
            return None
        if self.vet is not None:
            self.vet(kind, caller)
        headers = delivery.headers
        request, budget = None, self.bounds.budget_default_ms
        if headers:
            opening.check_type(kind, headers.get(TYPE))
            request = headers.get(REQUEST)
            if request and (len(request) > self.bounds.request_id_max or not request.isprintable()):
                raise Malformed(f"{REQUEST}: at most {self.bounds.request_id_max} printable characters")
            budget = opening.budget_ms(headers.get(BUDGET), self.bounds)
        message = decode(kind, delivery.data)
        carried = message.carried_budget_ms()
        if carried is not None:
            budget = opening.within_ms(carried, self.bounds)
        request = message.carried_request() or request or self.draw()
        reply = "" if kind.route.is_told else delivery.reply
        now_ms = self.clock.now_ms()
        way = self.transport.way_of(delivery)
        return Call(self, message, caller, keys, request, now_ms + budget, reply, now_ms, way)
