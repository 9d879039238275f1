"""`antiphon monitor` on a terminal: it fits, no number is cut, and what matters least or is well goes first."""

from __future__ import annotations

from io import StringIO
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from antiphon.cli.overview import COLUMNS, DROPPED_FIRST, NAME_CHARS, row, screen, table
from antiphon.cli.watching import FORGET_S, Masters
from antiphon.messages.alerts import OpenAlert
from antiphon.messages.monitor import MonitorInstance, MonitorNode, MonitorView
from antiphon.messages.registry import Status

ONE = MonitorInstance(instance="one", status=Status.ACTIVE)
NODES = st.builds(
    MonitorNode,
    node=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,40}", fullmatch=True),
    status=st.sampled_from(Status),
    instances=st.lists(st.just(ONE), max_size=12).map(tuple),
    requests_per_second=st.floats(0, 100_000),
    p50_us=st.integers(0, 10_000_000),
    p95_us=st.integers(0, 10_000_000),
    in_flight=st.integers(0, 10_000),
    breaker=st.sampled_from(["closed", "half_open", "open", "partly_open"]),
    coverage=st.none() | st.floats(0, 1),
    error_rate=st.none() | st.floats(0, 1),
    load=st.floats(0, 1),
)
ALERTS = st.builds(
    OpenAlert,
    id=st.from_regex(r"node_down:[a-z]{1,9}", fullmatch=True),
    kind=st.just("node_down"),
    subject=st.just("blog"),
    severity=st.sampled_from(["critical", "warning"]),
    value=st.just(1.0),
    text=st.text("ab 12.,%", max_size=200),
    since_ms=st.just(0),
    master=st.just("master"),
)
VIEWS = st.builds(
    MonitorView,
    at_ms=st.just(0),
    masters=st.just(("master",)),
    nodes=st.lists(NODES, max_size=40, unique_by=lambda node: node.node).map(tuple),
    alerts=st.lists(ALERTS, max_size=20, unique_by=lambda alert: alert.id).map(tuple),
)


def drawn(what: Any, width: int) -> list[str]:
    out = StringIO()
    Console(file=out, width=width, height=10_000, color_system=None).print(what)
    return [line.rstrip() for line in out.getvalue().splitlines()]


@settings(max_examples=100)
@given(VIEWS, st.integers(40, 160))
def test_a_row_is_a_line_and_no_number_is_cut(view: MonitorView, width: int) -> None:
    head, *lines = drawn(table(view, width), width)
    names = [name for name in COLUMNS if f" {name} " in f" {head} "]
    dropped = [name for name in COLUMNS if name not in names]
    assert set(dropped) == set(DROPPED_FIRST[: len(dropped)]), "what matters least goes first"
    assert len(lines) == len(view.nodes)
    for node, line in zip(view.nodes, lines, strict=True):
        assert len(line) <= width
        cells = dict(zip(COLUMNS, row(node), strict=True))
        assert line.startswith((cells["node"], cells["node"][: NAME_CHARS - 1]))
        assert line.split()[1:] == [word for name in names[1:] for word in cells[name].split()]


def test_at_eighty_columns_a_common_fleet_shows_what_matters() -> None:
    node = MonitorNode(
        node="documentation",
        status=Status.ACTIVE,
        instances=(ONE,) * 3,
        requests_per_second=123.4,
        p50_us=12_300,
        p95_us=45_600,
        coverage=0.998,
        error_rate=0.002,
        load=0.07,
    )
    view = MonitorView(at_ms=0, masters=("master",), nodes=(node,))
    head, line = drawn(table(view, 80), 80)
    assert head.split() == ["node", "status", "instances", "rps", "p95", "breaker", "coverage", "errors"]
    assert line.split() == ["documentation", "active", "3/3", "123.4", "45.6", "ms", "closed", "99.8%", "0.2%"]
    assert drawn(table(view, 120), 120)[0].split() == " ".join(COLUMNS).split()


@settings(max_examples=100)
@given(VIEWS, st.integers(40, 160), st.integers(10, 60))
def test_a_live_screen_fits_and_shows_the_worst(view: MonitorView, width: int, height: int) -> None:
    lines = drawn(screen(view, width, height), width)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    shown = [node for node in view.nodes if any(line.startswith(node.node[: NAME_CHARS - 1]) for line in lines)]
    if any(node.status is Status.DOWN for node in view.nodes):
        assert any(node.status is Status.DOWN for node in shown)
    if len(view.nodes) > height:
        assert [line for line in lines if line.endswith("nodes, better off")]


def test_a_master_that_answered_before_is_missed_until_it_is_forgotten() -> None:
    masters = Masters()
    assert masters.look(["a", "b"], 10.0) == {}
    assert masters.look(["a"], 12.0) == {"b": 2.0}
    assert masters.look(["a", "b"], 13.0) == {}
    assert masters.look(["a"], 14.0) == {"b": 1.0}
    assert masters.look(["a"], 13.0 + FORGET_S) == {}
    view = MonitorView(at_ms=0, masters=("a",), nodes=())
    assert "b has not answered for 2.0 s: it has stopped, or is frozen" in drawn(screen(view, 80, 24, {"b": 2.0}), 80)
