"""Pings of single instances on their lanes, many at once, with no task and no waiting: the answer comes as a call.

The monitor asks everybody now and then with it, the breaker probes with it who is not searched. A handful of pings to
answer an operator is `actors/ping.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from antiphon.bus.bus import Bus
from antiphon.bus.codec import decode, encode
from antiphon.bus.gather import Gather
from antiphon.clock import Timer
from antiphon.errors import AntiphonError, OutOfBudget
from antiphon.messages.ping import NodePing, NodePong

Done = Callable[["Echo"], None]


@dataclass(frozen=True, slots=True)
class Echo:
    """What became of one ping."""

    node: str
    instance: str
    took_us: int
    pong: NodePong | None = None
    code: str | None = None
    """The wire code of the error where there was no pong."""


class Pings:
    """The pings of one actor that are under way."""

    def __init__(self, bus: Bus, *, wait_ms: int) -> None:
        self.bus = bus
        self.wait_ms = wait_ms
        self._payload = encode(NodePing(budget_ms=wait_ms))
        self._running: dict[Gather, Timer] = {}

    def __len__(self) -> int:
        """Return how many are waited for."""
        return len(self._running)

    async def ask(self, node: str, instance: str, done: Done) -> None:
        """Ping an instance; `done` is called once, when it has answered or the wait is over."""
        bus = self.bus
        began_us = bus.clock.now_us()

        def on_reply(_slot: int, data: bytes, error: AntiphonError | None) -> None:
            timer = self._running.pop(wire, None)
            if timer is None:
                return
            timer.cancel()
            wire.close()
            pong: NodePong | None = None
            try:
                if error is not None:
                    raise error
                pong = decode(NodePong, data)
            except AntiphonError as failed:
                done(Echo(node, instance, bus.clock.now_us() - began_us, code=failed.code))
            else:
                done(Echo(node, instance, bus.clock.now_us() - began_us, pong))

        def late() -> None:
            on_reply(0, b"", OutOfBudget(f"no answer within {self.wait_ms} ms"))

        wire = bus.gather(on_reply)
        self._running[wire] = bus.clock.call_after(self.wait_ms, late)
        template = NodePing.route.template
        await wire.ask(template.subject(prefix=bus.prefix, node=node, instance=instance), self._payload)

    def stop(self) -> None:
        """Wait for none any more."""
        for wire, timer in self._running.items():
            timer.cancel()
            wire.close()
        self._running.clear()
