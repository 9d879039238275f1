"""A client that hears nothing asks again: a frozen master costs few questions their deadline, and does no harm."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from antiphon import Client
from antiphon.decide.asking import AskingBounds
from antiphon.errors import OutOfBudget
from antiphon.messages.facts import SearchFinished
from antiphon.testing import TestFleet, found, virtual_run

NEVER = AskingBounds(share_permille=0)


async def asked(client: Client, fleet: TestFleet, questions: int, **how: Any) -> tuple[int, list[int]]:
    """Ask one after the other; return how many nobody answered, and how long each took."""
    lost, took_ms = 0, list[int]()
    for _ in range(questions):
        began_ms = fleet.now_ms()
        try:
            answer = await client.search("whales", **how)
        except OutOfBudget:
            lost += 1
        else:
            assert answer.complete
        took_ms.append(fleet.now_ms() - began_ms)
    return lost, took_ms


async def two_masters(fleet: TestFleet) -> Client:
    await fleet.master()
    await fleet.master("master-two")
    await fleet.node("blog", found("whale songs"))
    return await fleet.client()


@pytest.mark.parametrize("bounds", [AskingBounds(), NEVER], ids=["asking again", "asking once"])
def test_a_frozen_master_costs_few_questions_their_deadline(bounds: AskingBounds) -> None:
    async def story() -> tuple[int, list[int]]:
        async with TestFleet(seed=3) as fleet:
            client = Client(bus=(await two_masters(fleet)).bus, asking=bounds)
            assert (await asked(client, fleet, 100))[0] == 0
            with fleet.faults.freeze("master-two"):
                lost, took_ms = await asked(client, fleet, 200)
            await fleet.sleep_ms(5_000)
            assert (await asked(client, fleet, 20))[0] == 0
            return lost, took_ms

    lost, took_ms = virtual_run(story())
    if bounds is NEVER:
        assert lost > 70, "nearly half of the questions are the frozen master's"
    else:
        assert lost < 20
        late = sorted(took_ms)[180]
        assert late <= 4 * bounds.silence_ms_min + 50, "nine of ten are answered within four silences"


def test_who_is_frozen_is_told_off_and_the_answer_is_the_questions_own() -> None:
    async def story() -> None:
        async with TestFleet(seed=1) as fleet:
            bounds = AskingBounds(asks_max=12, burst=100, first=100)
            client = Client(bus=(await two_masters(fleet)).bus, asking=bounds)
            worked: list[str] = []

            async def slow(query: Any) -> list[Any]:
                worked.append(query.request)
                await asyncio.sleep(0.05)
                return []

            await fleet.node("slow", slow)
            await asked(client, fleet, 50)
            facts = await fleet.heard(SearchFinished)
            worked.clear()
            with fleet.faults.freeze("master-two"):
                for at in range(20):
                    answer = await client.search("whales", request_id=f"q{at}")
                    assert (answer.request, answer.master, answer.complete) == (f"q{at}", "master", True)
            assert any("-" in one for one in worked), "some were asked again"
            assert len(worked) == len({one.partition("-")[0] for one in worked}) == 20, "it works once on each"
            await fleet.sleep_ms(5_000)  # the frozen one thaws, and reads what was asked of it and that nobody waits
            done = [fact.request for fact in facts if fact.complete]
            assert sorted(done) == sorted(worked[:20]), "each question is told as answered once"
            assert client.bus.counters.strays == 0

    virtual_run(story())


def test_an_ask_in_vain_is_told_off_and_does_no_harm() -> None:
    async def story() -> None:
        async with TestFleet(seed=5) as fleet:
            await fleet.master()
            cut_off: list[str] = []

            async def slow(query: Any) -> list[Any]:
                try:
                    await asyncio.sleep(2)
                except asyncio.CancelledError:
                    cut_off.append(query.request)
                    raise
                return [{"id": "1", "title": "whale"}]

            await fleet.node("slow", slow)
            facts = await fleet.heard(SearchFinished)
            client = await fleet.client()
            answer = await client.search("whales", request_id="mine")
            assert (answer.request, answer.complete, answer.total) == ("mine", True, 1)
            await fleet.sleep_ms(100)
            assert cut_off == ["mine-2"], "the winner is not cancelled, the other is, also in one and the same master"
            assert {(fact.request, fact.code) for fact in facts} == {("mine", None), ("mine-2", "abandoned")}
            for _ in range(30):
                assert (await client.search("whales")).complete
            assert len(facts) - 32 <= 1, "and it asks again within its budget only"

    virtual_run(story())


def test_a_second_ask_counts_for_the_callers_rate_and_its_refusal_is_no_failure() -> None:
    async def story() -> None:
        async with TestFleet(seed=5, caller_per_minute=1) as fleet:
            await fleet.master()

            async def slow(_query: Any) -> list[Any]:
                await asyncio.sleep(2)
                return []

            await fleet.node("slow", slow)
            facts = await fleet.heard(SearchFinished)
            client = await fleet.client()
            answer = await client.search("whales", request_id="mine")
            assert answer.complete
            await fleet.sleep_ms(10)
            assert {(fact.request, fact.code) for fact in facts} == {("mine", None), ("mine-2", "overloaded")}

    virtual_run(story())


def test_who_leaves_tells_off_whoever_was_asked() -> None:
    async def story() -> None:
        async with TestFleet(seed=5) as fleet:
            await fleet.master()
            cut_off: list[str] = []

            async def stuck(query: Any) -> list[Any]:
                try:
                    await asyncio.sleep(3_600)
                except asyncio.CancelledError:
                    cut_off.append(query.request)
                    raise
                return []

            await fleet.node("stuck", stuck)
            client = await fleet.client()
            asking = asyncio.ensure_future(client.search("whales", request_id="mine", deadline_ms=8_000))
            await fleet.sleep_ms(3_000)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await fleet.sleep_ms(10)
            assert sorted(cut_off) == ["mine", "mine-2"]

    virtual_run(story())


def test_when_no_master_answers_the_deadline_is_kept() -> None:
    async def story() -> None:
        async with TestFleet(seed=2) as fleet:
            client = await two_masters(fleet)
            await asked(client, fleet, 50)
            with fleet.faults.freeze("master"), fleet.faults.freeze("master-two"):
                lost, took_ms = await asked(client, fleet, 10, deadline_ms=2_000)
            assert lost == 10
            assert max(took_ms) <= 2_001

    virtual_run(story())
