"""The runtime in virtual time: typed handlers, bounded mailboxes and conversations, restarts, deadlines and stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from antiphon.bus.bus import Bus, Call
from antiphon.bus.memory import MemoryServer
from antiphon.decide.restarts import Intensity
from antiphon.errors import AntiphonError, Internal, NoResponders, NotAllowed, OutOfBudget, Overloaded, Stopping
from antiphon.messages.base import ANYONE, Fact, Kind, Message, Request, Route
from antiphon.runtime.actor import Actor, ActorBounds, Encoded, answers, converses, hears
from antiphon.runtime.facts import Facts
from antiphon.runtime.supervisor import Supervisor
from antiphon.runtime.views import View
from antiphon.subjects import Template
from antiphon.testing import virtual_run


class Done(Message):
    number: int = 0


class Count(Request[Done]):
    route = Route(Template("test.count.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue="test")

    what: str = ""


class Talk(Request[Done]):
    route = Route(Template("test.talk.<caller>"), sent_by=ANYONE, read_by=(Kind.MASTER,), queue="test")

    what: str = ""
    wait_ms: int = 0


class Rang(Fact):
    route = Route(Template("fact.rang.<writer>"), sent_by=ANYONE, read_by=ANYONE)

    number: int = 0


class Counter(Actor):
    """Counts in its mailbox, talks in conversations."""

    name = "counter"

    def __init__(self, bus: Bus, bounds: ActorBounds | None = None) -> None:
        super().__init__(bus, bounds=bounds)
        self.number = 0
        self.rung: list[int] = []

    @answers(Count)
    async def count(self, call: Call[Count]) -> Done:
        if call.message.what == "poison":
            raise LookupError("a bug")
        if call.message.what == "refuse":
            raise NotAllowed("not you")
        if call.message.what == "slow":
            await self.bus.clock.sleep_ms(1_000)
        self.number += 1
        return Done(number=self.number)

    @converses(Talk)
    async def talk(self, call: Call[Talk]) -> Encoded[Done]:
        await self.bus.clock.sleep_ms(call.message.wait_ms)
        if call.message.what == "poison":
            raise LookupError("a bug")
        if call.message.what == "cancel":
            raise asyncio.CancelledError
        return Encoded(b'{"number": 7}')

    @hears(Rang)
    async def rang(self, fact: Rang, keys: dict[str, str]) -> None:
        if fact.number < 0:
            raise LookupError("a bug")
        self.rung.append(fact.number)


class World:
    """A bus server, a supervisor with one counter, and an asker."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.made: list[Counter] = []
        self.supervisor = Supervisor()
        self.running: asyncio.Task[None] | None = None

    async def bus(self, name: str) -> Bus:
        bus = Bus(self.server.connect(), name=name, session="s")
        await bus.start()
        return bus

    async def begin(self, bounds: ActorBounds | None = None, intensity: Intensity | None = None) -> Bus:
        """Start a supervised counter; return the asker's bus."""
        bus = await self.bus("master")

        def make() -> Counter:
            self.made.append(Counter(bus, bounds))
            return self.made[-1]

        self.supervisor = Supervisor(intensity=intensity)
        await self.supervisor.start("counter", make)
        self.running = asyncio.ensure_future(self.supervisor.run())
        return await self.bus("web")

    async def end(self) -> None:
        assert self.running is not None
        self.supervisor.stop()
        await self.running


def run(main: Callable[[World], Awaitable[None]]) -> None:
    async def within() -> None:
        world = World()
        await main(world)
        if world.running is not None and not world.running.done():
            await world.end()

    virtual_run(within())


async def now_ms() -> int:
    return round(asyncio.get_running_loop().time() * 1_000)


async def outcome(asked: Awaitable[Done]) -> Any:
    """Return the number, or the class of the error."""
    try:
        return (await asked).number
    except AntiphonError as error:
        return type(error)


# -- classes


def test_a_handler_that_returns_something_else_than_the_declared_reply_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.count handles Count and must return Done"):

        class Wrong(Actor):
            @answers(Count)
            async def count(self, call: Call[Count]) -> Count:
                return call.message


def test_a_handler_without_a_return_annotation_is_refused() -> None:
    with pytest.raises(TypeError, match="must return Done"):

        class Silent(Actor):
            @converses(Talk)
            async def talk(self, call: Call[Talk]):  # type: ignore[no-untyped-def]
                return Done()


def test_a_fact_is_answered_by_nobody() -> None:
    with pytest.raises(TypeError, match="must return NoneType"):

        class Talkative(Actor):
            @hears(Rang)
            async def rang(self, fact: Rang, keys: dict[str, str]) -> Done:
                return Done()


def test_a_sync_handler_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Sync\.count must be `async def`"):

        class Sync(Actor):
            @answers(Count)  # type: ignore[type-var]
            def count(self, call: Call[Count]) -> Done:
                return Done()


def test_handlers_are_inherited_and_may_be_replaced() -> None:
    class More(Counter):
        @answers(Count)
        async def count(self, call: Call[Count]) -> Done:
            return Done(number=-1)

    assert set(More.handlers) == {"count", "talk", "rang"}
    assert More.handlers["count"] is not Counter.handlers["count"]


