"""An actor: private state, and typed handlers that change it one message at a time.

A handler is a method with one of three decorators:

- `@answers(Request)` runs in the mailbox, in order, and may change the state;
- `@converses(Request)` runs as a bounded child task, for long work; it reads views and tells its actor;
- `@hears(Fact)` runs in the mailbox and answers nobody.

The declared reply of the request and the handler's return annotation are compared when the class is made. A bug in a
mailbox handler crashes the actor: its caller is answered `Internal`, everyone still in the mailbox `Stopping`, and
the supervisor makes a new one (the Erlang rule: state that a bug may have spoilt is not kept).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar, cast, get_type_hints

import structlog

from antiphon.bus.bus import Bus, Call
from antiphon.bus.protocol import Subscription
from antiphon.clock import Timer
from antiphon.errors import Internal, Overloaded, Stopping
from antiphon.messages.base import Fact, Message, Request
from antiphon.runtime.conversations import Conversations, answer
from antiphon.runtime.endpoint import Endpoint

log = structlog.get_logger("antiphon.runtime")

M = TypeVar("M", bound=Message)
F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


class Encoded(bytes, Generic[M]):
    """A reply that is already JSON, for hot paths: `-> Encoded[SearchAnswer]`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Handles:
    """What a decorator says about a handler."""

    kind: type[Message]
    is_conversation: bool


@dataclass(frozen=True, slots=True)
class ActorBounds:
    """The limits of one actor; `settings.py` names them for operators."""

    mailbox_max: int = 4_096
    conversations_max: int = 1_024
    retry_after_ms: int = 100
    stop_grace_ms: int = 5_000


def answers(kind: type[Request[Any]]) -> Callable[[F], F]:
    """Answer a request in the mailbox; the method takes a `Call` and returns the declared reply."""
    return _marks(Handles(kind, is_conversation=False))


def converses(kind: type[Request[Any]]) -> Callable[[F], F]:
    """Answer a request in a child task; the method takes a `Call` and returns the declared reply."""
    return _marks(Handles(kind, is_conversation=True))


def hears(kind: type[Fact]) -> Callable[[F], F]:
    """Hear a fact in the mailbox; the method takes the fact and the keys of its subject, and returns None."""
    return _marks(Handles(kind, is_conversation=False))


def _marks(handles: Handles) -> Callable[[F], F]:
    def mark(method: F) -> F:
        cast("Any", method).handles = handles
        return method

    return mark


