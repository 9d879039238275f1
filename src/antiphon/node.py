"""A node: a system that answers questions, in ten lines.

```python
from antiphon import Hit, Node

node = Node("blog", description="our articles", topics=["news"])


@node.search
async def search(query):
    return [Hit(id="1", title="Hello", text="the whole text of the article")]


if __name__ == "__main__":
    node.run()
```

The handler may be `async` or a plain function (then it runs in a thread). It gets a `Query` and returns hits, best
first, as `Hit`s or dictionaries. Start the program several times and the node has several instances.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from antiphon import logs, subjects
from antiphon.acting.declared import Action, declare
from antiphon.bus.bus import Bus
from antiphon.bus.codec import first_reason
from antiphon.decide import contract
from antiphon.errors import AntiphonError, InvalidSetting, Malformed
from antiphon.identity import kept
from antiphon.identity.connect import Wanted, connect
from antiphon.messages.actions import Effect
from antiphon.messages.base import Kind
from antiphon.messages.lane import NodeSearch
from antiphon.messages.registry import NodeJoin
from antiphon.responder import NodeBounds, Responder, SearchHandler
from antiphon.runtime.discovery import Discovery
from antiphon.runtime.loop import run
from antiphon.runtime.supervisor import Supervisor

if TYPE_CHECKING:
    from antiphon.decide.policy import Verify

log = structlog.get_logger("antiphon.node")

H = TypeVar("H", bound=SearchHandler)
A = TypeVar("A", bound=Callable[..., Any])


class Node:
    """One system on the fabric.

    Args:
        name: the node's name, the same for all its instances, `[a-z0-9][a-z0-9_-]{0,62}`.
        description: one or two sentences for people and for choosing nodes.
        topics: what it is about.
        capabilities: what it can do besides what it has handlers for; for choosing nodes.
        collections: the names of what it holds; for choosing nodes.
        version: the version of the program behind it.
        instance: this instance's own name; drawn where not given.
        weight: its share of the work where a balancer goes by weight.
        metadata: anything else to show in listings.
        documents: how many can be found, a number or a function of no arguments that is asked again at each join.
        bounds: the node's limits.

    Raises:
        InvalidName: the name or the instance is no subject token.
        InvalidSetting: a field is longer than its bound.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str = "",
        topics: Sequence[str] = (),
        capabilities: Sequence[str] = (),
        collections: Sequence[str] = (),
        version: str = "0",
        instance: str | None = None,
        weight: int = 100,
        metadata: Mapping[str, str] | None = None,
        documents: int | Callable[[], int | None] | None = None,
        bounds: NodeBounds | None = None,
    ) -> None:
        self.name = subjects.token(name)
        self.instance = subjects.token(instance or secrets.token_hex(4))
        self._is_drawn = instance is None
        if subjects.is_master(name):
            raise InvalidSetting(f"{name!r} is a name of masters")
        self.bounds = bounds or NodeBounds()
        self._card = {
            "instance": self.instance,
            "description": description,
            "topics": tuple(topics),
            "collections": tuple(collections),
            "version": version,
            "weight": weight,
            "metadata": dict(metadata or {}),
            "documents": None if callable(documents) else documents,
        }
        self._documents = documents if callable(documents) else None
        self._capabilities = tuple(capabilities)
        self._search: SearchHandler | None = None
        self._actions: dict[str, Action] = {}
        self._verify: Verify | None = None
        self._bus: Bus | None = None
        self._discovery: Discovery | None = None
        self._responder: Responder | None = None
        self._supervisor: Supervisor | None = None
        self._running: asyncio.Task[None] | None = None
        self.card()

    def search(self, handler: H) -> H:
        """Register the function that answers questions; a decorator. It takes a `Query` and returns hits.

        Raises:
            InvalidSetting: there is one already, or this one cannot be called with a `Query` alone.
        """
        if self._search is not None:
            raise InvalidSetting(f"the node {self.name} has a search handler already")
        try:
            inspect.signature(handler).bind(None)
        except TypeError as error:
            raise InvalidSetting(f"the search handler of {self.name} is called with a Query alone: {error}") from None
        except ValueError:  # a builtin that does not say what it takes
            pass
        self._search = handler
        return handler

    def action(
        self,
        name: str,
        *,
        params: type[BaseModel] | None = None,
        result: type[BaseModel] | None = None,
        description: str = "",
        effect: Effect | Literal["read", "write", "destructive"] = "write",
        idempotent: bool = False,
        at_most_once: bool = False,
        compensates: str | None = None,
        dry_run: bool = False,
        aggregates: Mapping[str, str] | None = None,
    ) -> Callable[[A], A]:
        """Register a function that does something when it is asked to; a decorator (docs/actions.md).

        It is called with the params, where there are any, and with an `ActionContext` if it takes one more argument.
        It may be `async` or a plain function (then it runs in a thread).

        Args:
            name: the action's, as a subject token.
            params: the model of what it takes; None where it takes nothing.
            result: the model of what it returns; None for any JSON.
            description: a sentence for people; default: the first line of the function's docstring.
            effect: what it does to this system; what is `destructive` has to be confirmed.
            idempotent: whether doing it twice is the same as once; only then is it ever asked twice.
            at_most_once: whether, as a saga's step, it is rather left undone than begun twice; whoever dies in between
                leaves it unknown, and it is compensated. Default: at least once, always with the same `context.key`.
            compensates: the action of this node that it undoes.
            dry_run: whether it looks at `context.dry_run`.
            aggregates: what is made of fields of all nodes' results: field -> `sum`, `mean` or `histogram`.

        Raises:
            InvalidSetting: there is one of that name, it cannot be called so, or its contract is out of bounds.
        """

        def register(handler: A) -> A:
            if name in self._actions:
                raise InvalidSetting(f"the node {self.name} has an action {name} already")
            declared = declare(
                name,
                handler,
                params=params,
                result=result,
                description=description or (inspect.getdoc(handler) or "").partition("\n")[0],
                effect=effect,
                idempotent=idempotent,
                at_most_once=at_most_once,
                compensates=compensates,
                has_dry_run=dry_run,
                aggregates=dict(aggregates or {}),
            )
            try:
                contract.check(declared.contract, compiles=False)
            except Malformed as error:
                raise InvalidSetting(error.text) from None
            self._actions[name] = declared
            self.card()
            return handler

        return register

    def card(self) -> NodeJoin:
        """Return what this instance tells the registry of itself; raises `InvalidSetting` for a field out of bounds."""
        handled = ("search",) if self._search is not None else ()
        able = tuple(dict.fromkeys((*handled, *self._actions, *self._capabilities)))
        contracts = tuple(action.contract for action in self._actions.values())
        try:
            return NodeJoin.model_validate({**self._card, "capabilities": able, "actions": contracts})
        except ValidationError as error:
            raise InvalidSetting(f"node {self.name}: {first_reason(error)}") from None

    def responder(self, bus: Bus) -> Responder:
        """Return the actor that answers for this node on a bus."""
        return Responder(
            bus,
            instance=self.instance,
            card=self.card(),
            search=self._search,
            actions=self._actions,
            documents=self._documents,
            bounds=self.bounds,
            verify=self._verify,
        )

    async def find(self, bus: Bus, ask: NodeSearch) -> bytes:
        """Answer a question in this process, without a lane: how masters ask their fallback nodes."""
        if self._responder is None:
            self._responder = self.responder(bus)
        return await self._responder.find(ask)

    async def start(
        self,
        nats: str | None = None,
        *,
        context: str | None = None,
        data: Path | None = None,
        credentials: Path | None = None,
        bus: Bus | None = None,
        verify: Verify | None = None,
    ) -> None:
        """Connect, listen, and join in the background; `joined` tells when a master has taken the node in.

        Args:
            nats: the server's URL; else the NATS context, `ANTIPHON_NATS`, the server of `antiphon up`, in this order.
            context: a NATS context by name.
            data: the data directory of an embedded server.
            credentials: a credential file; default: `$ANTIPHON_CREDENTIALS`, `$ANTIPHON_TOKEN`, or what lies here.
            bus: a bus of this node's own name, started, to use instead.
            verify: reads on-behalf-of tokens; without one the masters' word is taken.

        Raises:
            NotAuthenticated: the credential is refused.
            NotConnected: no server is there; the text says what to do.
        """
        for action in self._actions.values():
            undone = action.contract.compensates
            if undone is not None and undone not in self._actions:
                raise InvalidSetting(f"{action.contract.name} compensates {undone}, which {self.name} does not have")
        self._bus = bus or await self.connect(nats, context=context, data=data, credentials=credentials)
        started = self._bus
        self._verify = verify or self._verify or self._bus.verify
        self._supervisor = Supervisor()

        def make() -> Responder:
            self._responder = self.responder(started)
            return self._responder

        await self._supervisor.start(self.name, make)
        self._running = asyncio.get_running_loop().create_task(self._supervisor.run(), name=f"node:{self.name}")
        self._discovery = Discovery(
            started,
            name=self.name,
            instance=self.instance,
            version=installed_version("antiphon"),
            description=self.card().description or f"the node {self.name}",
            endpoints=lambda: [] if self._responder is None else self._responder.endpoints,
            metadata={"role": "node"},
            details=self._details,
        )
        await self._discovery.start()

    def _details(self) -> dict[str, dict[str, str]]:
        """Return what discovery tells of the endpoint that runs actions: their contracts, as JSON."""
        told = {name: action.contract.model_dump_json(exclude_none=True) for name, action in self._actions.items()}
        return {"run_action": told} if told else {}

    async def connect(
        self,
        nats: str | None = None,
        *,
        context: str | None = None,
        data: Path | None = None,
        credentials: Path | None = None,
    ) -> Bus:
        """Return this node's own bus, for `start`, which does it too.

        An instance that was given no name of its own is one that was here before, where there is one that no other
        process is: so a restart needs no new join token.
        """
        found = None
        if self._is_drawn:
            wanted = Wanted.of(credentials)
            found = kept.free_instance(data, self.name, wanted.file, is_joining=wanted.token is not None)
        if found is not None and found.credential.instance is not None:
            self.instance = self._card["instance"] = found.credential.instance
        try:
            bus = await connect(
                self.name,
                kind=Kind.NODE,
                instance=self.instance,
                nats=nats,
                context=context,
                data=data,
                credentials=credentials,
            )
        except BaseException:
            if found is not None:
                await found.release()
            raise
        found = found or kept.claim_own(data, self.name, self.instance)
        if found is not None:
            bus.before_close(found.release)
        return bus

    async def joined(self) -> None:
        """Return once a master has taken the node in, so that it is asked."""
        assert self._responder is not None, "start the node first"
        await self._responder.joined.wait()

    async def ended(self) -> None:
        """Return once a started node has stopped; raise the crash that stopped it."""
        assert self._running is not None, "start the node first"
        await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Leave, finish what was begun, and disconnect; whoever still waits is answered `Stopping`."""
        if self._discovery is not None:
            await self._discovery.stop()
        if self._supervisor is not None and self._running is not None:
            self._supervisor.stop()
            await self._running
        if self._bus is not None:
            await self._bus.close()

    async def serve(
        self,
        nats: str | None = None,
        *,
        context: str | None = None,
        data: Path | None = None,
        credentials: Path | None = None,
    ) -> None:
        """Start, and serve until SIGINT or SIGTERM or until this task is cancelled; then stop cleanly."""
        if self._search is None and not self._actions:
            log.warning("node.no_handler", node=self.name)
        await self.start(nats, context=context, data=data, credentials=credentials)
        assert self._running is not None
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, told.set)
        waiting = asyncio.ensure_future(told.wait())
        try:
            await asyncio.wait({waiting, self._running}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await self.stop()

    def run(
        self,
        nats: str | None = None,
        *,
        context: str | None = None,
        data: Path | None = None,
        credentials: Path | None = None,
    ) -> None:
        """Serve until stopped; for `if __name__ == "__main__"`. Logs go to stderr unless structlog is configured.

        What keeps it from serving, e.g. no server, ends the program with one line on stderr and exit code 1.
        """
        if not structlog.is_configured():
            logs.configure()
        try:
            run(self.serve(nats, context=context, data=data, credentials=credentials))
        except AntiphonError as error:
            raise SystemExit(logs.escaped(f"{self.name}: {error.code}: {error.text}")) from error
