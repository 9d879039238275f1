"""ADR-32 discovery: every role answers `$SRV.PING|INFO|STATS[.<name>[.<id>]]`, so `nats micro ls` finds it.

The wire is ADR-32's (types `io.nats.micro.v1.*_response`); nats-py's own `nats.micro` runs handlers one at a time and
cannot switch off queue groups, so it is answered here (nats-facts.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Delivery, Subscription
from antiphon.errors import AntiphonError
from antiphon.runtime.endpoint import Endpoint

ROOT = "$SRV"
VERBS = ("PING", "INFO", "STATS")
"""One subscription each: a node is granted these, and no wildcard that hears what is asked of others."""


class Discovery:
    """One role's answers to discovery."""

    def __init__(
        self,
        bus: Bus,
        *,
        name: str,
        instance: str,
        version: str,
        description: str,
        endpoints: Callable[[], Sequence[Endpoint]],
        metadata: dict[str, str] | None = None,
        details: Callable[[], dict[str, dict[str, str]]] | None = None,
    ) -> None:
        self._bus = bus
        self._details: Callable[[], dict[str, dict[str, str]]] = details or dict[str, dict[str, str]]
        self._metadata = metadata or {}
        self._head = {"name": name, "id": instance, "version": version, "metadata": self._metadata}
        self._description = description
        self._endpoints = endpoints
        self._started = datetime.fromtimestamp(bus.clock.wall_ms() / 1_000, UTC).isoformat()
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Answer from now on."""
        name, instance = self._head["name"], self._head["id"]
        for verb in VERBS:
            for pattern in (f"{ROOT}.{verb}", f"{ROOT}.{verb}.{name}", f"{ROOT}.{verb}.{name}.{instance}"):
                self._subscriptions.append(await self._bus.transport.subscribe(pattern, self._receive))

    async def stop(self) -> None:
        """Answer no more."""
        for subscription in self._subscriptions:
            await subscription.drain()
        self._subscriptions.clear()

    async def _receive(self, delivery: Delivery) -> None:
        verb = delivery.subject.split(".")[1]
        answers: dict[str, Callable[[], dict[str, Any]]] = {"PING": dict, "INFO": self._info, "STATS": self._stats}
        # an answer aimed at one of our own subjects would be heard there as this role's word
        is_ours = delivery.reply.startswith((f"{self._bus.prefix}.", "$"))
        if verb not in answers or not delivery.reply or is_ours:
            return
        reply = {"type": f"io.nats.micro.v1.{verb.lower()}_response", **self._head, **answers[verb]()}
        try:
            transport = self._bus.transport
            await transport.publish(delivery.reply, orjson.dumps(reply), via=transport.way_of(delivery))
        except AntiphonError as error:
            self._bus.counters.refuse(error.code)

    def _info(self) -> dict[str, Any]:
        details = self._details()
        endpoints: list[dict[str, Any]] = [
            {
                "name": e.name,
                "subject": e.subject,
                "queue_group": e.queue or "",
                "metadata": details.get(e.name, {}),
            }
            for e in self._endpoints()
        ]
        return {"description": self._description, "endpoints": endpoints}

    def _stats(self) -> dict[str, Any]:
        endpoints = [
            {
                "name": e.name,
                "subject": e.subject,
                "queue_group": e.queue or "",
                "num_requests": e.requests,
                "num_errors": e.errors,
                "last_error": "",
                "processing_time": e.busy_us * 1_000,
                "average_processing_time": e.busy_us * 1_000 // max(1, e.requests),
            }
            for e in self._endpoints()
        ]
        counters = self._bus.counters
        dropped = {"strays": counters.strays, "late": counters.late, "laundered": counters.laundered}
        refused = {f"refused_{code}": count for code, count in sorted(counters.refused.items())}
        told = {name: str(count) for name, count in (dropped | refused).items()}
        metadata = {**self._metadata, **told}
        return {"started": self._started, "metadata": metadata, "endpoints": endpoints}
