"""Compare strategies of balancing in a simulation: `python -m benchmarks.balance [--quick] [--json] [--seed N]`."""

from __future__ import annotations

import argparse
import statistics
import sys

from antiphon.decide.balance import strategies
from benchmarks import report
from benchmarks.balance.simulation import Result, Simulation
from benchmarks.balance.traffic import SCENARIOS
from benchmarks.report import Goal

Results = dict[tuple[str, str], list[Result]]
COLUMNS = ("strategy", "p50 ms", "p99 ms", "failed %", "odd one's share %", "least of the others %", "most %")


def quantile_ms(result: Result, share: float) -> float:
    """Return a quantile of all requests' latencies."""
    ordered = sorted(result.latencies_us)
    return ordered[int(share * (len(ordered) - 1))] / 1_000


def measure(seeds: range, seconds: int, *, as_json: bool) -> Results:
    """Run every strategy through every scenario; the same seeds, so the same arrivals, for each."""
    results: Results = {}
    for scenario in SCENARIOS:
        report.note(f"{scenario.name} ...", as_json=as_json)
        for name, balancer in strategies().items():
            results[scenario.name, name] = [Simulation(scenario, balancer, seconds, seed).run() for seed in seeds]
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
    given = parser.parse_args()
    seeds = range(given.seed, given.seed + (3 if given.quick else 5))
    results = measure(seeds, 15 if given.quick else 60, as_json=given.json)
    if not given.json:
        for scenario in SCENARIOS:
            rows = [row(name, results[scenario.name, name]) for name in strategies()]
            report.table(f"{scenario.name}, {scenario.rate} requests/s, seeds {seeds}", COLUMNS, rows)
    return report.finish("balance", report.environment("antiphon"), goals(results), as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
