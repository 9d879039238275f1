"""The laws of journals, on the memory server and on a real nats-server alike."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

import pytest

from antiphon.bus.assets import jobs_of
from antiphon.bus.bus import Bus
from antiphon.bus.memory_journal import MemoryLog
from antiphon.bus.protocol import Journal, JournalStream, Stored
from antiphon.errors import AntiphonError, NotConnected, Oversize
from fabrics import Buses, until


def kept(bus: Bus) -> JournalStream:
    name = f"{bus.prefix}-kept-{secrets.token_hex(4)}"
    return replace(jobs_of(bus.prefix), name=name, subjects=(f"{bus.prefix}.v1.job.>",), is_masters=False)


async def settled(journal: Journal, count: int, *patterns: str) -> list[Stored]:
    """What is stored, once so many subjects are: a publish returns before the stream has it."""
    async with asyncio.timeout(10):
        while len(found := await journal.last(*patterns)) != count:  # noqa: ASYNC110 - a stream sends no event
            await asyncio.sleep(0.005)
        return found


async def test_of_each_subject_the_last_message_is_read_oldest_first(buses: Buses) -> None:
    bus = await buses.open("master")
    journal = await bus.transport.journal(kept(bus))
    of = f"{bus.prefix}.v1.job"
    for subject, text in [("a.m", b"1"), ("a.i.blog", b"2"), ("b.m", b"3"), ("a.m", b"4"), ("a.i.shop", b"5")]:
        assert await journal.append(f"{of}.{subject}", text)
    found = await journal.last(f"{of}.a.>")
    assert [(one.subject.removeprefix(of), one.data) for one in found] == [
        (".a.i.blog", b"2"),
        (".a.m", b"4"),
        (".a.i.shop", b"5"),
    ]
    assert [one.sequence for one in found] == sorted(one.sequence for one in found)
    assert [one.data for one in await journal.last(f"{of}.a.*", f"{of}.b.*")] == [b"3", b"4"]
    assert await journal.last(f"{of}.c.>") == []


async def test_a_plain_publish_is_kept_and_heard(buses: Buses) -> None:
    bus, node = await buses.open("master"), await buses.open("blog")
    journal = await bus.transport.journal(kept(bus))
    heard: list[bytes] = []

    async def hear(delivery: object) -> None:
        heard.append(delivery.data)  # type: ignore[attr-defined]

    subject = f"{bus.prefix}.v1.job.a.i.blog"
    await bus.transport.subscribe(subject, hear)
    await bus.transport.flush()
    await node.transport.publish(subject, b"done")
    await node.transport.publish(f"{bus.prefix}.v1.other", b"not kept")
    assert [one.data for one in await settled(journal, 1, f"{bus.prefix}.v1.>")] == [b"done"]
    await until(lambda: heard == [b"done"])


@pytest.mark.parametrize("no_ack", [False, True])
async def test_a_stream_acknowledges_wherever_a_writer_aims_it_unless_it_acknowledges_nothing(
    buses: Buses, no_ack: bool
) -> None:
    """So whoever may write to a stream could have the server write where he himself may not."""
    bus, node = await buses.open("master"), await buses.open("blog")
    stream = replace(kept(bus), no_ack=no_ack, message_bytes_max=100)
    journal = await bus.transport.journal(stream)
    acks: list[bytes] = []

    async def hear(delivery: object) -> None:
        acks.append(delivery.data)  # type: ignore[attr-defined]

    target = f"{bus.prefix}.v1.order"
    await bus.transport.subscribe(f"{target}.>", hear)
    await bus.transport.flush()
    subject = f"{bus.prefix}.v1.job.a.i.blog"
    await node.transport.publish(subject, b"done", reply=f"{target}.one")
    await node.transport.publish(subject, b"x" * 200, reply=f"{target}.two")
    await settled(journal, 1, f"{bus.prefix}.v1.>")
    if not no_ack:
        await until(lambda: any(b'"seq":1' in ack for ack in acks))
    await node.transport.publish(f"{target}.last", b"last")
    await until(lambda: b"last" in acks)
    assert [ack for ack in acks if ack != b"last"] == [] or not no_ack


async def test_of_many_who_append_over_the_same_exactly_one_wins(buses: Buses) -> None:
    bus = await buses.open("master")
    stream = kept(bus)
    journals = [await bus.transport.journal(stream) for _ in range(2)]
    over = f"{bus.prefix}.v1.job.a.>"

    async def append(number: int) -> int | None:
        return await journals[number % 2].append(f"{bus.prefix}.v1.job.a.m{number}", b"x", over=over)

    written = [one for one in await asyncio.gather(*(append(number) for number in range(8))) if one is not None]
    assert len(written) == 1
    assert await journals[0].append(f"{bus.prefix}.v1.job.a.m9", b"y", over=over, last=written[0] + 7) is None
    assert await journals[0].append(f"{bus.prefix}.v1.job.a.m9", b"y", over=over, last=written[0]) is not None
    assert await journals[0].append(f"{bus.prefix}.v1.job.b.m", b"z", over=f"{bus.prefix}.v1.job.b.>") is not None


async def test_headers_that_a_writer_chose_name_nobody_else(buses: Buses) -> None:
    """The server's own headers say whose a message is; a stored one may carry the same names."""
    bus, node = await buses.open("master"), await buses.open("evil")
    journal = await bus.transport.journal(kept(bus))
    own = f"{bus.prefix}.v1.job.a.i.evil"
    forged = {"Nats-Subject": f"{bus.prefix}.v1.job.a.i.victim", "Nats-Sequence": "1", "Status": "204"}
    await node.transport.publish(own, b"forged", headers=forged)
    await node.transport.publish(f"{bus.prefix}.v1.job.a.i.last", b"honest")
    found = await settled(journal, 2, f"{bus.prefix}.v1.job.a.>")
    assert [one.subject for one in found] == [own, f"{bus.prefix}.v1.job.a.i.last"]
    assert found[0].sequence < found[1].sequence


