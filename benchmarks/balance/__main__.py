"""Compare strategies of balancing: `python -m benchmarks.balance [--quick] [--json] [--seed N] [--through fleet]`.

`simulation` (the default) drives the strategies alone; `fleet` has the same arrivals served by real masters and nodes
in virtual time, search by search.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
from collections.abc import Sequence

import structlog

from antiphon.decide.balance import strategies
from benchmarks import report
from benchmarks.balance.served import Served
from benchmarks.balance.simulation import Result, Simulation
from benchmarks.balance.traffic import SCENARIOS, Scenario
from benchmarks.report import Goal

Results = dict[tuple[str, str], list[Result]]
QUICK = ("round_robin", "peak_ewma", "prequal")
"""Strategies of a quick run through a fleet, which costs half a millisecond a search; it leaves out scenarios, too."""
QUICK_SCENARIOS = ("one 10x slower", "one failing at once", "one stalling for 2 s of every 10 s")
COLUMNS = ("strategy", "p50 ms", "p99 ms", "failed %", "odd one's share %", "least of the others %", "most %")


def quantile_ms(result: Result, share: float) -> float:
    """Return a quantile of all requests' latencies."""
    ordered = sorted(result.latencies_us)
    return ordered[int(share * (len(ordered) - 1))] / 1_000


def measure(
    scenarios: Sequence[Scenario], names: Sequence[str], seeds: range, seconds: int, *, is_served: bool, as_json: bool
) -> Results:
    """Run strategies through every scenario; the same seeds, so the same arrivals, for each."""

    def run(scenario: Scenario, name: str, seed: int) -> Result:
        if is_served:
            return Served(scenario, name, seconds, seed).run()
        return Simulation(scenario, strategies()[name], seconds, seed).run()

    results: Results = {}
    for scenario in scenarios:
        report.note(f"{scenario.name} ...", as_json=as_json)
        for name in names:
            results[scenario.name, name] = [run(scenario, name, seed) for seed in seeds]
    return results


def row(name: str, runs: list[Result]) -> tuple[object, ...]:
    """Return one strategy's line: medians over the runs."""
    shares = [{one: 100 * count / run.picked.total() for one, count in run.picked.items()} for run in runs]
    others = [[share for one, share in of.items() if one != "odd"] for of in shares]
    return (
        name,
        statistics.median(quantile_ms(run, 0.5) for run in runs),
        statistics.median(quantile_ms(run, 0.99) for run in runs),
        statistics.median(100 * run.failed / len(run.latencies_us) for run in runs),
        statistics.median(of.get("odd", 0.0) for of in shares),
        statistics.median(min(of) for of in others),
        statistics.median(max(of) for of in others),
    )


def goals(results: Results) -> list[Goal]:
    """Return the numbers to reach; where round robin fails a fifth of all, failures may not attract requests."""
    found: list[Goal] = []
    for name in ("prequal", "peak_ewma"):
        pairs = zip(results["one 10x slower", name], results["one 10x slower", "round_robin"], strict=True)
        ratios = [quantile_ms(one, 0.99) / quantile_ms(other, 0.99) for one, other in pairs]
        text = f"one of five 10x slower: p99 of {name} / round_robin"
        found.append(Goal(text, statistics.median(ratios), max(ratios) - min(ratios), "<= 0.3"))
        errors = [100 * run.failed / len(run.latencies_us) for run in results["one failing at once", name]]
        text = f"one of five failing at once: failed requests of {name}, %"
        found.append(Goal(text, statistics.median(errors), max(errors) - min(errors), "<= 1.0"))
    return found


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.balance", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and shorter runs, within 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--seed", type=int, default=1, help="the first of the seeds")
    parser.add_argument("--through", choices=("simulation", "fleet"), default="simulation", help="what serves")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # nodes fail on purpose
    is_served = given.through == "fleet"
    is_short = is_served and given.quick
    names = QUICK if is_short else tuple(strategies())
    scenarios = [one for one in SCENARIOS if not is_short or one.name in QUICK_SCENARIOS]
    rounds, seconds = ((1, 8) if given.quick else (3, 20)) if is_served else ((3, 15) if given.quick else (5, 60))
    seeds = range(given.seed, given.seed + rounds)
    results = measure(scenarios, names, seeds, seconds, is_served=is_served, as_json=given.json)
    if not given.json:
        for scenario in scenarios:
            rows = [row(name, results[scenario.name, name]) for name in names]
            title = f"{scenario.name}, {scenario.rate} requests/s through the {given.through}, seeds {seeds}"
            report.table(title, COLUMNS, rows)
    return report.finish("balance", report.environment("antiphon"), goals(results), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
