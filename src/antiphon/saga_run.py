"""Sagas from Python: submit one, wait for its end, watch it, steer it, list what there is.

```python
from antiphon import Client

async with Client() as client:
    for line in await client.sagas(state="parked"):
        print(line.id, line.name, line.step, line.text)
```

`client.submit` begins a saga and returns at once, or with `wait=True` when it has ended or needs a person. A saga
belongs to no connection: `client.saga(id)` takes it up again anywhere. Asking for its end goes on when the master that
was asked dies: any other one answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, TypeVar, Unpack

from pydantic import BaseModel, JsonValue, ValidationError

from antiphon.bus.bus import Bus
from antiphon.bus.codec import as_object, first_reason
from antiphon.errors import Malformed, NotConnected, OutOfBudget, SagaUndone, Stopping
from antiphon.messages.base import Message
from antiphon.messages.saga import SagaDefinition
from antiphon.messages.saga_desk import (
    PAGE_MAX,
    SagaGet,
    SagaLine,
    SagaList,
    SagaOrder,
    SagaState,
    SagaValidate,
    SagaVerdict,
    SagaView,
)
from antiphon.patience import patiently
from antiphon.saga import Saga, SubmitWords

M = TypeVar("M", bound=Message)

BUDGET_MS: Final = 5_000
WAIT_MS: Final = 10_000
"""How long one question for the end waits at a master; then it is asked again."""
LOOK_MS: Final = 250
"""How often somebody who watches looks."""
PARKED_LOOK_MS: Final = 2_000
"""How often somebody looks who waits for the end of a parked one: of that a master answers at once."""
ENDS: Final = (SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.ABANDONED)

Input = Mapping[str, Any] | BaseModel | None


class SagaRun:
    """A saga that somebody follows; iterating yields it each time it has moved, until it has ended.

    Attributes:
        id: its id, under which it can be taken up again anywhere.
        last: how it stood when it was heard of last; None before the first answer.
    """

    def __init__(self, bus: Bus, saga: str, *, behalf: str | None = None) -> None:
        self.id = saga
        self.last: SagaView | None = None
        self._bus = bus
        self._behalf = behalf

    @property
    def is_over(self) -> bool:
        """Whether it has ended, as far as is known here."""
        return self.last is not None and self.last.state in ENDS

    @property
    def is_parked(self) -> bool:
        """Whether it needs a person, as far as is known here."""
        return self.last is not None and self.last.state is SagaState.PARKED

    async def view(self, *, history: bool = False) -> SagaView:
        """Return how it stands.

        Raises:
            UnknownSaga: there is no such saga, or it is somebody else's.
            AntiphonError: no master answers.
        """
        return await self._asked(BUDGET_MS, history=history)

    async def settled(self) -> SagaView:
        """Wait until it has ended or is parked, and return how it stands."""
        view = await self._asked(WAIT_MS, wait=True)
        while not (self.is_over or self.is_parked):
            await asyncio.sleep(LOOK_MS / 1_000)
            view = await self._asked(WAIT_MS, wait=True)
        return view

    async def ended(self) -> SagaView:
        """Wait until it has ended, however that is and however long it takes, and return how it ended.

        A parked saga is waited for as well: an operator may let it go on.
        """
        view = await self._asked(WAIT_MS, wait=True)
        while not self.is_over:
            await asyncio.sleep((PARKED_LOOK_MS if self.is_parked else LOOK_MS) / 1_000)
            view = await self._asked(WAIT_MS, wait=True)
        return view

    async def result(self) -> dict[str, JsonValue]:
        """Wait until it has ended, as `ended` does, and return the results of its steps by name.

        Raises:
            SagaUndone: it did not complete; `last` has the whole of how it ended.
        """
        view = await self.ended()
        if view.state is not SagaState.COMPLETED:
            raise SagaUndone(undone(view))
        return view.results

    async def watch(self, *, history: bool = False) -> AsyncIterator[SagaView]:
        """Yield it now and each time it has moved, until it has ended."""
        seen: SagaView | None = None
        while seen is None or seen.state not in ENDS:
            if seen is not None:
                await asyncio.sleep(LOOK_MS / 1_000)
            view = await self._asked(BUDGET_MS, history=history)
            if view != seen:
                yield view
            seen = view

    def __aiter__(self) -> AsyncIterator[SagaView]:
        return self.watch()

    async def cancel(self, text: str = "") -> SagaView:
        """Turn it back: what runs is waited for, then what was done is undone; the view says `compensating` until then.

        Raises:
            WrongState: it has ended, or is past its pivot.
        """
        return await self.order("cancel", text=text)

    async def pause(self, text: str = "") -> SagaView:
        """Have nothing more begun until it is resumed; what runs goes on."""
        return await self.order("pause", text=text)

    async def resume(self, text: str = "") -> SagaView:
        """Go on after a pause; raises `WrongState` where it is not paused."""
        return await self.order("resume", text=text)

    async def retry(self, step: str | None = None, text: str = "") -> SagaView:
        """Command a parked step again; an operator's, as all that follow."""
        return await self.order("retry", step=step, text=text)

    async def skip(self, step: str | None = None, text: str = "") -> SagaView:
        """Go on without a parked step; what was to be undone stays as it is, and stands in `left`."""
        return await self.order("skip", step=step, text=text)

    async def resolve(
        self, step: str | None = None, *, outcome: str = "succeeded", result: JsonValue = None, text: str = ""
    ) -> SagaView:
        """Say what became of a parked step, where a person has found out or done it by hand."""
        return await self.order("resolve", step=step, outcome=outcome, result=result, text=text)

    async def abandon(self, text: str = "") -> SagaView:
        """End it as it stands: nothing more is done or undone; `left` says what may be to be put right by hand."""
        return await self.order("abandon", text=text)

    async def order(self, order: str, **said: Any) -> SagaView:
        """Give an order, and return how it stands after it; it is asked for once.

        Raises:
            UnknownSaga: there is no such saga, or it is somebody else's.
            NotAllowed: only an operator may order this.
            WrongState: it makes no sense as the saga is; the text says why.
            OutOfBudget: no master has answered; the order may have been taken all the same.
        """
        ask = made(SagaOrder, id=self.id, order=order, behalf=self._behalf, **said)
        return self.heard(await self._bus.ask(ask, budget_ms=WAIT_MS))

    def heard(self, view: SagaView) -> SagaView:
        """Take what was heard of it."""
        self.last = view
        return view

    async def _asked(self, budget_ms: int, **how: bool) -> SagaView:
        ask = made(SagaGet, id=self.id, behalf=self._behalf, **how)
        return self.heard(await patiently(self._bus, ask, budget_ms))

    def __repr__(self) -> str:
        return f"SagaRun({self.id!r}, {'unheard of' if self.last is None else str(self.last.state)})"


