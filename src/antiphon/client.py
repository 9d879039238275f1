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

import asyncio
import getpass
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from antiphon.bus.bus import Bus, first_reason
from antiphon.bus.connect import connect
from antiphon.decide.pages import parse_cursor
from antiphon.errors import AntiphonError, CursorExpired, Malformed, NoResponders, NotConnected
from antiphon.messages.registry import NodeEntry, NodeList
from antiphon.messages.search import SearchAbandoned, SearchAnswer, SearchAsk, SearchPage

DEADLINE_MS = 5_000


class Client:
    """A publisher's connection.

    Args:
        nats: the server's URL; else the NATS context, `ANTIPHON_NATS`, the server of `antiphon up`, in this order.
        name: who asks; the last token of every question's subject. Default: this user's name.
        context: a NATS context by name.
        data: the data directory of an embedded server.
        bus: a started bus to use instead; it stays open.
    """

    def __init__(
        self,
        nats: str | None = None,
        *,
        name: str | None = None,
        context: str | None = None,
        data: Path | None = None,
        bus: Bus | None = None,
    ) -> None:
        self.name = name or user_name()
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
            self._bus = await connect(self.name, nats=self._nats, context=self._context, data=self._data)
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
        explain: bool = False,
        paged: bool = False,
        deadline_ms: int = DEADLINE_MS,
        request_id: str | None = None,
    ) -> SearchAnswer:
        """Ask all nodes, or the named ones, and return one ranked answer.

        Args:
            query: the question, 1 to 4,096 characters.
            limit: hits on the first page, 1 to 100.
            nodes: ask only these.
            required: without these the answer is not `sufficient`.
            optional: these do not count for `min_coverage`.
            min_coverage: the share of nodes, 0 to 1, below which the answer is not `sufficient`.
            fusion: a fusion method by name; default: the master's.
            explain: whether each hit says how its score came about.
            paged: keep the list, so that `answer.next` is the cursor of the next page; see `pages`.
            deadline_ms: how long to wait at most; an answer with what is there by then comes in time.
            request_id: the id under which logs and facts know the request.

        Raises:
            Malformed: the question is empty, too long, or holds control characters.
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
                explain=explain,
                paged=paged,
            )
        except ValidationError as error:
            raise Malformed(first_reason(error)) from None
        request_id = request_id or self.bus.draw()
        try:
            return await self.bus.ask(ask, budget_ms=deadline_ms, request_id=request_id)
        except asyncio.CancelledError:
            # whoever cancels this task has left; master and nodes need not go on
            with suppress(AntiphonError):
                await self.bus.publish(SearchAbandoned(request=request_id))
            raise

    async def page(self, cursor: str, *, limit: int = 10, deadline_ms: int = DEADLINE_MS) -> SearchAnswer:
        """Return the page that a cursor stands for; raises `CursorExpired` when its list is gone."""
        master, _, _ = parse_cursor(cursor)
        try:
            ask = SearchPage(cursor=cursor, limit=limit)
        except ValidationError as error:
            raise Malformed(first_reason(error)) from None
        try:
            return await self.bus.ask(ask, master=master, budget_ms=deadline_ms)
        except NoResponders:
            raise CursorExpired(f"the master {master!r} that kept this list is gone: ask again") from None

    async def pages(
        self, query: str, *, limit: int = 10, deadline_ms: int = DEADLINE_MS
    ) -> AsyncIterator[SearchAnswer]:
        """Yield the answer to a question page by page."""
        answer = await self.search(query, limit=limit, deadline_ms=deadline_ms, paged=True)
        yield answer
        while answer.next is not None:
            answer = await self.page(answer.next, limit=limit, deadline_ms=deadline_ms)
            yield answer

    async def nodes(self, *, capability: str | None = None, topic: str | None = None) -> tuple[NodeEntry, ...]:
        """Return the registered nodes, by name."""
        listing = await self.bus.ask(NodeList(capability=capability, topic=topic))
        return listing.nodes


def user_name() -> str:
    """Return this machine's user as a legal name, `user` where it has none."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # no such user in a container
        name = "user"
    return re.sub(r"[^a-z0-9_-]", "-", name.lower()).lstrip("-_")[:63] or "user"
