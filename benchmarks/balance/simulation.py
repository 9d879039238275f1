"""A discrete-event simulation of masters that balance over the instances of one node, in virtual time."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random

from antiphon.decide.balancing import Balancer
from antiphon.decide.ending import Ending
from antiphon.decide.load import Flight, Loads
from benchmarks.balance.traffic import SECOND_US, Behaviour, Scenario, arrivals

MASTERS = 3
DEADLINE_US = SECOND_US
WIRE_US = 200
"""One way between a master and an instance."""
ALPHA = 0.3


@dataclass(slots=True)
class Result:
    """What became of the requests of one run."""

    latencies_us: list[int] = field(default_factory=list[int])
    """Of all requests, failed ones included; a time-out took the whole deadline."""
    failed: int = 0
    picked: Counter[str] = field(default_factory=Counter[str])


class Simulation:
    """One scenario under one strategy."""

    def __init__(self, scenario: Scenario, balancer: Balancer, seconds: int, seed: int) -> None:
        self.dice = Random(seed)
        self.now_us = 0
        self.result = Result()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.instances = {name: Instance(self, one) for name, one in scenario.instances.items()}
        self.masters = [Master(self, balancer) for _ in range(MASTERS)]
        self._seconds = seconds
        self._arrivals = arrivals(scenario.rate, seconds, Random(seed + 1))

    def at(self, at_us: int, call: Callable[[], None]) -> None:
        """Call later in virtual time."""
        self._count += 1
        heappush(self._events, (at_us, self._count, call))

    def run(self) -> Result:
        """Run until every request has ended."""
        self._arrive()
        for second in range(self._seconds):
            self.at(second * SECOND_US, self._beat)
        while self._events:
            self.now_us, _, call = heappop(self._events)
            call()
        return self.result

    def _arrive(self) -> None:
        at_us = next(self._arrivals, None)
        if at_us is not None:
            self.at(at_us, self._ask)

    def _ask(self) -> None:
        self._arrive()
        self.masters[int(self.dice.random() * MASTERS)].ask()

    def _beat(self) -> None:
        for name, instance in self.instances.items():
            for master in self.masters:
                master.loads.told(name, instance.in_flight, instance.latency_us, self.now_us // 1_000)


class Instance:
    """A queue and a few workers."""

    def __init__(self, simulation: Simulation, behaviour: Behaviour) -> None:
        self.simulation = simulation
        self.behaviour = behaviour
        self.in_flight = 0
        self.latency_us = 0
        self._working = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()

    def take(self, answer: Callable[[], None]) -> None:
        """Take a request."""
        self.in_flight += 1
        self._waiting.append((self.simulation.now_us, answer))
        self._work()

    def _work(self) -> None:
        while self._waiting and self._working < self.behaviour.workers:
            self._working += 1
            came_us, answer = self._waiting.popleft()
            begins_us = self.behaviour.begins_us(self.simulation.now_us)
            ends_us = begins_us + self.behaviour.work_us(self.simulation.dice)
            self.simulation.at(ends_us, partial(self._end, came_us, answer))

    def _end(self, came_us: int, answer: Callable[[], None]) -> None:
        self._working -= 1
        self.in_flight -= 1
        self.latency_us += int(ALPHA * (self.simulation.now_us - came_us - self.latency_us))
        self.simulation.at(self.simulation.now_us + WIRE_US, answer)
        self._work()


class Master:
    """One master with its own loads."""

    def __init__(self, simulation: Simulation, balancer: Balancer) -> None:
        self.simulation = simulation
        self.strategy = balancer.make()
        self.loads = Loads()
        self.names = tuple(simulation.instances)

    def ask(self) -> None:
        """Pick an instance and send it one request."""
        simulation = self.simulation
        began_us = simulation.now_us
        name = self.strategy.order(self.names, self.loads, began_us // 1_000, simulation.dice)[0]
        simulation.result.picked[name] += 1
        flight = self.loads.started(name, began_us // 1_000)
        instance = simulation.instances[name]
        ending = Ending.SUCCEEDED if instance.behaviour.failure_us is None else Ending.FAILED

        def answered() -> None:
            self._end(flight, ending, began_us)
            self.loads.told(name, instance.in_flight, instance.latency_us, simulation.now_us // 1_000)

        simulation.at(began_us + WIRE_US, lambda: instance.take(answered))
        simulation.at(began_us + DEADLINE_US, partial(self._end, flight, Ending.FAILED, began_us))

    def _end(self, flight: Flight, ending: Ending, began_us: int) -> None:
        if flight.is_over:
            return
        took_us = self.simulation.now_us - began_us
        flight.ended(ending, took_us, self.simulation.now_us // 1_000)
        self.simulation.result.latencies_us.append(took_us)
        self.simulation.result.failed += ending is Ending.FAILED
