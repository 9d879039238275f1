"""The laws of traffic: nothing is lost or counted twice within the window, wishes are no gaps, shares are shares."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.overview import merge
from antiphon.decide.traffic import SECONDS, Traffic
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
