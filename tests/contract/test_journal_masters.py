"""The laws of the journals that sagas stand on, on the memory server and on a real nats-server alike."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from antiphon.bus.assets import outcomes_of, sagas_of, timers_of
from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Journal, JournalStream, Stored
from antiphon.errors import Overloaded
from fabrics import Buses, until


def own(stream: JournalStream) -> JournalStream:
    """The same with a name and subjects that no other test has."""
    token = secrets.token_hex(4)
    return replace(stream, name=f"{stream.name}-{token}", subjects=(f"own{token}.>",))


async def opened(bus: Bus, stream: JournalStream) -> tuple[Journal, str]:
    return await bus.transport.journal(stream), stream.subjects[0].removesuffix(".>")


async def test_of_a_subject_that_is_taken_the_first_message_stays(buses: Buses) -> None:
    bus = await buses.open("master")
    journal, of = await opened(bus, own(outcomes_of(bus.prefix)))
    written = await asyncio.gather(*(journal.append(f"{of}.a", bytes([at])) for at in range(8)))
    assert len([one for one in written if one is not None]) == 1
    [kept] = await journal.last(f"{of}.>")
    assert kept.sequence in written
    assert kept.data == bytes([written.index(kept.sequence)])
    assert await journal.append(f"{of}.b", b"another") is not None


async def test_a_stream_that_refuses_when_full_keeps_what_it_has(buses: Buses) -> None:
    bus = await buses.open("master")
    journal, of = await opened(bus, own(replace(sagas_of(bus.prefix), bytes_max=20_000, message_bytes_max=8_000)))
    assert await journal.fill_permille() == 0
    refused: list[Overloaded] = []
    taken = 0
    while not refused:
        try:
            assert await journal.append(f"{of}.{taken}", b"x" * 6_000) is not None
            taken += 1
        except Overloaded as error:
            refused.append(error)
    assert refused[0].retry_after_ms
    assert 1 <= taken <= 3
    assert 300 * taken <= await journal.fill_permille() <= 1_000
    assert len(await journal.last(f"{of}.>")) == taken
    await journal.purge(f"{of}.0")
    assert await journal.append(f"{of}.again", b"x" * 6_000) is not None


async def test_what_is_stored_has_the_servers_stamp(buses: Buses) -> None:
    bus = await buses.open("master")
    journal, of = await opened(bus, own(sagas_of(bus.prefix)))
    before_ms = await journal.now_ms()
    await journal.append(f"{of}.a", b"x")
    after_ms = await journal.now_ms()
    [kept] = await journal.last(f"{of}.a")
    assert before_ms <= kept.at_ms <= after_ms
    assert abs(after_ms - bus.clock.wall_ms()) < 60_000


async def test_subjects_are_listed_and_purged_by_pattern(buses: Buses) -> None:
    bus = await buses.open("master")
    journal, of = await opened(bus, own(sagas_of(bus.prefix)))
    sequences = [await journal.append(f"{of}.{name}", b"x") for name in ("b.k.end", "a.k.start", "a.k.c", "a.k.end")]
    assert await journal.subjects(f"{of}.*.k.end") == [f"{of}.a.k.end", f"{of}.b.k.end"]
    assert await journal.subjects(f"{of}.nobody.>") == []
    await journal.purge(f"{of}.a.>", before=sequences[-1])
    assert await journal.subjects(f"{of}.>") == [f"{of}.a.k.end", f"{of}.b.k.end"]
    assert await journal.append(f"{of}.a.k.start", b"y", over=f"{of}.a.k.>") is None, "its end still stands for it"


class Taken:
    """A follower that says of each message whether it is done with it."""

    def __init__(self, *, is_done: bool = True) -> None:
        self.found: list[Stored] = []
        self.is_done = is_done

    async def __call__(self, stored: Stored) -> bool:
        self.found.append(stored)
        return self.is_done

    @property
    def subjects(self) -> set[str]:
        return {one.subject for one in self.found}


async def test_of_all_who_follow_one_gets_each_also_what_was_there_before(buses: Buses) -> None:
    one, other = await buses.open("master-1"), await buses.open("master-2")
    stream = own(sagas_of(one.prefix))
    journal, of = await opened(one, stream)
    theirs = await other.transport.journal(stream)
    wanted = {f"{of}.t{at}.fired" for at in range(40)}
    for at in range(20):
        await journal.append(f"{of}.t{at}.fired", b"x")
        await journal.append(f"{of}.t{at}.other", b"x")
    first, second = Taken(), Taken()
    await journal.follow("us", f"{of}.*.fired", first)
    await theirs.follow("us", f"{of}.*.fired", second)
    for at in range(20, 40):
        await journal.append(f"{of}.t{at}.fired", b"x")
    await until(lambda: first.subjects | second.subjects == wanted)
    assert len(first.found) + len(second.found) == len(wanted), "each once"
    assert all(stored.at_ms > 0 and stored.sequence > 0 for stored in first.found)


async def test_a_timer_fires_once_at_its_time_and_the_last_one_set_counts(buses: Buses) -> None:
    bus = await buses.open("master")
    journal, of = await opened(bus, own(timers_of(bus.prefix)))
    taken = Taken()
    await journal.follow("us", f"{of}.*.fired", taken)
    now_ms = await journal.now_ms()
    target = f"{of}.a.fired"
    assert await journal.schedule(f"{of}.a.set", b"early", target=target, at_ms=now_ms + 60_000)
    assert not await journal.schedule(f"{of}.a.set", b"never", target=target, at_ms=now_ms, is_first=True)
    assert await journal.schedule(f"{of}.a.set", b"soon", target=target, at_ms=now_ms + 300)
    assert await journal.schedule(f"{of}.b.set", b"past", target=f"{of}.b.fired", at_ms=now_ms - 5_000)
    await until(lambda: len(taken.found) == 2)
    assert {(one.subject, one.data) for one in taken.found} == {(target, b"soon"), (f"{of}.b.fired", b"past")}
    assert next(one.at_ms for one in taken.found if one.data == b"soon") >= now_ms + 250
    assert await journal.subjects(f"{of}.*.set") == [], "one that has fired is gone"
    assert await journal.schedule(f"{of}.a.set", b"anew", target=target, at_ms=now_ms + 60_000, is_first=True)
    await journal.purge(f"{of}.a.*")
    assert await journal.subjects(f"{of}.a.*") == []


async def test_a_timer_that_has_fired_is_kept_so_long(buses: Buses) -> None:
    bus = await buses.open("master")
    journal, of = await opened(bus, own(timers_of(bus.prefix)))
    now_ms = await journal.now_ms()
    for name, keep_ms in (("a", 1_000), ("b", None)):
        target = f"{of}.{name}.fired"
        assert await journal.schedule(f"{of}.{name}.set", b"x", target=target, at_ms=now_ms, keep_ms=keep_ms)
    async with asyncio.timeout(10):
        for left in ([f"{of}.a.fired", f"{of}.b.fired"], [f"{of}.b.fired"]):
            while await journal.subjects(f"{of}.>") != left:  # noqa: ASYNC110 - it sends no event
                await asyncio.sleep(0.05)


async def test_timers_and_followers_outlive_the_loss_of_the_server(losable: Buses) -> None:
    bus = await losable.open("master")
    journal, of = await opened(bus, own(timers_of(bus.prefix)))
    taken = Taken()
    await journal.follow("us", f"{of}.*.fired", taken)
    at_ms = await journal.now_ms() + 1_500
    assert await journal.schedule(f"{of}.a.set", b"x", target=f"{of}.a.fired", at_ms=at_ms)
    await losable.fabric.lose()
    await losable.fabric.bring_back()
    await until(lambda: taken.subjects == {f"{of}.a.fired"})
