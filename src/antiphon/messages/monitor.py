"""The conversation of operators with the masters about how everything is: nodes, instances, open alerts."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from antiphon.messages.alerts import OpenAlert
from antiphon.messages.base import Count, Kind, Message, Name, Request, Route
from antiphon.messages.registry import Status
from antiphon.subjects import Template

BreakerState = Literal["closed", "half_open", "open"]


class MonitorInstance(Message):
    """One instance."""

    instance: Name
    status: Status = Field(description="active or down: whether it beats and answers")
    breaker: BreakerState = "closed"
    latency_us: Count = Field(default=0, description="moving average of how long pings take, 0 = none yet")
    misses: Count = Field(default=0, description="pings in a row without an answer")
    in_flight: Count = Field(default=0, description="its own word: requests from all masters")
    failure_share: float = Field(default=0.0, ge=0, le=1, description="how often it fails of late")
    load: float = Field(default=0.0, ge=0, le=1, description="the load score, 0 idle to 1 (docs/operations.md)")


class MonitorNode(Message):
    """One node."""

    node: Name
    status: Status
    instances: tuple[MonitorInstance, ...]
    requests_per_second: float = Field(default=0.0, ge=0, description="over the last ten seconds")
    p50_us: Count = Field(default=0, description="of searches, as masters see them; 0 = none yet")
    p95_us: Count = 0
    in_flight: Count = 0
    breaker: Literal["closed", "half_open", "open", "partly_open"] = Field(
        default="closed", description="open when those of all instances are"
    )
    coverage: float | None = Field(default=None, ge=0, le=1, description="answers of those expected; None: no searches")
    error_rate: float | None = Field(default=None, ge=0, le=1, description="failures of those asked")
    load: float = Field(default=0.0, ge=0, le=1, description="of its instances that are up, on average")


class MonitorView(Message):
    """How everything is, as one master sees it, or as several do together."""

    size_max: ClassVar[int] = 1024 * 1024
    at_ms: Count = Field(description="wall clock, UTC")
    masters: tuple[Name, ...] = Field(description="whose view this is")
    nodes: tuple[MonitorNode, ...]
    alerts: tuple[OpenAlert, ...] = ()
    requests_per_second: float = Field(default=0.0, ge=0, description="requests to nodes")
    coverage: float | None = Field(default=None, ge=0, le=1)
    suspects_itself: tuple[Name, ...] = Field(default=(), description="masters that see most nodes fail at once")
    nodes_left_out: Count = Field(default=0, description="nodes for which there was no room: those that are well")
    alerts_left_out: Count = Field(default=0, description="alerts for which there was no room: the least severe ones")


class MonitorAsk(Request[MonitorView]):
    """How is everything? Every master answers for itself; `decide/overview.py` makes one of it."""

    route = Route(Template("monitor.ask.<caller>"), sent_by=(Kind.OPERATOR,), read_by=(Kind.MASTER,))