class RunsSagas:
    """What a client can do with sagas."""

    @property
    def bus(self) -> Bus:
        """The connection."""
        raise NotImplementedError

    async def submit(
        self,
        saga: Saga | SagaDefinition,
        input: Input = None,  # noqa: A002 - it is what references call it
        *,
        behalf: str | None = None,
        **how: Unpack[SubmitWords],
    ) -> SagaRun:
        """Begin a saga, and return it once it is stored.

        Args:
            saga: what is to be done.
            input: what `{{input.NAME}}` refers to, a model or a mapping.
            behalf: a delegate's token: for whom it is submitted.
            how: `id`, the idempotency key: the same id again is the same saga; drawn here where not given, so that this
                call may be asked again without a second saga. `delay_ms` or `start_at_ms`: when it begins. `wait`:
                return when it has ended or is parked.

        Raises:
            Malformed: the input is no JSON.
            InvalidSaga: it makes no sense, by itself, with this input, or with the nodes that are there.
            NotAllowed: the policy does not let the caller run one of its actions.
            AlreadySubmitted: another saga, input or caller has this id.
            NoResponders: no master runs on this bus.
        """
        whole = saga if isinstance(saga, Saga) else Saga.of(saga)
        name = how["id"] = how.get("id") or self.bus.draw()
        ask = whole.submission(None if input is None else as_object(input, "input"), **how)
        run = SagaRun(self.bus, name, behalf=behalf)
        ask = ask.model_copy(update={"behalf": behalf})
        budget_ms = WAIT_MS if ask.wait else BUDGET_MS
        try:
            run.heard(await self.bus.ask(ask, budget_ms=budget_ms))
        except (OutOfBudget, NotConnected, Stopping):  # it may have begun: the same id again is the same saga
            run.heard(await patiently(self.bus, ask, budget_ms))
        if ask.wait and not (run.is_over or run.is_parked):
            await run.settled()
        return run

    def saga(self, saga: str, *, behalf: str | None = None) -> SagaRun:
        """Return a saga by its id, to follow or steer it; whether there is one shows when it is asked for."""
        return SagaRun(self.bus, saga, behalf=behalf)

    async def sagas(
        self,
        *,
        state: SagaState | str | None = None,
        name: str | None = None,
        caller: str | None = None,
        limit: int | None = None,
        behalf: str | None = None,
    ) -> tuple[SagaLine, ...]:
        """Return the sagas that the caller may see, by id, the first `limit`; an operator sees all, others their own.

        A master looks through all that there are for each 500 of them: where ends of a month are kept, say a limit.
        """
        given = {"state": state, "name": name, "caller": caller, "behalf": behalf}
        found: list[SagaLine] = []
        after: str | None = None
        while True:
            page = PAGE_MAX if limit is None else min(PAGE_MAX, limit - len(found))
            listing = await self.bus.ask(made(SagaList, **given, after=after, limit=page))
            found += listing.sagas
            after = listing.next
            if after is None or len(found) == limit:
                return tuple(found)

    async def validate(self, saga: Saga | SagaDefinition, input: Input = None) -> SagaVerdict:  # noqa: A002 - as above
        """Return what is wrong with a saga, with the nodes that are there, without beginning it."""
        definition = saga.unchecked if isinstance(saga, Saga) else saga
        given = None if input is None else as_object(input, "input")
        return await self.bus.ask(made(SagaValidate, definition=definition, input=given))


def undone(view: SagaView) -> str:
    """Return in words how a saga ended that did not complete: why, and what is left."""
    words = [f"{view.id} was {view.state}"]
    if view.cause is not None:
        why = view.cause
        parts = (why.reason, why.step, why.by and f"by {why.by}", why.code, why.text)
        words.append(" ".join(part for part in parts if part))
    if view.left:
        words.append(f"not undone: {', '.join(view.left)}")
    return "; ".join(words)


def made(kind: type[M], **fields: Any) -> M:
    """Return a message, or raise `Malformed` with what is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise Malformed(first_reason(error)) from None