async def test_a_stream_that_is_full_gives_up_its_oldest(buses: Buses) -> None:
    bus = await buses.open("master")
    journal = await bus.transport.journal(replace(kept(bus), bytes_max=20_000, message_bytes_max=8_000))
    for number in range(8):
        assert await journal.append(f"{bus.prefix}.v1.job.a.m{number}", b"x" * 6_000) is not None
    found = [one.subject.rpartition(".")[2] for one in await journal.last(f"{bus.prefix}.v1.job.a.>")]
    assert 1 <= len(found) < 8
    assert found == [f"m{number}" for number in range(8)][-len(found) :]
    with pytest.raises(AntiphonError):
        await journal.append(f"{bus.prefix}.v1.job.a.m9", b"x" * 9_000)


async def test_more_subjects_than_the_server_reads_at_once_are_refused(buses: Buses) -> None:
    bus = await buses.open("master")
    journal = await bus.transport.journal(kept(bus))
    await asyncio.gather(*(journal.append(f"{bus.prefix}.v1.job.a.m{number}", b"x") for number in range(1_025)))
    with pytest.raises(Oversize):
        await journal.last(f"{bus.prefix}.v1.job.a.>")
    assert len(await journal.last(f"{bus.prefix}.v1.job.a.m1")) == 1


async def test_while_the_server_is_away_nothing_hangs_and_afterwards_all_is_there(losable: Buses) -> None:
    bus = await losable.open("master")
    journal = await bus.transport.journal(kept(bus))
    of = f"{bus.prefix}.v1.job.a"
    assert await journal.append(f"{of}.m", b"before") is not None
    await losable.fabric.lose()
    with pytest.raises(NotConnected):
        await journal.append(f"{of}.n", b"meanwhile")
    with pytest.raises(NotConnected):
        await journal.last(f"{of}.>")
    await losable.fabric.bring_back()
    assert [one.data for one in await settled(journal, 1, f"{of}.>")] == [b"before"]
    assert await journal.append(f"{of}.n", b"after") is not None


async def test_a_reader_gets_everything_in_order_from_behind_its_position(buses: Buses) -> None:
    bus = await buses.open("master")
    stream = replace(kept(bus), per_subject_max=-1)
    reader = await bus.transport.reader(stream.name)
    assert await reader.extent() is None
    journal = await bus.transport.journal(stream)
    extent = await reader.extent()
    assert extent is not None
    assert (extent.first, extent.last) in ((0, 0), (1, 0))
    assert await reader.read(0, messages_max=5, bytes_max=10**6) == []
    texts = [f"{number}".encode() * 100 for number in range(12)]
    for text in texts:
        await journal.append(f"{bus.prefix}.v1.job.a.m", text)
    found = [one for after in (0, 5, 10) for one in await reader.read(after, messages_max=5, bytes_max=10**6)]
    assert [one.data for one in found] == texts
    assert [one.sequence for one in found] == list(range(1, 13))
    assert all(one.at_ms > 0 for one in found)
    assert await reader.read(12, messages_max=5, bytes_max=10**6) == []
    assert 1 <= len(await reader.read(0, messages_max=100, bytes_max=150)) < len(texts)
    again = await reader.extent()
    assert again is not None
    assert (again.created_us, again.first, again.last) == (extent.created_us, 1, 12)


async def test_a_reader_begins_behind_what_is_gone(buses: Buses) -> None:
    bus = await buses.open("master")
    stream = replace(kept(bus), per_subject_max=-1, bytes_max=20_000, message_bytes_max=8_000)
    journal = await bus.transport.journal(stream)
    for number in range(8):
        await journal.append(f"{bus.prefix}.v1.job.a.m{number}", b"x" * 6_000)
    reader = await bus.transport.reader(stream.name)
    extent = await reader.extent()
    assert extent is not None
    assert extent.first > 1
    found = await reader.read(0, messages_max=100, bytes_max=10**6)
    assert (found[0].sequence, found[-1].sequence) == (extent.first, 8)


def test_a_memory_log_forgets_what_it_dropped() -> None:
    log = MemoryLog(JournalStream("x", ("x.>",), "", keep_ms=1, bytes_max=10, message_bytes_max=8, per_subject_max=2))
    for subject, data in [("x.a", b"1234"), ("x.a", b"5"), ("x.b", b"6"), ("x.a", b"7"), ("x.c", b"12345678")]:
        log.store(subject, data)
    assert [(one.subject, one.data) for one in log.last("x.>")] == [("x.b", b"6"), ("x.a", b"7"), ("x.c", b"12345678")]
    log.store("x.d", b"123456789")
    assert log.sequence == 5
