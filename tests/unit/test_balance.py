"""Laws of balancing, run on every strategy of the catalogue by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.decide.balance import DEFAULT, strategies, strategy
from antiphon.decide.balance.peak_ewma import cost
from antiphon.decide.balancing import Balancer, latency_us
from antiphon.decide.ending import Ending
from antiphon.decide.load import SHUN_MS_MAX, Flight, InstanceLoad, Loads
from antiphon.errors import UnknownMethod

each = pytest.mark.parametrize("balancer", strategies().values(), ids=list(strategies()))
NAMES = st.integers(0, 7).map("i{}".format)
Behaviour = Callable[[int, Random], tuple[int, Ending]]
"""(milliseconds, dice) -> how long it takes in microseconds, and how it ends."""


def takes(latency_us: int, ending: Ending = Ending.SUCCEEDED) -> Behaviour:
    return lambda _, dice: (int(latency_us * dice.uniform(0.8, 1.2)), ending)


class World:
    """One master that asks one node's instances, a request every `gap_ms`, in virtual time."""

    def __init__(self, balancer: Balancer, behaviours: dict[str, Behaviour], seed: int = 1) -> None:
        self.strategy = balancer.make()
        self.behaviours = behaviours
        self.loads = Loads()
        self.dice = Random(seed)
        self.now_ms = 0
        self.flying: list[tuple[int, int, Flight, int, Ending]] = []
        self.picks: list[str] = []

    def run(self, picks: int, gap_ms: int = 5) -> Counter[str]:
        """Return how often each was picked."""
        names = tuple(self.behaviours)
        for _ in range(picks):
            self.now_ms += gap_ms
            while self.flying and self.flying[0][0] <= self.now_ms:
                at_ms, _, flight, took_us, ending = heappop(self.flying)
                flight.ended(ending, took_us, at_ms)
            name = self.strategy.order(names, self.loads, self.now_ms, self.dice)[0]
            self.picks.append(name)
            took_us, ending = self.behaviours[name](self.now_ms, self.dice)
            flight = self.loads.started(name, self.now_ms)
            heappush(self.flying, (self.now_ms + took_us // 1_000, len(self.picks), flight, took_us, ending))
        return Counter(self.picks[-picks:])


def test_the_catalogue_has_what_the_documentation_promises() -> None:
    promised = {"round_robin", "random", "weighted", "least_connections"}
    assert promised | {"response_time", "power_of_two", "peak_ewma", "prequal"} <= set(strategies())
    assert strategy(DEFAULT).name == DEFAULT
    assert all(balancer.summary for balancer in strategies().values())


def test_an_unknown_strategy_is_a_typed_error() -> None:
    with pytest.raises(UnknownMethod, match="prequal"):
        strategy("magic")


acts = st.lists(
    st.tuples(
        st.sampled_from(["order", "start", "told", "weigh", *Ending]),
        st.integers(0, 7),
        st.integers(0, 3_000_000),
    ),
    max_size=60,
)


@each
@given(st.lists(st.lists(NAMES, max_size=6, unique=True), min_size=1, max_size=4), acts, st.integers(0, 99))
def test_the_order_is_the_candidates_each_once_whatever_happened(
    balancer: Balancer, sets: list[list[str]], acts: list[tuple[str, int, int]], seed: int
) -> None:
    one, other = balancer.make(), balancer.make()
    loads, dice, again = Loads(), Random(seed), Random(seed)
    flights: list[Flight] = []
    now_ms = 0
    for act, at, number in acts:
        now_ms += number // 1_000
        name = f"i{at}"
        if act == "order":
            candidates = tuple(sets[at % len(sets)])
            order = one.order(candidates, loads, now_ms, dice)
            assert sorted(order) == sorted(candidates), "never one that is not eligible"
            assert other.order(candidates, loads, now_ms, again) == order, "the same dice, the same order"
        elif act == "start":
            flights.append(loads.started(name, now_ms))
        elif act == "told":
            loads.told(name, number % 50, number, now_ms)
        elif act == "weigh":
            loads.weigh({name: number % 300, "i0": 100})
        elif flights:
            flights.pop(at % len(flights)).ended(Ending(act), number, now_ms)


@each
def test_equal_instances_get_equal_shares(balancer: Balancer) -> None:
    shares = World(balancer, {f"i{at}": takes(4_000) for at in range(5)}).run(5_000)
    low, high = (600, 1_400) if balancer.avoids_failing else (800, 1_200)
    assert all(low <= shares[name] <= high for name in ("i0", "i1", "i2", "i3", "i4")), shares


@each
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 99))
def test_shares_converge_to_weights_where_that_is_promised(balancer: Balancer, weights: list[int], seed: int) -> None:
    if balancer.keeps_weights:
        names = {f"i{at}": weight for at, weight in enumerate(weights)}
        state, loads, dice, picked = balancer.make(), Loads(), Random(seed), Counter[str]()
        loads.weigh(names)
        for turn in range(1, 3 * sum(weights) + 1):
            picked[state.order(tuple(names), loads, 0, dice)[0]] += 1
            for name, weight in names.items():
                assert abs(picked[name] - turn * weight / sum(weights)) < len(names), "at no time far from its share"
        assert picked == {name: 3 * weight for name, weight in names.items()}


def test_a_weight_of_nothing_is_asked_only_when_there_is_nobody_else() -> None:
    state, loads, dice = strategy("weighted").make(), Loads(), Random(1)
    loads.weigh({"a": 0, "b": 5, "c": 0})
    assert {state.order(("a", "b", "c"), loads, 0, dice)[0] for _ in range(20)} == {"b"}
    assert {state.order(("a", "c"), loads, 0, dice)[0] for _ in range(20)} == {"a", "c"}
    assert state.order((), loads, 0, dice) == ()


