"""The laws of search under random faults: honest, on time, and afterwards everything is as it was."""

from __future__ import annotations

import logging

import pytest
import structlog

from antiphon.testing import TestFleet, virtual_run
from storm import SETTINGS, Storm, leaks


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Without the log, most of which would be what the storm does on purpose."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


@pytest.mark.parametrize("seed", range(12))
def test_a_storm_leaves_honest_answers_on_time_and_nothing_behind(seed: int) -> None:
    async def main() -> None:
        async with TestFleet(seed, **SETTINGS) as fleet:
            storm = Storm(fleet, seed)
            await storm.begin()
            await storm.rage(rounds=30)
            await storm.calm()
            print(storm.searches, sorted(storm.outcomes.items()))
            assert storm.outcomes["answered None"] > storm.searches
            assert leaks(fleet) == []

    virtual_run(main())
