"""Facts of searches, fast: how many a second a recorder on one core writes, how far it is behind at a steady rate."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from antiphon.bus.codec import encode
from antiphon.messages.facts import SearchFinished
from antiphon.messages.records import RecorderReported
from antiphon.messages.search import Coverage, NodeLine, Outcome
from antiphon.stats import segments
from antiphon.stats.store import Store
from benchmarks.stats.recorder import Fabric, fabric

NODES = 10
RATE = 5_000
"""Facts a second, as GOALS.md says."""
SNAPSHOT_RATE = 500
"""Requests a second while snapshots are timed."""
TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Load:
    """What a recorder bore.

    Attributes:
        per_s: facts a second while it had more to do than it could.
        lag_ms: the largest lag that it reported at `RATE`.
        burst_lag_ms: the same while it worked off the burst.
        snapshot_ms: how long a snapshot took at `SNAPSHOT_RATE`, the mean; None where none was due.
        snapshot_duty: which share of the time they took then; None likewise.
        request_bytes: of Parquet, roll-ups included, for a request with its ten replies.
    """

    per_s: float
    lag_ms: int
    burst_lag_ms: int
    snapshot_ms: float | None
    snapshot_duty: float | None
    request_bytes: float


def fact(number: int, at_ms: int) -> bytes:
    """Return the fact of a search that ten nodes have answered, as a master encodes it."""
    lines = tuple(
        NodeLine(
            node=f"node-{at}",
            instance=f"i{(number + at) % 3}",
            outcome=Outcome.ANSWERED if (number + at) % 50 else Outcome.TIMED_OUT,
            hits=10,
            took_us=1_000 + (number * 7_919 + at * 104_729) % 40_000,
        )
        for at in range(NODES)
    )
    made = SearchFinished(
        request=f"{number * 2_654_435_761 % 2**64:016x}{number:016x}",
        caller=f"web-{number % 20}",
        query=f"what does outage {number % 1_000} teach",
        at_ms=at_ms,
        took_us=42_000 + number % 9_000,
        hits=10,
        total=100,
        fusion="evidence",
        complete=True,
        sufficient=True,
        coverage=Coverage(expected=NODES, answered=NODES),
        nodes=lines,
        contributed={"node-1": 4, "node-2": 3, "node-7": 3},
    )
    return encode(made)


async def load(folder: Path, burst: int, steady_s: float) -> Load:
    """Have so many facts recorded at once, then so many seconds of them at the steady rate."""
    async with fabric(folder) as made:
        await made.until(lambda one: one.state == "recording", 60)
        os.sched_setaffinity(made.process.pid, {max(os.sched_getaffinity(0))})
        facts = [fact(number, made.bus.clock.wall_ms() + number) for number in range(burst)]
        per_s = await _burst(made, facts, burst)
        burst_lag_ms = max(one.lag_ms for one in made.reports)
        await made.caught_up(120)
        during = await _steady(made, facts, RATE, steady_s)
        lag_ms = max((one.lag_ms for one in during), default=0)
        during = await _steady(made, facts, SNAPSHOT_RATE, steady_s)
        count = during[-1].snapshots - during[0].snapshots
        took_ms = during[-1].snapshots_ms - during[0].snapshots_ms
        lasted_ms = during[-1].at_ms - during[0].at_ms
    snapshot_ms, snapshot_duty = (took_ms / count, took_ms / lasted_ms) if count else (None, None)
    return Load(per_s, lag_ms, burst_lag_ms, snapshot_ms, snapshot_duty, _request_bytes(made.record))


def _request_bytes(record: Path) -> float:
    """Return how large a request is, once everything is sealed."""
    store = Store(record, "antiphon")
    now_ms = time.time_ns() // 1_000_000
    store.open(now_ms)
    segments.seal(store, now_ms)
    [(requests,)] = store.execute("SELECT sum(rows) FROM segments WHERE name = 'requests'")
    [(size,)] = store.execute("SELECT sum(bytes) FROM segments")
    store.close()
    return float(size) / float(requests)


async def _burst(made: Fabric, facts: list[bytes], burst: int) -> float:
    before = made.reports[-1].rows
    began = time.monotonic()
    for number in range(burst):
        made.keeper.keep("SearchFinished", facts[number % len(facts)])
        if not number % 1_000:
            await asyncio.sleep(0)
    wanted = before + burst * (NODES + 1)
    await made.until(lambda one: one.rows >= wanted, 300)
    return burst / (time.monotonic() - began)


async def _steady(made: Fabric, facts: list[bytes], rate: int, seconds: float) -> list[RecorderReported]:
    """Tell so many facts a second, and return what the recorder has reported meanwhile."""
    begin_ms = made.bus.clock.wall_ms()
    end, due, sent = time.monotonic() + seconds, time.monotonic(), 0
    while time.monotonic() < end:
        for _ in range(round(rate * TICK_S)):
            made.keeper.keep("SearchFinished", facts[sent % len(facts)])
            sent += 1
        due += TICK_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    during = [one for one in made.reports if one.at_ms > begin_ms]
    await made.caught_up(120)
    return during
