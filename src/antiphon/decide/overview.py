"""One view of the fleet out of those of several masters, each of which counts only its own searches.

What is counted is added up; what is judged is shown as the worst that any master sees, for that is what somebody
should look at. Quantiles cannot be merged, so the slowest master's are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from antiphon.messages.monitor import MonitorInstance, MonitorNode, MonitorView
from antiphon.messages.registry import Status

State = TypeVar("State", bound=str)

BREAKERS = ("closed", "partly_open", "half_open", "open")
STATUSES = (Status.ACTIVE, Status.DRAINING, Status.SUSPENDED, Status.DOWN)
"""From good to bad."""


def merge(views: Sequence[MonitorView]) -> MonitorView:
    """Return one view; there is at least one to make it of."""
    if len(views) == 1:
        return views[0]
    names = sorted({node.node for view in views for node in view.nodes})
    return MonitorView(
        at_ms=max(view.at_ms for view in views),
        masters=tuple(sorted(name for view in views for name in view.masters)),
        nodes=tuple(_node([node for view in views for node in view.nodes if node.node == name]) for name in names),
        alerts=tuple({alert.id: alert for view in views for alert in view.alerts}[one] for one in _alerts(views)),
        requests_per_second=sum(view.requests_per_second for view in views),
        coverage=_share((view.coverage, view.requests_per_second) for view in views),
        suspects_itself=tuple(sorted(name for view in views for name in view.suspects_itself)),
    )


def _alerts(views: Sequence[MonitorView]) -> list[str]:
    return sorted({alert.id for view in views for alert in view.alerts})


def _node(seen: Sequence[MonitorNode]) -> MonitorNode:
    names = sorted({one.instance for node in seen for one in node.instances})
    return MonitorNode(
        node=seen[0].node,
        status=max((node.status for node in seen), key=STATUSES.index),
        instances=tuple(
            _instance([one for node in seen for one in node.instances if one.instance == name]) for name in names
        ),
        requests_per_second=sum(node.requests_per_second for node in seen),
        p50_us=max(node.p50_us for node in seen),
        p95_us=max(node.p95_us for node in seen),
        in_flight=max(node.in_flight for node in seen),
        breaker=_worst(node.breaker for node in seen),
        coverage=_share((node.coverage, node.requests_per_second) for node in seen),
        error_rate=_share((node.error_rate, node.requests_per_second) for node in seen),
        load=max(node.load for node in seen),
    )


def _instance(seen: Sequence[MonitorInstance]) -> MonitorInstance:
    return MonitorInstance(
        instance=seen[0].instance,
        status=max((one.status for one in seen), key=STATUSES.index),
        breaker=_worst(one.breaker for one in seen),
        latency_us=max(one.latency_us for one in seen),
        misses=max(one.misses for one in seen),
        in_flight=max(one.in_flight for one in seen),
        failure_share=max(one.failure_share for one in seen),
        load=max(one.load for one in seen),
    )


def _worst(states: Iterable[State]) -> State:
    return max(states, key=_rank)


def _rank(state: str) -> int:
    return BREAKERS.index(state)


def _share(shares: Iterable[tuple[float | None, float]]) -> float | None:
    """Return the mean of shares by how much each stands for; those that nobody asked count a little."""
    known = [(share, weight + 0.001) for share, weight in shares if share is not None]
    total = sum(weight for _, weight in known)
    return min(1.0, sum(share * weight for share, weight in known) / total) if known else None
