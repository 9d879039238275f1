"""Ping: every instance of some nodes is asked at once on its lane, and the answer says who is silent.

Also those that are down, draining or suspended: whether they answer is what an operator wants to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from antiphon.bus.bus import Bus, Call
from antiphon.bus.codec import decode, encode
from antiphon.decide.registry import NodeView, RegistryView
from antiphon.errors import AntiphonError, OutOfBudget, UnknownNode
from antiphon.messages.ping import NodePing, NodePong, PingAnswer, PingAsk, PingLine
from antiphon.messages.registry import Status

RESERVE_MS = 50
"""Kept of the asker's budget for the way back."""


async def ping(call: Call[PingAsk], view: RegistryView) -> PingAnswer:
    """Answer a ping of an operator; raises `UnknownNode` for a named one that is not there."""
    bus, ask = call.bus, call.message
    unknown = [name for name in ask.nodes if name not in view.nodes]
    if unknown:
        raise UnknownNode(f"no node {unknown[0]!r} is registered; `antiphon node ls` lists them")
    began_us = bus.clock.now_us()
    wait_ms = max(0, min(ask.wait_ms, call.deadline_ms - bus.clock.now_ms() - RESERVE_MS))
    named = sorted(set(ask.nodes)) if ask.nodes else sorted(view.nodes)
    lines = await gather(bus, [view.nodes[name] for name in named], wait_ms)
    return PingAnswer(lines=lines, master=bus.name, took_us=bus.clock.now_us() - began_us)


async def gather(bus: Bus, nodes: Sequence[NodeView], wait_ms: int) -> tuple[PingLine, ...]:
    """Ping every instance of the nodes; return a line for each when the last has answered, at the latest in time."""
    lines = dict(enumerate(_lines(nodes)))
    asked = [at for at, line in lines.items() if line.instance is not None]
    sent_us: list[int] = []
    left = len(asked)
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_reply(slot: int, data: bytes, error: AntiphonError | None) -> None:
        nonlocal left
        at = asked[slot]
        try:
            if error is not None:
                raise error
            pong = decode(NodePong, data)
        except AntiphonError as failed:
            lines[at] = lines[at].model_copy(update={"code": failed.code})
        else:
            told = {"load": pong.load, "version": pong.version, "uptime_ms": pong.uptime_ms, "code": None}
            lines[at] = lines[at].model_copy(update=told | {"rtt_us": bus.clock.now_us() - sent_us[slot]})
        left -= 1
        if not left and not over.done():
            over.set_result(None)

    wire = bus.gather(on_reply)
    payload = encode(NodePing(budget_ms=wait_ms))
    template = NodePing.route.template
    try:
        for at in asked:
            line = lines[at]
            subject = template.subject(prefix=bus.prefix, node=line.node, instance=line.instance or "")
            sent_us.append(bus.clock.now_us())
            await wire.ask(subject, payload)
        if left:
            await asyncio.wait({over}, timeout=wait_ms / 1_000)
    finally:
        over.cancel()
        wire.close()
    return tuple(lines.values())


def _lines(nodes: Iterable[NodeView]) -> Iterable[PingLine]:
    """Yield a line for each instance as it stands before anybody has answered."""
    for node in nodes:
        if not node.instances:
            yield PingLine(node=node.node, status=Status.DOWN, code=str(Status.DOWN))
        for instance in node.instances:
            status = Status.ACTIVE if instance in node.alive else Status.DOWN
            yield PingLine(node=node.node, instance=instance, status=status, code=OutOfBudget.code)
