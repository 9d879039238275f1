"""What a balancing strategy is: for one node and one master, the order in which to try its instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from antiphon.decide.load import InstanceLoad, Loads, fading

Rank = Callable[[InstanceLoad, int], float]
"""(load, now_ms) -> what it costs to ask this instance; the lowest is asked."""


class Strategy(Protocol):
    """One strategy's own state for one node; it sees only instances that may be asked."""

    def order(self, candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random) -> tuple[str, ...]:
        """Return the candidates, each once: the first is asked, the others follow when nobody listens there."""
        ...


@dataclass(frozen=True, slots=True)
class Balancer:
    """One strategy of the catalogue `decide/balance`.

    Attributes:
        name: the module's name, which is what a setting or a question names.
        summary: the module's first sentence.
        make: a new state, for one master and one node.
        keeps_weights: whether shares converge to the instances' weights.
        avoids_failing: whether an instance that fails fast gets less than its share.
    """

    name: str
    summary: str
    make: Callable[[], Strategy]
    keeps_weights: bool
    avoids_failing: bool


def rotated(candidates: tuple[str, ...], dice: Random) -> tuple[str, ...]:
    """Return the candidates from a random one on: a stable sort then breaks ties evenly."""
    at = int(dice.random() * len(candidates))
    return candidates[at:] + candidates[:at] if at else candidates


def two_of(candidates: tuple[str, ...], dice: Random) -> tuple[str, ...]:
    """Return the candidates, two different ones drawn at random first."""
    total = len(candidates)
    one = int(dice.random() * total)
    other = int(dice.random() * (total - 1))
    if other >= one:
        other += 1
    rest = [name for at, name in enumerate(candidates) if at not in (one, other)]
    return (candidates[one], candidates[other], *rest)


def by_rank(candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random, rank: Rank) -> tuple[str, ...]:
    """Return the candidates, the lowest rank first; ties are drawn."""
    if len(candidates) < 2:  # noqa: PLR2004 - one has no rank
        return candidates
    return tuple(sorted(rotated(candidates, dice), key=lambda name: rank(loads[name], now_ms)))


def better_of_two(candidates: tuple[str, ...], loads: Loads, now_ms: int, dice: Random, rank: Rank) -> tuple[str, ...]:
    """Return the lower one of two drawn at random, the other, and the rest."""
    if len(candidates) < 2:  # noqa: PLR2004 - one has no choice
        return candidates
    drawn = two_of(candidates, dice)
    if rank(loads[drawn[0]], now_ms) <= rank(loads[drawn[1]], now_ms):
        return drawn
    return (drawn[1], drawn[0], *drawn[2:])


def latency_us(load: InstanceLoad, now_ms: int) -> float:
    """Return the expected round trip: as measured, else as told, fading since it was last asked.

    One that nobody has measured is tried once, and not again before that has ended.
    """
    measured = load.latency_us
    if not measured:
        if load.in_flight:
            return _UNKNOWN_US
        return float(load.told_latency_us)
    return measured * fading(now_ms - load.asked_ms)


_UNKNOWN_US = 1e12
