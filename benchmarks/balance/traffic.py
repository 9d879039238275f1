"""What is asked and how instances behave: open-loop Poisson arrivals and five instances of which one is odd.

Nothing here says how requests are served: `simulation.py` does that in pure virtual time, and a test fleet may.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One instance: how many requests it works at, for how long, and what is odd about it."""

    mean_us: int = 10_000
    workers: int = 4
    failure_us: int | None = None
    """It answers every request with an error after this."""
    stall_us: int = 0
    """Nothing is begun for so long, once in `stall_every_us`."""
    stall_every_us: int = 10 * SECOND_US

    def work_us(self, dice: Random) -> int:
        """Return how long one request takes: log-normal, as services are, with a p99 of four times the median."""
        if self.failure_us is not None:
            return self.failure_us
        return max(1, int(self.mean_us * dice.lognormvariate(-0.18, 0.6)))

    def begins_us(self, now_us: int) -> int:
        """Return when work that is ready now begins."""
        if not self.stall_us:
            return now_us
        cycle_us = now_us % self.stall_every_us
        return now_us + max(0, self.stall_us - cycle_us)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One odd instance among four sound ones, under a load that round robin can bear."""

    name: str
    odd: Behaviour
    rate: int
    """Requests a second, all masters together."""
    sound: Behaviour = Behaviour()

    @property
    def instances(self) -> dict[str, Behaviour]:
        """The instances by name."""
        return {"odd": self.odd} | {f"i{at}": self.sound for at in range(4)}


SCENARIOS = (
    Scenario("all equal, 50 % load", Behaviour(), 1_000),
    Scenario("one 5x slower", Behaviour(mean_us=50_000), 300),
    Scenario("one 10x slower", Behaviour(mean_us=100_000), 150),
    Scenario("one 10x slower, more load than round robin can bear", Behaviour(mean_us=100_000), 800),
    Scenario("one failing at once", Behaviour(failure_us=200), 800),
    Scenario("one stalling for 2 s of every 10 s", Behaviour(stall_us=2 * SECOND_US), 800),
)


def arrivals(rate: int, seconds: int, dice: Random) -> Iterator[int]:
    """Yield when requests come, in microseconds: they do not wait for answers to earlier ones."""
    at_us = 0.0
    while True:
        at_us += dice.expovariate(rate) * SECOND_US
        if at_us >= seconds * SECOND_US:
            return
        yield int(at_us)
