"""What a handler of an action is told besides its params, and how it says how far it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from antiphon.clock import Clock
from antiphon.messages.saga_history import StepDone

Told = Callable[[int, int | None, str], None]


@dataclass(slots=True, eq=False)
class ActionContext:
    """One run of an action, as its handler sees it.

    Attributes:
        action: its name.
        job: the job or the saga that it is part of.
        key: the idempotency key: the same whenever the same work is asked for again; `<job>/<node>` of a job,
            `<saga>/<step's number>f` of a saga's step and `...b` of its undoing.
        caller: who asks; for whom, where a delegate asks.
        groups: what the caller belongs to, as the masters know it.
        delegate: who asks on the caller's behalf; None where the caller asks himself.
        request: the request's id, for logs.
        dry_run: whether it is only to say what it would do.
        deadline_ms: when nobody waits any more, on the node's clock; see `left_ms`.
        step: the saga's step; None in a job.
        undo: what is to be undone: what the step was given, what it returned, and whether anybody knows that it was
            done; None where something is to be done.
        attempt: which run of the handler this is for the same command, counted from 1.
        is_cancelled: whether nobody wants it any more; for plain handlers, which cannot be cut off.
    """

    action: str
    job: str
    key: str
    clock: Clock
    deadline_ms: int
    told: Told
    caller: str | None = None
    groups: tuple[str, ...] = ()
    delegate: str | None = None
    request: str = ""
    dry_run: bool = False
    step: str | None = None
    undo: StepDone | None = None
    attempt: int = 1
    is_cancelled: bool = False
    loop: asyncio.AbstractEventLoop | None = None
    """Where progress is told that comes from a thread; nobody follows the progress of a saga's step."""

    @property
    def left_ms(self) -> int:
        """How many milliseconds are left until nobody waits any more."""
        return max(0, self.deadline_ms - self.clock.now_ms())

    async def progress(self, done: int, total: int | None = None, text: str = "") -> None:
        """Say how far it is; so often as is wanted, a few of them a second travel, the last one always does."""
        self.told(done, total, text)
        await asyncio.sleep(0)

    def tell(self, done: int, total: int | None = None, text: str = "") -> None:
        """Say how far it is, from a plain handler, which runs in a thread."""
        if self.loop is None:
            return
        with suppress(RuntimeError):  # the loop has ended: nobody listens any more
            self.loop.call_soon_threadsafe(self.told, done, total, text)
