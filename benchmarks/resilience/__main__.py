"""Measure what failures cost: `python -m benchmarks.resilience [--quick] [--json] [--seed N]`."""

from __future__ import annotations

import argparse
import logging
import statistics
import sys

import structlog

from benchmarks import report
from benchmarks.report import Goal
from benchmarks.resilience import crowd, hedging, probing, rush, timing

HEDGE_PERMILLE = 29
"""The default setting."""


def middle(text: str, values: list[float], bound: str) -> Goal:
    """Return a goal whose number is the median."""
    return Goal(text, statistics.median(values), max(values) - min(values), bound)


def hedged(seeds: range, seconds: int) -> list[Goal]:
    """Return what hedging does to a tail."""
    ratios: list[float] = []
    extra: list[float] = []
    for seed in seeds:
        without = hedging.measure(seed, seconds, 0)
        run = hedging.measure(seed, seconds, HEDGE_PERMILLE)
        ratios.append(run.p99_ms / without.p99_ms)
        extra.append(100 * run.extra)
    return [
        middle("hedging a 2 % tail of 1 s: p99 / p99 without", ratios, "<= 0.25"),
        middle("hedging a 2 % tail of 1 s: extra requests, %", extra, "<= 3.0"),
    ]


def probed(seeds: range) -> list[Goal]:
    """Return how many masters probe at once."""
    runs = [probing.measure(seed) for seed in seeds]
    assert all(run.probes for run in runs), "it was probed"
    return [
        Goal(f"probes at once, {probing.MASTERS} masters", max(run.at_once for run in runs), None, "<= 1"),
        Goal("masters that may probe at once", max(run.granted_at_once for run in runs), None, "<= 1"),
    ]


def crowded(seeds: range, seconds: int) -> list[Goal]:
    """Return what gets through to a node that has three times too much to do."""
    runs = [crowd.measure(seed, seconds, 3.0) for seed in seeds]
    return [middle("a node at 3x its capacity: goodput / capacity", [run.goodput for run in runs], ">= 0.8")]


def rushed(rounds: int, seconds: float) -> list[Goal]:
    """Return what gets through a master that has three times too much to do."""
    runs = rush.run(rounds, seconds)
    shares = [run.goodput / run.capacity for run in runs]
    refusals = [took for run in runs if (took := rush.refusal_ms(run)) is not None]
    return [
        middle("a master at 3x its capacity: goodput / capacity", shares, ">= 0.8"),
        middle("a master at 3x its capacity: median refusal, ms", refusals or [0.0], "<= 100"),
    ]


def timed(rounds: int) -> list[Goal]:
    """Return how long answers take."""
    run = timing.run(rounds)
    spread = timing.quantile(run.three_ms, 0.95) - timing.quantile(run.three_ms, 0.05)
    return [
        Goal("3 nodes of 100 ms each, median, ms", statistics.median(run.three_ms), spread, "<= 103"),
        Goal("a silent node: ms past the deadline, worst", max(run.late_ms), None, "<= 20"),
    ]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resilience", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and shorter runs, within 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--seed", type=int, default=1, help="the first of the seeds")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # nodes fail on purpose
    seeds = range(given.seed, given.seed + (1 if given.quick else 5))
    goals: list[Goal] = []
    report.note("hedging, in virtual time ...", as_json=given.json)
    goals += hedged(seeds, 30 if given.quick else 120)
    report.note("probes, in virtual time ...", as_json=given.json)
    goals += probed(seeds)
    report.note("a node that has too much to do, in virtual time ...", as_json=given.json)
    goals += crowded(seeds, 3 if given.quick else 20)
    report.note("a silent node and three of 100 ms, in real processes ...", as_json=given.json)
    goals += timed(15 if given.quick else 200)
    report.note("a master that has too much to do, in real processes ...", as_json=given.json)
    goals += rushed(3 if given.quick else 5, 1 if given.quick else 10)
    return report.finish("resilience", report.environment("antiphon"), goals, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