# -- mailbox and conversations


def test_the_mailbox_is_handled_in_order_and_conversations_side_by_side() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        slow = asyncio.ensure_future(web.ask(Count(what="slow")))
        quick = [asyncio.ensure_future(web.ask(Count())) for _ in range(3)]
        talks = [asyncio.ensure_future(web.ask(Talk(wait_ms=1_000))) for _ in range(100)]
        assert [(await one).number for one in (slow, *quick)] == [1, 2, 3, 4]
        assert {(await one).number for one in talks} == {7}
        assert await now_ms() == 1_000, "a hundred conversations of a second take one second"

    run(main)


def test_a_full_mailbox_refuses_with_when_to_come_back_and_then_takes_again() -> None:
    async def main(world: World) -> None:
        web = await world.begin(ActorBounds(mailbox_max=3, retry_after_ms=250))
        asked = [asyncio.ensure_future(web.ask(Count(what="slow"), budget_ms=30_000))]
        await web.clock.sleep_ms(1)
        asked += [asyncio.ensure_future(web.ask(Count(what="slow"), budget_ms=30_000)) for _ in range(7)]
        outcomes = [await outcome(one) for one in asked]
        # one is being handled, three wait
        assert outcomes.count(Overloaded) == 4
        assert [one for one in outcomes if one is not Overloaded] == [1, 2, 3, 4]
        error = asked[-1].exception()
        assert isinstance(error, Overloaded)
        assert error.retry_after_ms == 250
        assert (await web.ask(Count())).number == 5

    run(main)


def test_too_many_conversations_are_refused_and_end_alone() -> None:
    async def main(world: World) -> None:
        web = await world.begin(ActorBounds(conversations_max=3, retry_after_ms=70))
        asked = [asyncio.ensure_future(web.ask(Talk(wait_ms=100))) for _ in range(5)]
        outcomes = [await outcome(one) for one in asked]
        assert outcomes == [7, 7, 7, Overloaded, Overloaded]
        error = asked[-1].exception()
        assert isinstance(error, Overloaded)
        assert error.retry_after_ms == 70
        assert len(world.made[0].conversations) == 0
        assert (await web.ask(Talk())).number == 7

    run(main)


def test_a_handler_that_is_cancelled_from_within_is_a_bug_and_ends_alone() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        asked = [web.ask(Talk(wait_ms=at, what="cancel" if at == 3 else "")) for at in range(6)]
        assert await asyncio.gather(*map(outcome, asked)) == [Internal if at == 3 else 7 for at in range(6)]
        assert (world.made[0].conversations.bugs, len(world.made[0].conversations)) == (1, 0)

    run(main)


def test_one_poisoned_conversation_among_a_hundred_ends_alone() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        asked = [web.ask(Talk(wait_ms=at, what="poison" if at == 50 else "")) for at in range(100)]
        outcomes = await asyncio.gather(*map(outcome, asked))
        assert outcomes == [Internal if at == 50 else 7 for at in range(100)]
        assert len(world.made) == 1, "nothing was restarted"
        assert world.made[0].conversations.bugs == 1
        (endpoint,) = [one for one in world.made[0].endpoints if one.name == "talk"]
        assert (endpoint.requests, endpoint.errors) == (100, 1)

    run(main)


def test_the_deadline_cancels_a_conversation_and_answers_out_of_budget() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        heard: list[str] = []

        async def hear(delivery: Any) -> None:
            heard.append(delivery.headers["Nats-Service-Error-Code"])

        # asked by hand, so that the answer is seen and not the asker's own timer
        await web.transport.subscribe("_I.web.hand.>", hear)
        subject = Talk.route.template.subject(caller="web")
        await web.transport.publish(
            subject, b'{"wait_ms": 60000}', reply="_I.web.hand.1", headers={"Antiphon-Budget": "300"}
        )
        await web.clock.sleep_ms(299)
        assert len(world.made[0].conversations) == 1
        await web.clock.sleep_ms(2)
        assert heard == ["out_of_budget"]
        assert len(world.made[0].conversations) == 0
        assert await outcome(web.ask(Talk(wait_ms=60_000), budget_ms=100)) is OutOfBudget

    run(main)


def test_a_typed_error_of_a_handler_is_no_bug() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        assert await outcome(web.ask(Count(what="refuse"))) is NotAllowed
        assert (await web.ask(Count())).number == 1
        assert len(world.made) == 1

    run(main)


# -- supervision


def test_a_bug_in_the_mailbox_answers_everyone_and_restarts_with_a_fresh_state() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        for _ in range(3):
            await web.ask(Count())
        poisoned = asyncio.ensure_future(web.ask(Count(what="poison")))
        waiting = [asyncio.ensure_future(web.ask(Count())) for _ in range(5)]
        assert await outcome(poisoned) is Internal
        assert [await outcome(one) for one in waiting] == [Stopping] * 5
        await web.clock.sleep_ms(1)
        assert len(world.made) == 2
        assert (await web.ask(Count())).number == 1, "state that a bug may have spoilt is not kept"

    run(main)


