"""A client: asks the fabric and returns one ranked answer that says who answered and who did not.

```python
from antiphon import Client

async with Client() as client:
    answer = await client.search("how do I open a file")
    for hit in answer.hits:
        print(hit.score, hit.node, hit.title)
    print(answer.coverage)
```
"""

from __future__ import annotations

import getpass
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from pydantic import ValidationError

from antiphon import logs  # pyright: ignore[reportUnusedImport]  # noqa: F401 - first: structlog without rich
from antiphon.bus.bus import Bus
from antiphon.bus.codec import first_reason
from antiphon.decide.asking import Asking, AskingBounds
from antiphon.decide.overview import merge
from antiphon.decide.pages import parse_cursor
from antiphon.errors import CursorExpired, Malformed, NoResponders, NotConnected
from antiphon.identity.connect import connect, own_name
from antiphon.jobs import RunsActions
from antiphon.messages.base import Message
from antiphon.messages.breakers import BreakerList, BreakerListing, BreakerOrder
from antiphon.messages.card import Wish
from antiphon.messages.monitor import MonitorAsk, MonitorView
from antiphon.messages.operators import NodeGet, NodeRegister, NodeRemove, NodeRemoved, NodeUpdate
from antiphon.messages.ping import PingAnswer, PingAsk
from antiphon.messages.policy import ActionRule, Policy, PolicyGet, PolicySet, SearchRule
from antiphon.messages.registry import NodeEntry, NodeList, Status
from antiphon.messages.search import SearchAnswer, SearchAsk, SearchPage
from antiphon.messages.stats import StatsAnswer, StatsForget, StatsForgotten, StatsQuery
from antiphon.runtime.asking import Question
from antiphon.saga_run import RunsSagas

DEADLINE_MS = 5_000

M = TypeVar("M", bound=Message)


class CardWords(TypedDict, total=False):
    """What operators may set of a node; a field that is not given is the instances' own to say (docs/operations.md)."""

    description: str
    topics: Sequence[str]
    capabilities: Sequence[str]
    collections: Sequence[str]
    instances_min: int
    weight: int
    version: str
    metadata: Mapping[str, str]
    balancer: str
    max_parallel_requests: int
    rate_per_minute: int
    documents: int


