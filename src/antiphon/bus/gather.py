"""A gather: many questions on the one inbox, each answer handed over with the slot of its question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from antiphon.errors import AntiphonError

if TYPE_CHECKING:
    from antiphon.bus.bus import Bus
    from antiphon.bus.protocol import Headers

OnReply = Callable[[int, bytes, AntiphonError | None], None]
"""Called with the slot, the payload, and the error when there is one; it must not block."""


class Gather:
    """Answers to many questions, on the one inbox; each goes to `on_reply` with the slot of its question."""

    __slots__ = ("_bus", "_on_reply", "_tokens", "bug")

    def __init__(self, bus: Bus, on_reply: OnReply) -> None:
        self._bus = bus
        self._on_reply = on_reply
        self._tokens: list[str] = []
        self.bug: Callable[[Exception], None] | None = None

    async def ask(self, subject: str, data: bytes, *, headers: Headers | None = None) -> int:
        """Ask one more; return its slot: 0, 1, 2, ... in the order of asking."""
        slot = len(self._tokens)
        token = self._bus.draw()
        self._tokens.append(token)
        self._bus.expect(token, self, slot)
        try:
            await self._bus.transport.publish(subject, data, reply=self._bus.inbox_dot + token, headers=headers)
        except AntiphonError as error:
            self._bus.give_up(token)
            self.receive(slot, b"", error)
        return slot

    async def ask_each(self, subjects: Sequence[str], data: bytes) -> None:
        """Ask several the same, as one burst; their slots are the next ones, in this order."""
        bus, first = self._bus, len(self._tokens)
        tokens = [bus.draw() for _ in subjects]
        self._tokens += tokens
        for at, token in enumerate(tokens):
            bus.expect(token, self, first + at)
        inbox = bus.inbox_dot
        try:
            ways = [(subject, inbox + token) for subject, token in zip(subjects, tokens, strict=True)]
            await bus.transport.publish_each(ways, data)
        except AntiphonError as error:
            for at, token in enumerate(tokens):
                if bus.give_up(token):
                    self.receive(first + at, b"", error)

    def receive(self, slot: int, data: bytes, error: AntiphonError | None) -> None:
        """Hand over an answer; a bug in the receiver ends its own conversation, not the inbox."""
        try:
            self._on_reply(slot, data, error)
        except Exception as bug:
            if self.bug is None:
                raise
            self.bug(bug)

    def close(self) -> None:
        """Wait no more; what comes from now on is late."""
        for token in self._tokens:
            self._bus.give_up(token)
