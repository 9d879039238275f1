"""`TestFleet`: one seed gives one run, and each fault does what it says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from antiphon import Hit, SearchAnswer
from antiphon.errors import HandlerFailed, NoResponders, NotConnected, OutOfBudget, UnknownNode
from antiphon.messages.facts import InstanceChanged, SearchFinished
from antiphon.testing import TestFleet, VirtualLoop, found, virtual_run

Story = Callable[[TestFleet], Awaitable[None]]
OPEN = {"breaker_failures_max": 10**6, "breaker_rate_calls_min": 10**6, "hedge_permille": 0}
"""Neither breakers nor hedges, where something else is tried."""


def lines(answer: SearchAnswer) -> dict[str, tuple[str, str | None]]:
    return {line.node: (line.outcome.value, line.code) for line in answer.nodes}


def told(story: Story, seed: int = 1, **settings: Any) -> None:
    """Run a story with a master and two nodes, in virtual time."""

    async def main() -> None:
        async with TestFleet(seed, **settings) as fleet:
            await fleet.master()
            await fleet.node("blog", found("whale songs"))
            await fleet.node("shop", found("whale watch"))
            await story(fleet)

    virtual_run(main())


def facts_of(seed: int) -> list[bytes]:
    """The facts of a stormy run, as bytes."""
    heard: list[bytes] = []

    async def main() -> None:
        async with TestFleet(seed, heartbeat_ms=500, breaker_wait_ms=1_000) as fleet:
            searches, changes = await fleet.heard(SearchFinished), await fleet.heard(InstanceChanged)
            for name in ("master", "master-2"):
                await fleet.master(name)
            for name in ("blog", "shop"):
                for instance in ("i1", "i2"):
                    await fleet.node(name, found(f"{name} whales"), instance=instance)
            fleet.faults.delay(ms=lambda dice: dice.expovariate(1 / 30))
            fleet.faults.drop("blog.i1", share=0.3)
            fleet.faults.duplicate("shop", share=0.3)
            fleet.faults.garble("shop.i2", share=0.3, subject="_I.>")
            for _ in range(40):
                asked = (fleet.search("whales", deadline_ms=2_000) for _ in range(3))
                await asyncio.gather(*asked, return_exceptions=True)
            await fleet.crash("blog.i2")
            await fleet.sleep_ms(3_000)
            heard.extend(fact.model_dump_json().encode() for fact in (*searches, *changes))

    virtual_run(main())
    return heard


def test_one_seed_is_one_run_to_the_byte() -> None:
    once, again, other = facts_of(7), facts_of(7), facts_of(8)
    assert len(once) > 100
    assert once == again
    assert once != other


def test_one_seed_is_one_run_in_every_process() -> None:
    program = "import hashlib, test_fleet; print(hashlib.sha256(b''.join(test_fleet.facts_of(7))).hexdigest())"

    def run(hash_seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parent,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()[-1]

    assert run("1") == run("2")


def test_a_delay_is_added_to_what_a_party_sends_and_order_is_kept() -> None:
    async def story(fleet: TestFleet) -> None:
        with fleet.faults.delay("blog", ms=200) as fault:
            answer = await fleet.search("whales")
            assert (answer.complete, answer.took_us) == (True, 200_000)
            assert fault.struck == 1
        assert (await fleet.search("whales")).took_us == 0
        arrived: list[tuple[int, int]] = []

        async def hear(delivery: Any) -> None:
            arrived.append((int(delivery.data), fleet.now_ms() - began_ms))

        client = await fleet.client()
        await (await fleet.bus("ear")).transport.subscribe("ear", hear)
        late = iter((30, 10, 50, 0))
        fleet.faults.delay("web", ms=lambda _dice: next(late), to="ear")
        began_ms = fleet.now_ms()
        for at in range(4):
            await client.bus.transport.publish("ear", str(at).encode())
        await fleet.sleep_ms(100)
        assert arrived == [(0, 30), (1, 30), (2, 50), (3, 50)], "what is behind a late message waits for it"

    told(story, **OPEN)


def test_a_drop_loses_its_share_and_nobody_is_told() -> None:
    async def story(fleet: TestFleet) -> None:
        with fleet.faults.drop("master", to="shop") as fault:
            answer = await fleet.search("whales", deadline_ms=300)
            assert lines(answer) == {"blog": ("answered", None), "shop": ("timed_out", "out_of_budget")}
            assert fault.struck >= 1
        with fleet.faults.drop("shop", share=0.25, subject="_I.master.>") as fault:
            answers = [await fleet.search("whales", deadline_ms=100) for _ in range(400)]
        lost = sum(not answer.complete for answer in answers)
        assert lost == fault.struck
        assert 70 < lost < 130

    told(story, **OPEN)


def test_a_message_that_arrives_twice_counts_once() -> None:
    async def story(fleet: TestFleet) -> None:
        with fleet.faults.duplicate() as fault:
            answers = [await fleet.search("whales") for _ in range(20)]
        assert all(answer.complete and answer.total == 2 for answer in answers)
        assert fault.struck > 100
        assert (await fleet.client()).bus.counters.strays > 0

    told(story, **OPEN)


def test_garbage_is_an_error_of_its_node_and_the_answer_says_so() -> None:
    async def story(fleet: TestFleet) -> None:
        codes: Counter[str | None] = Counter()
        with fleet.faults.garble("shop", subject="_I.>"):
            for _ in range(200):
                answer = await fleet.search("whales", deadline_ms=2_000)
                assert [hit.node for hit in answer.hits] == ["blog"]
                assert lines(answer)["shop"][0] in {"failed", "empty"}
                codes[lines(answer)["shop"][1]] += 1
        assert codes["invalid_reply"] + codes["malformed"] > 100, codes
        assert (await fleet.search("whales")).complete

    told(story, **OPEN)


def test_a_partition_silences_two_parties_for_each_other_only() -> None:
    async def story(fleet: TestFleet) -> None:
        with fleet.faults.partition("shop", "master"):
            answer = await fleet.search("whales", deadline_ms=300)
            assert lines(answer)["shop"] == ("timed_out", "out_of_budget")
            await fleet.sleep_ms(5_000)
            assert lines(await fleet.search("whales"))["shop"] == ("skipped_open", "down")
            assert fleet.masters["master"].bus.transport.is_connected
        await fleet.sleep_ms(1_100)
        assert (await fleet.search("whales")).complete
        with fleet.faults.partition("web"), pytest.raises(OutOfBudget):
            await fleet.search("whales", deadline_ms=300)

    told(story, **OPEN)


def test_a_frozen_party_answers_late_what_it_was_asked() -> None:
    async def story(fleet: TestFleet) -> None:
        master = fleet.masters["master"].bus
        with fleet.faults.freeze("shop"):
            answer = await fleet.search("whales", deadline_ms=300)
            assert lines(answer)["shop"] == ("timed_out", "out_of_budget")
            assert master.counters.late == 0
        await fleet.sleep_ms(10)
        assert master.counters.late == 1
        assert (await fleet.search("whales")).complete

    told(story, **OPEN)


def test_who_is_disconnected_knows_it_and_comes_back() -> None:
    async def story(fleet: TestFleet) -> None:
        with fleet.faults.disconnect("blog"):
            assert lines(await fleet.search("whales"))["blog"] == ("failed", "no_responders")
        with fleet.faults.disconnect(), pytest.raises(NotConnected):
            await fleet.search("whales")
        assert (await fleet.search("whales")).complete

    told(story, **OPEN)


def test_silence_that_a_master_could_not_hear_is_nobodys() -> None:
    async def story(fleet: TestFleet) -> None:
        changes = await fleet.heard(InstanceChanged)
        with fleet.faults.disconnect():
            await fleet.sleep_ms(60_000)
        assert (await fleet.search("whales")).complete
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._now_ns += 60 * 10**9  # the machine slept
        await fleet.sleep_ms(1)
        assert (await fleet.search("whales")).complete
        await fleet.sleep_ms(10_000)
        assert changes == [], "nobody was called down"

    told(story, **OPEN)


def test_a_crash_is_found_out_and_a_restart_comes_back() -> None:
    async def story(fleet: TestFleet) -> None:
        changes = await fleet.heard(InstanceChanged)
        await fleet.crash("blog")
        assert lines(await fleet.search("whales"))["blog"] == ("failed", "no_responders")
        await fleet.sleep_ms(5_000)
        assert lines(await fleet.search("whales"))["blog"] == ("skipped_open", "down")
        assert [(one.node, one.change) for one in changes] == [("blog", "down")], "it did not leave"
        await fleet.restart("blog")
        assert (await fleet.search("whales")).complete
        await fleet.stop("blog")
        assert [one.change for one in changes][-1] == "left"
        assert set(lines(await fleet.search("whales"))) == {"shop"}
        await fleet.restart("blog")
        await fleet.restart("master")
        assert (await fleet.search("whales")).complete
        await fleet.crash("master")
        with pytest.raises(NoResponders):
            await fleet.search("whales")
        with pytest.raises(UnknownNode):
            await fleet.crash("nobody")

    told(story, **OPEN)


def test_a_crash_cuts_off_what_it_did() -> None:
    done: list[str] = []

    async def slow(_query: Any) -> list[Hit]:
        done.append("began")
        await asyncio.sleep(1)
        done.append("ended")
        return []

    async def story(fleet: TestFleet) -> None:
        await fleet.node("slow", slow)
        asked = asyncio.ensure_future(fleet.search("whales", deadline_ms=900))  # too short to be asked again
        await fleet.sleep_ms(500)
        await fleet.crash("slow")
        assert lines(await asked)["slow"] == ("timed_out", "out_of_budget")
        await fleet.sleep_ms(3_000)
        assert done == ["began"]

    told(story, **OPEN)


def test_a_handler_may_be_a_plain_function_and_a_bug_in_it_is_told() -> None:
    def plain(_query: Any) -> list[dict[str, str]]:
        return [{"id": "1", "title": "whale"}]

    def broken(_query: Any) -> list[Hit]:
        raise LookupError

    async def story(fleet: TestFleet) -> None:
        await fleet.node("plain", plain)
        await fleet.node("broken", broken)
        assert lines(await fleet.search("whales")) == {
            "blog": ("answered", None),
            "broken": ("failed", HandlerFailed.code),
            "plain": ("answered", None),
            "shop": ("answered", None),
        }

    told(story, **OPEN)