class Client(RunsActions, RunsSagas):
    """A publisher's connection.

    Args:
        nats: the server's URL; else the NATS context, `ANTIPHON_NATS`, the server of `antiphon up`, in this order.
        name: who asks; the last token of every question's subject. Default: whom the credential names, else
            `$ANTIPHON_NAME`, whoever logged in here last, this user's name.
        context: a NATS context by name.
        data: the data directory of an embedded server.
        credentials: a credential file; default: `$ANTIPHON_CREDENTIALS`, `$ANTIPHON_TOKEN`, or what this machine has.
        bus: a started bus to use instead; it stays open.
        asking: when a search that nobody answers is asked again; `AskingBounds(share_permille=0)` is never.
    """

    def __init__(
        self,
        nats: str | None = None,
        *,
        name: str | None = None,
        context: str | None = None,
        data: Path | None = None,
        credentials: Path | None = None,
        bus: Bus | None = None,
        asking: AskingBounds | None = None,
    ) -> None:
        self.name = name or user_name()
        self._is_named = name is not None
        self._credentials = credentials
        self._asking = Asking(asking)
        self._nats = nats
        self._context = context
        self._data = data
        self._bus = bus
        self._owns_bus = bus is None

    @property
    def bus(self) -> Bus:
        """The connection; raises `NotConnected` before `connect`."""
        if self._bus is None:
            raise NotConnected("use `async with Client() as client`, or await client.connect() first")
        return self._bus

    async def connect(self) -> Self:
        """Connect; `async with` does it."""
        if self._bus is None:
            if not self._is_named:
                self.name = own_name(self.name, self._data, self._credentials)
            self._bus = await connect(
                self.name, nats=self._nats, context=self._context, data=self._data, credentials=self._credentials
            )
        return self

    async def close(self) -> None:
        """Disconnect."""
        if self._owns_bus and self._bus is not None:
            await self._bus.close()
            self._bus = None

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def search(
        self,
        query: str,
        *,
        limit: int = 10,
        nodes: Sequence[str] = (),
        required: Sequence[str] = (),
        optional: Sequence[str] = (),
        min_coverage: float = 0.0,
        fusion: str | None = None,
        balancer: str | None = None,
        explain: bool = False,
        paged: bool = False,
        deadline_ms: int = DEADLINE_MS,
        request_id: str | None = None,
        behalf: str | None = None,
    ) -> SearchAnswer:
        """Ask all nodes, or the named ones, and return one ranked answer.

        The master that has the question may be frozen: where nobody answers for much longer than answers take lately,
        it is asked again (docs/operations.md, several masters).

        Args:
            query: the question, 1 to 4,096 characters.
            limit: hits on the first page, 1 to 100.
            nodes: ask only these.
            required: without these the answer is not `sufficient`.
            optional: these do not count for `min_coverage`.
            min_coverage: the share of nodes, 0 to 1, below which the answer is not `sufficient`.
            fusion: a fusion method by name; default: the master's.
            balancer: how instances are picked, by name; default: the node's, else the master's.
            explain: whether each hit says how its score came about.
            paged: keep the list, so that `answer.next` is the cursor of the next page; see `pages`.
            deadline_ms: how long to wait at most; an answer with what is there by then comes in time.
            request_id: the id under which logs and facts know the request.
            behalf: a delegate's token that says for whom he asks; the answer is what that principal may see.

        Raises:
            Malformed: the question is empty, too long, or holds control characters.
            NotAllowed: the token is not taken, or the identity is suspended.
            UnknownNode: a named or required node is not registered.
            NoResponders: no master runs on this bus.
            OutOfBudget: not even a partial answer came in time.
        """
        try:
            ask = SearchAsk(
                query=query,
                limit=limit,
                nodes=tuple(nodes),
                required=tuple(required),
                optional=tuple(optional),
                min_coverage=min_coverage,
                fusion=fusion,
                balancer=balancer,
                explain=explain,
                paged=paged,
                behalf=behalf,
            )
        except ValidationError as error:
            raise Malformed(first_reason(error)) from None
        request_id = request_id or self.bus.draw()
        return await Question(self.bus, self._asking, ask, deadline_ms=deadline_ms, request=request_id).answer()

    async def page(
        self, cursor: str, *, limit: int = 10, deadline_ms: int = DEADLINE_MS, behalf: str | None = None
    ) -> SearchAnswer:
        """Return the page that a cursor stands for; raises `CursorExpired` when its list is gone or somebody else's."""
        master, _, _ = parse_cursor(cursor)
        try:
            ask = SearchPage(cursor=cursor, limit=limit, behalf=behalf)
        except ValidationError as error:
            raise Malformed(first_reason(error)) from None
        try:
            return await self.bus.ask(ask, master=master, budget_ms=deadline_ms)
        except NoResponders:
            raise CursorExpired(f"the master {master!r} that kept this list is gone: ask again") from None

    async def pages(
        self, query: str, *, limit: int = 10, deadline_ms: int = DEADLINE_MS, behalf: str | None = None
    ) -> AsyncIterator[SearchAnswer]:
        """Yield the answer to a question page by page."""
        answer = await self.search(query, limit=limit, deadline_ms=deadline_ms, paged=True, behalf=behalf)
        yield answer
        while answer.next is not None:
            answer = await self.page(answer.next, limit=limit, deadline_ms=deadline_ms, behalf=behalf)
            yield answer

    async def nodes(
        self,
        *,
        status: Status | str | None = None,
        capability: str | None = None,
        topic: str | None = None,
        name: str | None = None,
        where: str | None = None,
    ) -> tuple[NodeEntry, ...]:
        """Return the nodes that have all that is asked for, by name.

        Args:
            status: `active`, `draining`, `suspended` or `down`.
            capability: what they can do.
            topic: what they are about.
            name: a glob such as `shop-*`.
            where: an expression over the metadata such as `region=eu, tier!=test`.

        Raises:
            Malformed: the expression makes no sense; the text says where.
        """
        given = {"status": status, "capability": capability, "topic": topic, "name": name, "where": where}
        found: list[NodeEntry] = []
        after: str | None = None
        while True:
            listing = await self.bus.ask(_made(NodeList, **given, after=after))
            found += listing.nodes
            after = listing.next
            if after is None:
                return tuple(found)

    async def get(self, node: str) -> NodeEntry:
        """Return one node; raises `UnknownNode` where neither an instance nor an operator has named it."""
        return await self.bus.ask(_made(NodeGet, node=node))

    async def register(
        self, node: str, *, status: Wish | str | None = None, replace: bool = False, **card: Unpack[CardWords]
    ) -> NodeEntry:
        """Make a node's card exactly this, and expect the node from now on, whether or not it has instances.

        Args:
            node: its name.
            status: whether it is asked: `active`, `draining` or `suspended`; default: as it is, or active.
            replace: whether another card that is there already is replaced.
            card: what wins over what the node's instances say of themselves.

        Raises:
            AlreadyRegistered: it has another card, which is not to be replaced.
            Malformed: a field is outside its bounds.
        """
        return await self.bus.ask(_made(NodeRegister, node=node, status=status, replace=replace, **card))

    async def update(
        self, node: str, *, status: Wish | str | None = None, unset: Sequence[str] = (), **card: Unpack[CardWords]
    ) -> NodeEntry:
        """Set some fields of a node's card and leave the others; metadata is set key by key.

        Args:
            node: its name.
            status: whether it is asked.
            unset: fields to give back to the node's instances; `metadata.KEY` is one key of the metadata.
            card: the fields to set.

        Raises:
            UnknownNode: neither an instance nor an operator has named it.
            Malformed: a field is outside its bounds.
        """
        return await self.bus.ask(_made(NodeUpdate, node=node, status=status, unset=tuple(unset), **card))

    async def suspend(self, node: str) -> NodeEntry:
        """Have a node no longer asked; answers say that it was skipped."""
        return await self.update(node, status=Wish.SUSPENDED)

    async def drain(self, node: str) -> NodeEntry:
        """Have a node asked nothing new; what it has begun ends."""
        return await self.update(node, status=Wish.DRAINING)

    async def resume(self, node: str) -> NodeEntry:
        """Have a suspended or draining node asked again."""
        return await self.update(node, status=Wish.ACTIVE)

    async def remove(self, node: str) -> NodeRemoved:
        """Forget a node's card and its instances that are down; those that live stay (`left` says how many)."""
        return await self.bus.ask(_made(NodeRemove, node=node))

    async def policy(self) -> Policy:
        """Return who may search what and run what; for operators."""
        return await self.bus.ask(PolicyGet())

    async def set_policy(self, search: Sequence[SearchRule] = (), action: Sequence[ActionRule] = ()) -> Policy:
        """Make the policy exactly this; without a rule of a sort everybody may. For operators."""
        return await self.bus.ask(_made(PolicySet, search=tuple(search), action=tuple(action)))

    async def ping(self, *nodes: str, wait_ms: int = 1_000) -> PingAnswer:
        """Ping every instance of the named nodes, or of all; the answer has a line for each, the silent ones too."""
        budget_ms = wait_ms + self.bus.bounds.budget_default_ms
        return await self.bus.ask(_made(PingAsk, nodes=nodes, wait_ms=wait_ms), budget_ms=budget_ms)

    async def monitor(self, *, wait_ms: int = 2_000) -> MonitorView:
        """Return how everything is: every master is asked for its view, and one is made of them.

        Raises:
            NoResponders: no master runs on this bus.
        """
        return merge(await self.bus.ask_all(MonitorAsk(), wait_ms=wait_ms))

    async def sql(
        self, *statements: str, rows_max: int = 1_000, form: str = "json", budget_ms: int = 60_000
    ) -> StatsAnswer:
        """Ask the record of the last day in SQL, as an analyst or an operator; a table for each statement.

        Raises:
            InvalidQuery: a statement does more than read, or is no SQL.
            QueryLimit: it took too much time, memory or room.
            NoResponders: no recorder runs.
        """
        query = _made(StatsQuery, statements=statements, rows_max=rows_max, format=form)
        return await self.bus.ask(query, budget_ms=budget_ms)

    async def forget(self, who: str, *, wait_ms: int = 30_000) -> list[StatsForgotten]:
        """Have every recorder take a caller's name and questions out of its record; return what each says."""
        return await self.bus.ask_all(_made(StatsForget, who=who), wait_ms=wait_ms, quiet_ms=1_000)

    async def breakers(self, node: str | None = None) -> BreakerListing:
        """Return the breakers of a node, or of all, that are not closed by themselves."""
        return await self.bus.ask(_made(BreakerList, node=node))

    async def breaker(self, order: str, node: str, instance: str | None = None, *, verb: str = "search") -> None:
        """Move breakers by hand, of one instance or of all of a node.

        Args:
            order: `open` and `close` hold until another order, `reset` forgets everything and lets it go on by itself.
            node: the node.
            instance: one of its instances; default: all of them.
            verb: what is asked of it.

        Raises:
            UnknownNode: no such node or instance is registered.
        """
        await self.bus.ask(_made(BreakerOrder, node=node, instance=instance, verb=verb, order=order))


def _made(kind: type[M], **fields: Any) -> M:
    """Return a message, or raise `Malformed` with what is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise Malformed(first_reason(error)) from None


def user_name() -> str:
    """Return this machine's user as a legal name, `user` where it has none."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user in a container
        name = "user"
    return re.sub(r"[^a-z0-9_-]", "-", name.lower()).lstrip("-_")[:63] or "user"
