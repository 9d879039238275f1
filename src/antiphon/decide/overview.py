"""One view of the fleet out of those of several masters, each of which counts only its own searches.

What is counted is added up; what is judged is shown as the worst that any master sees, for that is what somebody
should look at. Quantiles cannot be merged, so the slowest master's are shown.

A view is one message, and a fleet may be larger than that (about 4,000 instances). What is well is left out first,
since nobody has to look at it, and how much was left out is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from antiphon.messages.alerts import OpenAlert
from antiphon.messages.monitor import MonitorInstance, MonitorNode, MonitorView
from antiphon.messages.registry import Status

State = TypeVar("State", bound=str)
Line = TypeVar("Line", MonitorNode, OpenAlert)

BREAKERS = ("closed", "partly_open", "half_open", "open")
STATUSES = (Status.ACTIVE, Status.DRAINING, Status.SUSPENDED, Status.DOWN)
"""From good to bad."""
SEVERITIES = ("critical", "warning", "info")
ALERTS_SHARE = 0.3
"""Of the room, for alerts; with more of them than this something is wrong everywhere, and nodes say where."""


def merge(views: Sequence[MonitorView]) -> MonitorView:
    """Return one view; there is at least one to make it of."""
    if len(views) == 1:
        return views[0]
    seen: dict[str, list[MonitorNode]] = {}
    for node in (node for view in views for node in view.nodes):
        seen.setdefault(node.node, []).append(node)
    alerts = {alert.id: alert for view in views for alert in view.alerts}
    return MonitorView(
        at_ms=max(view.at_ms for view in views),
        masters=tuple(sorted(name for view in views for name in view.masters)),
        nodes=tuple(_node(lines) for _, lines in sorted(seen.items())),
        alerts=tuple(alert for _, alert in sorted(alerts.items())),
        requests_per_second=sum(view.requests_per_second for view in views),
        coverage=_share((view.coverage, view.requests_per_second) for view in views),
        suspects_itself=tuple(sorted(name for view in views for name in view.suspects_itself)),
        nodes_left_out=_missing([len(view.nodes) + view.nodes_left_out for view in views], len(seen)),
        alerts_left_out=_missing([len(view.alerts) + view.alerts_left_out for view in views], len(alerts)),
    )


def bounded(view: MonitorView, bytes_max: int) -> MonitorView:
    """Return a view that fits: the worst alerts and the worst nodes, in their order, and how many were left out."""
    if len(view.model_dump_json()) <= bytes_max:
        return view
    bare = view.model_copy(update={"nodes": (), "alerts": ()})
    room = bytes_max - len(bare.model_dump_json()) - 2 * len(str(len(view.nodes) + len(view.alerts)))
    severe = sorted(view.alerts, key=lambda one: SEVERITIES.index(one.severity))
    alerts, used = _fitting(severe, int(room * ALERTS_SHARE))
    nodes, _ = _fitting(sorted(view.nodes, key=_badness, reverse=True), room - used)
    return view.model_copy(
        update={
            "nodes": tuple(sorted(nodes, key=lambda node: node.node)),
            "alerts": tuple(sorted(alerts, key=lambda alert: alert.id)),
            "nodes_left_out": len(view.nodes) - len(nodes),
            "alerts_left_out": len(view.alerts) - len(alerts),
        }
    )


def worst_nodes(view: MonitorView, nodes_max: int) -> MonitorView:
    """Return a view of the nodes that are worst, by name; whoever draws it says how many it leaves out."""
    if len(view.nodes) <= nodes_max:
        return view
    worst = sorted(view.nodes, key=_badness, reverse=True)[:nodes_max]
    return view.model_copy(update={"nodes": tuple(sorted(worst, key=lambda node: node.node))})


def _badness(node: MonitorNode) -> tuple[int, int, float, float, float]:
    gap = 1 - (1.0 if node.coverage is None else node.coverage)
    return STATUSES.index(node.status), BREAKERS.index(node.breaker), node.error_rate or 0.0, gap, node.load


def _fitting(lines: Sequence[Line], bytes_max: int) -> tuple[list[Line], int]:
    """Return the first lines that fit, and their bytes."""
    used = 0
    for at, line in enumerate(lines):
        size = len(line.model_dump_json()) + 1
        if used + size > bytes_max:
            return list(lines[:at]), used
        used += size
    return list(lines), used


def _missing(seen: Sequence[int], shown: int) -> int:
    """Return how many nobody shows: what one master left out another may have shown."""
    return max(0, max(seen) - shown)


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
