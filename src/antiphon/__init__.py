"""Antiphon: federated search and durable actions across the systems you already run, over NATS.

The public face: `Node` answers, `Client` asks, `Saga` says what is done as a whole or not at all, `Inbox` makes a
step's effect in a database happen once; everything else is
behind them. Names are imported when they are first used, so that a process pays (in time and in resident memory) for
what it uses and `antiphon --help` for nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.acting.context import ActionContext
    from antiphon.client import Client
    from antiphon.inbox import Inbox
    from antiphon.jobs import Job, JobResult
    from antiphon.messages.handler import Counts, Found, Hit, Query
    from antiphon.messages.lane import Statistics
    from antiphon.messages.search import SearchAnswer
    from antiphon.node import Node
    from antiphon.saga import Saga
    from antiphon.saga_run import SagaRun

__all__ = [
    "ActionContext",
    "Client",
    "Counts",
    "Found",
    "Hit",
    "Inbox",
    "Job",
    "JobResult",
    "Node",
    "Query",
    "Saga",
    "SagaRun",
    "SearchAnswer",
    "Statistics",
]

_HOMES = {
    "ActionContext": "antiphon.acting.context",
    "Client": "antiphon.client",
    "Counts": "antiphon.messages.handler",
    "Found": "antiphon.messages.handler",
    "Hit": "antiphon.messages.handler",
    "Inbox": "antiphon.inbox",
    "Job": "antiphon.jobs",
    "JobResult": "antiphon.jobs",
    "Node": "antiphon.node",
    "Query": "antiphon.messages.handler",
    "Saga": "antiphon.saga",
    "SagaRun": "antiphon.saga_run",
    "SearchAnswer": "antiphon.messages.search",
    "Statistics": "antiphon.messages.lane",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module("antiphon.logs")  # first: structlog without rich
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
