"""Facts are recorded exactly once, whoever is killed: recorder and server, by -9, while it writes, seals and copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.stats.kills import kill_loop

SEED = 20261123
FACTS, KILLS = 4_000, 8
"""The full loop of 40,000 facts and 60 kills is `python -m benchmarks.stats`."""


@pytest.mark.timeout(300)
async def test_every_fact_is_a_row_once_whoever_is_killed(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    count = await kill_loop(tmp_path, FACTS, KILLS, SEED)
    assert (count.rows, count.distinct) == (FACTS, FACTS), count
    assert (count.dead, count.gaps, count.dropped) == (0, 0, 0), count
