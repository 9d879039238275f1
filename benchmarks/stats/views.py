"""How long analysts wait: a snapshot of the largest open segment, and every view over many replies of one day."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

from antiphon.decide.reading import Position
from antiphon.messages.records import FACTS
from antiphon.stats import segments, snapshot
from antiphon.stats.store import Store
from antiphon.stats.views import VIEWS

OPEN_ROWS = 250_000
NODES = 10
REQUESTS = """
INSERT INTO requests SELECT ts, 'master', i, 0, 'r' || i, 'web-' || (i % 20), NULL, 'what is ' || (i % 5000), NULL,
    1000 + (i * 7919) % 60000, 10, 100, 0, 'evidence', i % 40 <> 0, true, 10, 10 - (i % 40 = 0)::INT, 0, 0,
    (i % 40 = 0)::INT, 0, 0, [], 'node-' || (i % 10), 900 + (i * 7919) % 40000, 'answered'
FROM (SELECT range AS i, make_timestamp({end} - (range * {step})) AS ts FROM range({count}))"""
REPLIES = """
INSERT INTO node_replies SELECT ts, 'master', i, 0, 'r' || i, 'node-' || n, 'i' || (i % 3),
    CASE WHEN i % 40 = 0 AND n = 3 THEN 'timed_out' ELSE 'answered' END, 10, (n < 3)::INT * 3,
    800 + (i * 7919 + n * 104729) % 40000, NULL, NULL, 1, [],
    4500, CASE WHEN i % 50 = 7 AND n = 5 THEN 'won' END, (i % 50 = 7 AND n = 5)::INT * 30000, false
FROM (SELECT range AS i, make_timestamp({end} - (range * {step})) AS ts FROM range({count})), range({nodes}) AS t(n)"""


@dataclass(frozen=True, slots=True)
class Times:
    """What was measured, in seconds."""

    snapshot_s: float
    views_s: dict[str, float]


def measure(folder: Path, replies: int) -> Times:
    """Return how long a snapshot takes with the most open rows, and each view over so many replies of the last day."""
    store = Store(folder, "antiphon")
    now_ms = time.time_ns() // 1_000_000
    store.open(now_ms)
    store.begin(FACTS, Position(1, 0), None, now_ms)
    requests = replies // NODES
    day = {"end": now_ms * 1_000, "step": 86_000_000_000 // requests, "nodes": NODES}
    for part in range(0, requests, 100_000):
        some = {**day, "count": min(100_000, requests - part), "end": day["end"] - part * day["step"]}
        store.execute(REQUESTS.format(**some))
        store.execute(REPLIES.format(**some))
        segments.seal(store, now_ms + part)
    count = OPEN_ROWS // (NODES + 1)
    store.execute(REQUESTS.format(**{**day, "count": count}))
    store.execute(REPLIES.format(**{**day, "count": count}))
    began = time.monotonic()
    place = snapshot.write(store, now_ms)
    snapshot_s = time.monotonic() - began
    store.close()
    with duckdb.connect(str(place), read_only=True) as opened:
        views_s = {name: _timed(opened, f"SELECT * FROM {name} LIMIT 1000") for name in VIEWS}
    return Times(snapshot_s, views_s)


def _timed(opened: duckdb.DuckDBPyConnection, query: str) -> float:
    began = time.monotonic()
    opened.execute(query).fetchall()
    return time.monotonic() - began
