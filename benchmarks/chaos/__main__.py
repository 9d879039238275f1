"""Strike a fabric of real processes again and again: `python -m benchmarks.chaos [--minutes N] [--seed N] [--json]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import structlog

from benchmarks import report
from benchmarks.chaos.blows import Blow, Chaos, chaos
from benchmarks.report import Goal

COLUMNS = ("blow", "times", "well after s", "at most s", "searches", "missing in partial answers")


async def strike_on(made: Chaos, minutes: float, seed: int, *, as_json: bool) -> list[Blow]:
    """Strike in a random order until the time is over, each blow at least once."""
    dice = Random(f"order/{seed}")
    ends_s = time.monotonic() + minutes * 60
    struck: list[Blow] = []
    while not struck or time.monotonic() < ends_s:
        names = list(made.blows)
        dice.shuffle(names)
        for name in names:
            struck.append(await made.strike(name))
            report.note(
                f"{name}: well after {struck[-1].recovered_s:.2f} s, {struck[-1].tally} {struck[-1].gaps}",
                as_json=as_json,
            )
    return struck


def goals(struck: list[Blow], made: Chaos) -> list[Goal]:
    """Return the numbers to reach."""

    def recovered(text: str, *names: str) -> Goal:
        times = [blow.recovered_s for blow in struck if blow.name in names]
        return Goal(text, max(times), max(times) - min(times), "<= 2.0")

    nodes = [blow for blow in struck if "node" in blow.name or "instances" in blow.name]
    failed = sum(count for blow in nodes for code, count in blow.tally.items() if code not in {"complete", "partial"})
    opened = [blow.opened_s for blow in struck if blow.opened_s is not None]
    return [
        Goal("answers that are dishonest or late", len(made.load.wrong), None, "<= 0"),
        Goal("searches that failed because of a node", failed, None, "<= 0"),
        Goal("from a node's 5th failure to its open breaker, worst, s", max(opened, default=None), None, "<= 1.0"),
        recovered("from a killed node's return to complete answers, worst, s", "kill -9 of a node"),
        recovered("from the server's return to complete answers, worst, s", "kill -9 of the server"),
    ]


def rows(struck: list[Blow]) -> list[tuple[object, ...]]:
    """Return a line for each kind of blow."""
    lines: list[tuple[object, ...]] = []
    for name in sorted({blow.name for blow in struck}):
        own = [blow for blow in struck if blow.name == name]
        times = [blow.recovered_s for blow in own]
        tally, gaps = Counter[str](), Counter[str]()
        for blow in own:
            tally.update(blow.tally)
            gaps.update(blow.gaps)
        lines.append((name, len(own), statistics.median(times), max(times), listed(tally), listed(gaps)))
    return lines


def listed(counts: Counter[str]) -> str:
    """Return counts as a line, most first."""
    return ", ".join(f"{what} {count}" for what, count in counts.most_common())


async def measure(given: argparse.Namespace) -> int:
    """Run it."""
    with tempfile.TemporaryDirectory() as data:
        async with chaos(Path(data), given.seed) as made:
            struck = await strike_on(made, 0 if given.quick else given.minutes, given.seed, as_json=given.json)
    if not given.json:
        report.table(f"seed {given.seed}", COLUMNS, rows(struck))
        for text in made.load.wrong[:10]:
            print(text)
    return report.finish("chaos", report.environment("antiphon"), goals(struck, made), as_json=given.json)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="how long; each blow is struck at least once")
    parser.add_argument("--quick", action="store_true", help="each blow once")
    parser.add_argument("--seed", type=int, default=1, help="of the order, the times and the questions")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