class Actor:
    """The root of all actors; a subclass is a name, its state, and its handlers."""

    name: ClassVar[str] = "actor"
    handlers: ClassVar[dict[str, Handles]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        found = dict(cls.handlers)
        for attribute, method in vars(cls).items():
            handles = getattr(method, "handles", None)
            if isinstance(handles, Handles):
                _check_reply(cls, method, handles)
                found[attribute] = handles
        cls.handlers = found

    def __init__(self, bus: Bus, *, bounds: ActorBounds | None = None) -> None:
        self.bus = bus
        self.bounds = bounds or ActorBounds()
        self.endpoints: list[Endpoint] = []
        self.conversations = Conversations(
            running_max=self.bounds.conversations_max, retry_after_ms=self.bounds.retry_after_ms
        )
        self._mailbox: asyncio.Queue[tuple[Callable[[], Awaitable[None]], Call[Any] | None]] = asyncio.Queue()
        self._subscriptions: list[Subscription] = []
        self._timers: set[Timer] = set()
        self.is_stopping = False

    def subject_keys(self, kind: type[Message]) -> dict[str, str]:  # noqa: ARG002 - for subclasses
        """Return the fixed keys of a handler's subject, e.g. the node and instance of a lane."""
        return {}

    def conversation_key(self, call: Call[Any]) -> str:
        """Return what a conversation can be cancelled by."""
        return call.request

    async def started(self) -> None:
        """Do what is needed before the first message is taken; for subclasses."""

    async def serving(self) -> None:
        """Do what is needed once messages are taken; for subclasses."""

    async def stopping(self) -> None:
        """Do what is needed before the last message is taken; for subclasses."""

    # -- life, called by the supervisor

    async def start(self) -> None:
        """Take messages from now on."""
        await self.started()
        for attribute, handles in type(self).handlers.items():
            await self._subscribe(attribute, handles)
        await self.bus.transport.flush()
        await self.serving()

    async def run(self) -> None:
        """Handle the mailbox in order, for ever; a bug in a handler ends it."""
        while True:
            work, call = await self._mailbox.get()
            try:
                await work()
            except asyncio.CancelledError:
                if call is not None:
                    await call.refuse(Stopping())
                raise
            except Exception:
                if call is not None:
                    await call.refuse(Internal(f"a bug while answering {type(call.message).__name__}; see the log"))
                raise
            finally:
                self._mailbox.task_done()

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Take no more, end what has begun within the grace, and answer `Stopping` to whoever is left."""
        self.is_stopping = True
        for timer in self._timers:
            timer.cancel()
        if not is_crashed:
            await self.stopping()
        for subscription in self._subscriptions:
            await subscription.drain()
        self._subscriptions.clear()
        if not is_crashed:
            await self._settle()
        while not self._mailbox.empty():
            _, call = self._mailbox.get_nowait()
            if call is not None:
                await call.refuse(Stopping())
        await self.conversations.stop(grace_ms=self.bounds.stop_grace_ms)

    async def _settle(self) -> None:
        try:
            await asyncio.wait_for(self._mailbox.join(), self.bounds.stop_grace_ms / 1_000)
        except TimeoutError:
            log.warning("actor.stop_grace_over", actor=self.name, left=self._mailbox.qsize())

    # -- messages

    def tell(self, work: Callable[[], Awaitable[None]]) -> None:
        """Put the actor's own work into its mailbox; never refused, so tell only what is bounded by itself."""
        self._mailbox.put_nowait((work, None))

    def tell_after(self, delay_ms: int, work: Callable[[], Awaitable[None]]) -> None:
        """Tell later, unless the actor is stopped before."""

        def due() -> None:
            self._timers.discard(timer)
            self.tell(work)

        if not self.is_stopping:
            timer = self.bus.clock.call_after(delay_ms, due)
            self._timers.add(timer)

    async def _subscribe(self, attribute: str, handles: Handles) -> None:
        method = getattr(self, attribute)
        keys = self.subject_keys(handles.kind)
        if issubclass(handles.kind, Fact):

            def heard(fact: Fact, found: dict[str, str]) -> None:
                self._deliver(lambda: method(fact, found), None)

            self._subscriptions.append(await self.bus.hear(handles.kind, heard, **keys))
            return
        kind = cast("type[Request[Any]]", handles.kind)
        endpoint = Endpoint(attribute, kind.route.template.pattern(prefix=self.bus.prefix, **keys), kind.route.queue)
        if not kind.route.is_told:  # discovery lists what can be asked
            self.endpoints.append(endpoint)

        def converse(call: Call[Any]) -> None:
            self.conversations.begin(call, method, self.conversation_key(call), endpoint)

        def deliver(call: Call[Any]) -> None:
            self._deliver(lambda: answer(call, method, endpoint), call)

        serve = converse if handles.is_conversation else deliver
        self._subscriptions.append(await self.bus.serve(kind, serve, **keys))

    def _deliver(self, work: Callable[[], Awaitable[None]], call: Call[Any] | None) -> None:
        if self._mailbox.qsize() < self.bounds.mailbox_max:
            self._mailbox.put_nowait((work, call))
        elif call is not None:
            text = f"{self.bounds.mailbox_max} messages wait in the mailbox of {self.name}"
            call.refuse_soon(Overloaded(text, retry_after_ms=self.bounds.retry_after_ms))
        else:
            self.bus.counters.refuse(Overloaded.code)


def _check_reply(owner: type, method: Callable[..., Any], handles: Handles) -> None:
    """Refuse a class whose handler does not return what its message declares."""
    if not inspect.iscoroutinefunction(method):
        raise TypeError(f"{owner.__name__}.{method.__name__} must be `async def`")
    returned = get_type_hints(method).get("return")
    if issubclass(handles.kind, Fact):
        legal: tuple[Any, ...] = (type(None),)
    else:
        reply: Any = cast("type[Request[Any]]", handles.kind).reply_type()
        legal = (reply, Encoded[reply])
    if returned not in legal:
        names = " or ".join(str(getattr(kind, "__name__", kind)) for kind in legal)
        where = f"{owner.__name__}.{method.__name__}"
        raise TypeError(f"{where} handles {handles.kind.__name__} and must return {names}, not {returned}")