@each
@pytest.mark.parametrize("factor", [5, 10, 100])
def test_a_slow_instance_does_not_starve(balancer: Balancer, factor: int) -> None:
    behaviours = {"slow": takes(4_000 * factor)} | {f"i{at}": takes(4_000) for at in range(4)}
    world = World(balancer, behaviours)
    world.run(2_000)
    assert world.run(30_000)["slow"] >= 1, "within 150 s it is tried again"


@each
@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.REFUSED])
def test_who_fails_at_once_attracts_nothing(balancer: Balancer, ending: Ending) -> None:
    behaviours = {"bad": takes(50, ending)} | {f"i{at}": takes(20_000) for at in range(4)}
    share = World(balancer, behaviours).run(10_000)["bad"] / 10_000
    assert share <= (0.01 if balancer.avoids_failing else 0.22), share


@each
def test_who_recovers_is_asked_again_within_bounded_picks(balancer: Balancer) -> None:
    def recovers(now_ms: int, dice: Random) -> tuple[int, Ending]:
        return (50, Ending.FAILED) if now_ms < 60_000 else (int(3_000 * dice.uniform(0.8, 1.2)), Ending.SUCCEEDED)

    world = World(balancer, {"back": recovers} | {f"i{at}": takes(4_000) for at in range(4)})
    world.run(12_000)
    assert world.now_ms == 60_000
    soon = world.run(SHUN_MS_MAX // 5 + 400)
    assert soon["back"] >= 1
    assert world.run(2_000)["back"] >= 200, "and gets its share again"


@each
def test_when_all_fail_all_are_still_tried(balancer: Balancer) -> None:
    shares = World(balancer, {f"i{at}": takes(100, Ending.FAILED) for at in range(3)}).run(3_000)
    assert len(shares) == 3


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([*Ending, "abandon", "raise", "start"])), max_size=80))
def test_counts_cannot_leak(events: list[tuple[int, str]]) -> None:
    loads, open_ = Loads(), dict[int, list[Flight]]()
    for at, event in events:
        name, flights = f"i{at}", open_.setdefault(at, [])
        if event == "start" or not flights:
            flights.append(loads.started(name, 0))
        elif event == "raise":
            with pytest.raises(ZeroDivisionError), loads.started(name, 0):
                raise ZeroDivisionError
        else:
            flight = flights.pop()
            for _ in range(2):
                flight.abandoned() if event == "abandon" else flight.ended(Ending(event), 5, 0)
            assert flight.is_over
        assert all(loads[f"i{at}"].in_flight == len(flights) for at, flights in open_.items())


def test_a_flight_of_an_instance_that_left_counts_nowhere() -> None:
    loads = Loads()
    flight = loads.started("a", 0)
    loads.weigh({"b": 1})
    loads.weigh({"a": 1})
    flight.ended(Ending.FAILED, 5, 0)
    assert (loads["a"].in_flight, loads["a"].failures, list(loads)) == (0, 0, ["a"])


@given(st.lists(st.tuples(st.sampled_from(Ending), st.integers(1, 10**7), st.integers(0, 5_000)), max_size=40))
def test_only_a_success_can_make_an_estimate_fall(calls: list[tuple[Ending, int, int]]) -> None:
    loads, now_ms = Loads(), 0
    for ending, took_us, ms in calls:
        now_ms += ms
        load, flight = loads["a"], loads.started("a", now_ms)
        before = (load.latency_us, load.peak_us)
        flight.ended(ending, took_us, now_ms)
        if ending is Ending.ABANDONED:
            assert (load.latency_us, load.peak_us) == before
        elif ending is not Ending.SUCCEEDED:
            assert load.latency_us >= before[0]
            assert load.is_shunned(now_ms)
        assert load.failures == 0 or not load.is_shunned(now_ms + SHUN_MS_MAX), "nobody is shunned for ever"


def test_what_is_measured_is_believed_before_what_is_told() -> None:
    loads = Loads()
    loads.told("a", 0, 1, 0)
    assert latency_us(loads["a"], 0) == 1
    loads.started("a", 0).ended(Ending.SUCCEEDED, 9_000, 0)
    loads.told("a", 0, 1, 0)
    assert latency_us(loads["a"], 0) == 9_000
    loads.started("a", 0)
    assert loads["a"].queue(0) == 1, "telling of no work does not hide what this master sent"
    loads.told("a", 5, 1, 0)
    assert (loads["a"].queue(0), loads["a"].queue(5_000)) == (5, 1), "and what is told goes stale"


def test_one_that_nobody_measured_is_tried_once_at_a_time() -> None:
    loads = Loads()
    assert latency_us(loads["a"], 0) == cost(loads["a"], 0) == 0
    loads.started("a", 0)
    assert min(latency_us(loads["a"], 0), cost(loads["a"], 0)) > 10**9


def test_a_peak_is_believed_at_once_and_forgotten_slowly() -> None:
    load, loads = InstanceLoad(), Loads()
    loads["a"] = load
    for took_us, at_ms in ((1_000, 0), (900_000, 10), (1_000, 20)):
        loads.started("a", at_ms).ended(Ending.SUCCEEDED, took_us, at_ms)
    assert load.peak_us > 800_000
    assert cost(load, 20) > 100 * cost(load, 2_000_000)
