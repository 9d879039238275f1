"""A saga in a storm: every fault that a world knows, as hypothesis likes or as a seed says."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from pydantic import JsonValue

from saga_world import World, draw_definition

RESULTS: list[JsonValue] = [None, {"id": 1}, {"id": "x", "more": [1, 2]}]
ORDERS = ["cancel", "pause", "resume", "retry", "skip", "resolve", "abandon"]
at = st.integers(0, 7)
who = st.integers(0, 2)


class Faults(RuleBasedStateMachine):
    """Everything that a world can do, one thing at a time, as hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = Random(0)
        self.world = World(draw_definition(self.dice))

    @initialize(seed=st.integers(0, 2**32), delay_ms=st.sampled_from([0, 0, 0, 2_000]))
    def a_saga_is_submitted(self, seed: int, delay_ms: int) -> None:
        self.dice = Random(seed)
        self.world = World(draw_definition(self.dice), delay_ms, is_joint=seed % 3 > 0)

    @rule(who=who, at=at)
    def an_event_is_delivered(self, who: int, at: int) -> None:
        world = self.world
        open_ = [event for event in world.events if not event.is_done]
        if open_:
            world.deliver(world.coordinators[who], open_[at % len(open_)])

    @rule(who=who, times=st.integers(1, 4))
    def a_coordinator_goes_on(self, who: int, times: int) -> None:
        for _ in range(times):
            self.world.advance(self.world.coordinators[who])

    @rule(at=at)
    def a_write_arrives(self, at: int) -> None:
        open_ = [flight for flight in self.world.flights if not flight.is_taken]
        if open_:
            self.world.land(open_[at % len(open_)])

    @rule(who=who)
    def its_answer_arrives(self, who: int) -> None:
        self.world.acknowledge(self.world.coordinators[who])

    @rule(who=who)
    def its_answer_is_lost(self, who: int) -> None:
        self.world.lose(self.world.coordinators[who])

    @rule(who=who)
    def a_coordinator_crashes(self, who: int) -> None:
        self.world.coordinators[who].crash()

    @rule(who=who)
    def a_coordinator_forgets(self, who: int) -> None:
        self.world.coordinators[who].cache = None

    @rule(
        at=at, outcome=st.sampled_from(["succeeded", "succeeded", "failed", "unknown"]), result=st.sampled_from(RESULTS)
    )
    def a_node_works(self, at: int, outcome: str, result: JsonValue) -> None:
        if self.world.tasks:
            task = self.world.tasks[at % len(self.world.tasks)]
            self.world.work(task, outcome, is_retryable=at % 3 > 0, result=result)

    @rule(at=at, is_again=st.booleans())
    def an_outcome_arrives(self, at: int, is_again: bool) -> None:
        tellings = self.world.tellings
        if tellings:
            telling = tellings[at % len(tellings)] if is_again else tellings.pop(at % len(tellings))
            self.world.tell(telling)

    @rule(at=at, who=who, is_again=st.booleans())
    def an_outcome_is_reported(self, at: int, who: int, is_again: bool) -> None:
        tellings = self.world.tellings
        if tellings:
            telling = tellings[at % len(tellings)] if is_again else tellings.pop(at % len(tellings))
            self.world.report(self.world.coordinators[who], telling, is_again=is_again)

    @rule(at=at)
    def a_node_lies_about_another(self, at: int) -> None:
        if self.world.tellings:
            self.world.tell(self.world.tellings[at % len(self.world.tellings)], node="liar")

    @rule(order=st.sampled_from(ORDERS), outcome=st.sampled_from(["succeeded", "failed"]), step=st.integers(0, 5))
    def an_operator_orders(self, order: str, outcome: str, step: int) -> None:
        self.world.judge(order, f"a{step}" if step else None, outcome)

    @rule(at=at)
    def an_order_arrives(self, at: int) -> None:
        if self.world.orders:
            self.world.store(self.world.orders.pop(at % len(self.world.orders)))

    @rule(ms=st.sampled_from([1, 10, 400, 600, 1_500, 2_100, 6_000, 30_000]))
    def time_passes(self, ms: int) -> None:
        self.world.pass_ms(ms)

    @rule(times=st.integers(1, 2))
    def the_timer_fires(self, times: int) -> None:
        self.world.fire(times)

    @rule(who=who, turns=st.integers(1, 15))
    def things_go_well_for_a_while(self, who: int, turns: int) -> None:
        """Without this hypothesis seldom gets as far as a second step."""
        world, one = self.world, self.world.coordinators[who]
        for _ in range(turns):
            for flight in world.flights:
                world.land(flight)
            open_ = [event for event in world.events if not event.is_done]
            if one.handling is not None:
                world.acknowledge(one)
                world.advance(one)
            elif open_:
                world.deliver(one, open_[0])
            elif world.tasks:
                world.work(world.tasks.pop(0), "succeeded", result={"id": 1})
                world.report(one, world.tellings.pop())

    def teardown(self) -> None:
        """No law was broken; and from wherever it is, it ends or waits for a person once the faults stop."""
        self.world.check()
        self.world.rest(self.dice)


def storm(seed: int, steps: int = 600) -> World:
    """The machine above seldom gets deep into a saga; here what makes progress is likelier than what spoils it."""
    dice = Random(seed)
    machine = Faults()
    machine.a_saga_is_submitted(dice.randrange(2**32), dice.choice([0, 0, 0, 2_000]))
    doom, meddling = dice.choice([0.0, 0.1, 0.4]), dice.choice([0.0, 0.01, 0.1])
    """How often nodes fail, and how often operators order something."""

    def works() -> None:
        outcome = dice.choice(["failed", "failed", "unknown"]) if dice.random() < doom else "succeeded"
        machine.a_node_works(dice.randrange(9), outcome, dice.choice(RESULTS))

    def orders() -> None:
        if dice.random() < meddling:
            order = dice.choices(ORDERS, (1, 2, 4, 6, 2, 2, 0.5))[0]
            machine.an_operator_orders(order, dice.choice(["succeeded", "failed"]), dice.randrange(6))

    happenings: list[tuple[float, Callable[[], None]]] = [
        (30, lambda: machine.an_event_is_delivered(dice.randrange(3), dice.choice([0, 0, dice.randrange(9)]))),
        (90, lambda: machine.a_coordinator_goes_on(dice.randrange(3), 2)),
        (60, lambda: machine.a_write_arrives(dice.choice([0, 0, dice.randrange(9)]))),
        (60, lambda: machine.its_answer_arrives(dice.randrange(3))),
        (4, lambda: machine.its_answer_is_lost(dice.randrange(3))),
        (3, lambda: machine.a_coordinator_crashes(dice.randrange(3))),
        (2, lambda: machine.a_coordinator_forgets(dice.randrange(3))),
        (25, works),
        (8, lambda: machine.an_outcome_arrives(dice.randrange(9), dice.random() < 0.3)),
        (20, lambda: machine.an_outcome_is_reported(dice.randrange(9), dice.randrange(3), dice.random() < 0.3)),
        (1, lambda: machine.a_node_lies_about_another(dice.randrange(9))),
        (20, orders),
        (10, lambda: machine.an_order_arrives(0)),
        (5, lambda: machine.time_passes(dice.choice([1, 10, 100, 400, 1_500]))),
        (5, lambda: machine.the_timer_fires(dice.choice([1, 1, 2]))),
    ]
    weights, calls = zip(*happenings, strict=True)
    for call in dice.choices(calls, weights, k=steps):
        call()
    machine.teardown()
    return machine.world