def test_a_bug_over_a_fact_restarts_too() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        await web.publish(Rang(number=1))
        await web.publish(Rang(number=-1))
        await web.clock.sleep_ms(1)
        await web.publish(Rang(number=2))
        await web.clock.sleep_ms(1)
        assert [actor.rung for actor in world.made] == [[1], [2]]

    run(main)


def test_too_many_crashes_escalate_and_stop_everything() -> None:
    async def main(world: World) -> None:
        web = await world.begin(intensity=Intensity(restarts_max=2, window_ms=1_000))
        assert world.running is not None
        for _ in range(3):
            assert await outcome(web.ask(Count(what="poison"))) is Internal
            await web.clock.sleep_ms(10)
        with pytest.raises(LookupError, match="a bug"):
            await world.running
        assert len(world.made) == 3
        assert await outcome(web.ask(Count())) is NoResponders

    run(main)


def test_crashes_far_enough_apart_do_not_escalate() -> None:
    async def main(world: World) -> None:
        web = await world.begin(intensity=Intensity(restarts_max=1, window_ms=1_000))
        for _ in range(10):
            assert await outcome(web.ask(Count(what="poison"))) is Internal
            await web.clock.sleep_ms(1_000)
        assert (await web.ask(Count())).number == 1

    run(main)


class Noted:
    """A child that says what is done with it."""

    def __init__(self, name: str, notes: list[str], *, fails: bool = False) -> None:
        self.name = name
        self.notes = notes
        self.fails = fails

    async def start(self) -> None:
        self.notes.append(f"start {self.name}")

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def stop(self, *, is_crashed: bool = False) -> None:
        self.notes.append(f"stop {self.name}")
        if self.fails:
            raise LookupError("cannot stop")


def test_children_stop_in_reverse_order_even_when_one_cannot() -> None:
    notes: list[str] = []

    async def main() -> None:
        supervisor = Supervisor()
        for name in "abc":
            await supervisor.start(name, lambda name=name: Noted(name, notes, fails=name == "b"))  # type: ignore[misc]
        supervisor.stop()
        await supervisor.run()

    virtual_run(main())
    assert notes == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


def test_a_stop_waits_for_what_has_begun_and_cuts_off_what_outlasts_the_grace() -> None:
    async def main(world: World) -> None:
        web = await world.begin(ActorBounds(stop_grace_ms=500))
        short = asyncio.ensure_future(web.ask(Talk(wait_ms=400)))
        long = asyncio.ensure_future(web.ask(Talk(wait_ms=4_000)))
        await web.clock.sleep_ms(100)
        began = await now_ms()
        await world.end()
        assert await outcome(short) == 7
        assert await outcome(long) is Stopping
        assert await now_ms() - began == 500
        assert await outcome(web.ask(Talk())) is NoResponders

    run(main)


def test_a_stop_answers_what_waits_in_the_mailbox() -> None:
    async def main(world: World) -> None:
        web = await world.begin(ActorBounds(stop_grace_ms=1_500))
        asked = [asyncio.ensure_future(web.ask(Count(what="slow"), budget_ms=30_000)) for _ in range(4)]
        await web.clock.sleep_ms(1)
        await world.end()
        outcomes = [await outcome(one) for one in asked]
        assert outcomes[0] == 1
        assert set(outcomes[1:]) <= {2, Stopping}
        assert outcomes.count(Stopping) >= 2

    run(main)


def test_a_stop_with_nothing_to_do_takes_no_time() -> None:
    async def main(world: World) -> None:
        await world.begin()
        await world.end()
        assert await now_ms() == 0

    run(main)


def test_what_is_told_later_is_not_told_after_a_stop() -> None:
    async def main(world: World) -> None:
        web = await world.begin()
        told: list[int] = []

        async def tell() -> None:
            told.append(await now_ms())

        actor = world.made[0]
        actor.tell_after(100, tell)
        actor.tell_after(5_000, tell)
        await web.clock.sleep_ms(200)
        await world.end()
        await web.clock.sleep_ms(10_000)
        assert told == [100]

    run(main)


# -- views and facts


def test_a_view_shows_the_last_snapshot() -> None:
    view: View[int] = View(0)
    assert view.current == 0
    view.replace(5)
    assert view.current == 5


def test_facts_beyond_the_buffer_or_without_a_connection_are_dropped_and_counted() -> None:
    async def main() -> None:
        transport = MemoryServer().connect()
        facts = Facts(Bus(transport, name="master", session="s"), buffer_max=10)
        for number in range(15):
            facts.tell(Rang(number=number))
        assert facts.dropped == 5
        task = asyncio.ensure_future(facts.run())
        await asyncio.sleep(0.1)
        assert facts.told == 10
        transport.sever()
        facts.tell(Rang())
        await asyncio.sleep(0.1)
        assert (facts.told, facts.dropped) == (10, 6)
        transport.mend()
        facts.tell(Rang())
        await facts.stop()
        assert facts.told == 11
        task.cancel()
        await asyncio.wait({task})

    virtual_run(main())
