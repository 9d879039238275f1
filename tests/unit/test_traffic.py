"""The laws of traffic: nothing is lost or counted twice within the window, wishes are no gaps, shares are shares."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.bus.codec import encode
from antiphon.decide.overview import bounded, merge
from antiphon.decide.traffic import SECONDS, Traffic
from antiphon.messages.alerts import OpenAlert
from antiphon.messages.monitor import MonitorInstance, MonitorNode, MonitorView
from antiphon.messages.registry import Status
from antiphon.messages.search import Outcome
from antiphon.messages.wire import WireLine

LINES = st.builds(
    WireLine,
    node=st.sampled_from(["blog", "shop", "gone"]),
    outcome=st.sampled_from(Outcome),
    instance=st.sampled_from(["one", "two"]),
    code=st.sampled_from([None, "open", "suspended", "draining"]),
)
KNOWN = ("blog", "shop")


def is_counted(line: WireLine) -> bool:
    return line.node in KNOWN and not (line.outcome == Outcome.SKIPPED and line.code in ("suspended", "draining"))


@given(st.lists(st.lists(LINES, max_size=20), max_size=25))
def test_the_window_holds_the_last_seconds_exactly(seconds: list[list[WireLine]]) -> None:
    traffic = Traffic()
    for lines in seconds:
        traffic.finished(lines)
        traffic.roll(KNOWN)
    kept = [line for lines in seconds[-SECONDS:] for line in lines if is_counted(line)]
    total = traffic.fabric()
    assert total.expected == len(kept)
    assert total.skipped == sum(line.outcome == Outcome.SKIPPED for line in kept)
    assert total.failed == sum(line.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) for line in kept)
    assert sum(traffic.node(node).expected for node in KNOWN) == total.expected
    assert traffic.node("gone").expected == 0
    assert 0 <= total.coverage <= 1
    assert 0 <= total.error_rate <= 1
    last = [line for line in (seconds[-1] if seconds else []) if is_counted(line)]
    assert sum(tally.expected for tally in traffic.last.values()) == len(last)


def node(status: Status, rps: float, coverage: float | None, breaker: str = "closed", p50_us: int = 0) -> MonitorNode:
    one = MonitorInstance(instance="one", status=status)
    fields = {"node": "blog", "status": status, "instances": (one,), "requests_per_second": rps, "coverage": coverage}
    return MonitorNode.model_validate(fields | {"breaker": breaker, "p50_us": p50_us})


def test_several_masters_make_one_view() -> None:
    views = [
        MonitorView(at_ms=2, masters=("b",), nodes=(node(Status.ACTIVE, 30, 1.0, p50_us=4),), requests_per_second=30),
        MonitorView(at_ms=1, masters=("a",), nodes=(node(Status.DOWN, 10, 0.5, "open", 9),), suspects_itself=("a",)),
        MonitorView(at_ms=1, masters=("c",), nodes=()),
    ]
    whole = merge(views)
    assert (whole.at_ms, whole.masters, whole.suspects_itself) == (2, ("a", "b", "c"), ("a",))
    [blog] = whole.nodes
    assert (blog.status, blog.requests_per_second, blog.breaker, blog.p50_us) == (Status.DOWN, 40, "open", 9)
    assert blog.coverage is not None
    assert abs(blog.coverage - 0.875) < 0.001, "each master counts for as much as it asked"
    assert merge(views[:1]) == views[0]


NODES = st.builds(
    lambda status, breaker, coverage: node(status, 0, coverage, breaker),
    st.sampled_from(Status),
    st.sampled_from(["closed", "open"]),
    st.none() | st.floats(0, 1),
)
ALERTS = st.builds(
    lambda severity, text: OpenAlert(
        id="x", kind="error_rate", subject="blog", severity=severity, value=1, text=text, since_ms=0, master="a"
    ),
    st.sampled_from(["warning", "critical"]),
    st.text(max_size=200),
)


@given(st.lists(NODES, max_size=12), st.lists(ALERTS, max_size=12), st.integers(600, 6_000))
def test_a_view_fits_and_says_what_it_leaves_out(
    nodes: list[MonitorNode], alerts: list[OpenAlert], bytes_max: int
) -> None:
    named = tuple(one.model_copy(update={"node": f"n{at:02}"}) for at, one in enumerate(nodes))
    told = tuple(one.model_copy(update={"id": f"a{at:02}"}) for at, one in enumerate(alerts))
    view = MonitorView(at_ms=1, masters=("a",), nodes=named, alerts=told)
    shown = bounded(view, bytes_max)
    assert len(shown.model_dump_json()) <= bytes_max
    assert (len(shown.nodes) + shown.nodes_left_out, len(shown.alerts) + shown.alerts_left_out) == (
        len(nodes),
        len(alerts),
    )
    assert (shown.nodes, shown.alerts) == (
        tuple(one for one in named if one in shown.nodes),
        tuple(one for one in told if one in shown.alerts),
    ), "in their order"
    if any(one.status is Status.DOWN for one in set(named) - set(shown.nodes)):
        assert all(one.status is Status.DOWN for one in shown.nodes), "what is well is left out first"
    if any(one.severity == "critical" for one in set(told) - set(shown.alerts)):
        assert all(one.severity == "critical" for one in shown.alerts)
    whole = merge([view, shown])
    assert (whole.nodes_left_out, whole.alerts_left_out) == (0, 0), "another master has shown it"


def test_the_largest_fleet_that_one_master_bears_is_seen() -> None:
    instances = tuple(MonitorInstance(instance=f"{at:08x}", status=Status.ACTIVE) for at in range(5))
    well = [node(Status.ACTIVE, 1.5, 1.0).model_copy(update={"instances": instances}) for _ in range(2_000)]
    nodes = [one.model_copy(update={"node": f"node-{at:04}"}) for at, one in enumerate(well)]
    nodes[700] = nodes[700].model_copy(update={"status": Status.DOWN})
    view = bounded(MonitorView(at_ms=1, masters=("a",), nodes=tuple(nodes)), 900_000)
    assert 800_000 < len(encode(view)) <= 900_000
    assert nodes[700] in view.nodes
    assert view.nodes_left_out > 0
