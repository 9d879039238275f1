"""`python -m benchmarks.quality FOLDER [--quick] [--json]`: nDCG@10 of fused lists against one central BM25 index."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from antiphon.decide.fuse import DEFAULT, methods
from benchmarks.quality.setups import read, setups
from benchmarks.quality.testbed import Ratios, measure
from benchmarks.report import Goal, environment, finish, note, table

QUICK_QUERIES = 25
FULL_QUERIES = 300
COPIES_MAX = 0.2


def main() -> int:
    """Run every testbed and return 0 when all goals are met."""
    given = arguments()
    gc.disable()  # millions of postings and no cycles: collecting finds nothing and costs seconds
    start = time.perf_counter()
    rows: dict[str, list[Ratios]] = {}
    bounds: dict[str, float] = {}
    for setup in setups(read(given.folder, QUICK_QUERIES if given.quick else FULL_QUERIES)):
        found = measure(setup.nodes, setup.queries, setup.central, setup.asked, setup.without)
        rows.setdefault(setup.name, []).append(found)
        if setup.bound is not None:
            bounds[setup.name] = setup.bound
        note(f"{time.perf_counter() - start:6.1f} s  {setup.name}: {found.ratio[DEFAULT]:.3f}", as_json=given.json)
    if not given.json:
        show(rows)
    where = environment("antiphon", "PyStemmer", "msgspec")
    where |= {"queries_max_a_collection": QUICK_QUERIES if given.quick else FULL_QUERIES}
    return finish("quality", where, goals(rows, bounds), as_json=given.json)


def arguments() -> argparse.Namespace:
    """Return the command line's arguments; the folder may also come from ANTIPHON_DATA."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    known = os.environ.get("ANTIPHON_DATA")
    parser.add_argument("folder", type=Path, nargs="?", default=known, help="the collections; or set ANTIPHON_DATA")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_QUERIES} questions a collection, within 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    given = parser.parse_args()
    if given.folder is None:
        parser.error("name the folder of the collections, or set ANTIPHON_DATA")
    given.folder = Path(given.folder)
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is no folder")
    return given


def show(rows: Mapping[str, Sequence[Ratios]]) -> None:
    """Print nDCG@10 relative to the central index, a row a testbed and a column a method."""
    names = sorted(methods(), key=lambda name: (name != DEFAULT, name))
    columns = ("testbed", *names, "recall@100", "central nDCG", "copies in 10")
    table(
        f"nDCG@10 / nDCG@10 of one central BM25 index; recall@100 and copies of {DEFAULT}",
        columns,
        [
            (
                testbed,
                *[mean([one.ratio[name] for one in found]) if name in found[0].ratio else None for name in names],
                mean([one.recalled for one in found]),
                mean([one.central for one in found]),
                mean([one.copies for one in found]),
            )
            for testbed, found in rows.items()
        ],
    )


def goals(rows: Mapping[str, Sequence[Ratios]], bounds: Mapping[str, float]) -> list[Goal]:
    """Return the goals; the spread is between the collections of a testbed, largest minus smallest."""
    found: list[Goal] = []
    for name, bound in bounds.items():
        ratios = [one.ratio[DEFAULT] for one in rows[name]]
        spread = max(ratios) - min(ratios) if len(ratios) > 1 else None
        found.append(Goal(f"{name}: nDCG@10 ratio", mean(ratios), spread, f">= {bound}"))
        if "duplicates" in name:
            copies = [one.copies for one in rows[name]]
            spread = max(copies) - min(copies)
            found.append(Goal(f"{name}: left in the top 10", mean(copies), spread, f"<= {COPIES_MAX}"))
    return found


def mean(numbers: Sequence[float]) -> float:
    """Return the arithmetic mean."""
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    sys.exit(main())
