"""A recorder on a server that lets everybody in: it shows a badge, and answers those alone whose badges allow it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from test_badges import PREFIX, Open, opened

from antiphon.bus.bus import Bus
from antiphon.bus.codec import encode
from antiphon.bus.connect import connect as connect_plainly
from antiphon.bus.endpoint import parse
from antiphon.bus.home import prepare
from antiphon.errors import NotAuthenticated
from antiphon.identity.badge import BADGE
from antiphon.messages.base import Kind
from antiphon.messages.identities import IdentityOrder
from antiphon.messages.records import RecorderReported
from antiphon.messages.stats import StatsAnswer, StatsForget, StatsQuery
from antiphon.recording import RecorderRole
from antiphon.settings import Settings
from fabrics import until

QUERY = StatsQuery(statements=("SELECT query FROM requests",))


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Open]:
    monkeypatch.setenv("ANTIPHON_DATA", str(tmp_path / "nobody"))
    async with opened(tmp_path) as one:
        yield one


@asynccontextmanager
async def recording(place: Open, folder: Path) -> AsyncIterator[RecorderRole]:
    """A recorder that has the fabric's keys, as `antiphon run recorder --keys` makes one."""
    prepare(folder)
    settings = Settings(record_snapshot_ms=50, query_fresh_ms=1)
    bus = await connect_plainly(f"master-recorder-{secrets.token_hex(4)}", endpoint=parse(place.server.url))
    role = RecorderRole(bus, settings, folder, vault=place.vault)
    await role.start()
    running = asyncio.ensure_future(role.run())
    try:
        yield role
    finally:
        role.supervisor.stop()
        await running


async def asks(place: Open, name: str, badge: str | None, message: Any = QUERY) -> bytes:
    """Ask the record under a name, with a badge that need not be its own."""
    bus: Bus = await place.stranger(name)
    subject = type(message).route.template.subject(prefix=PREFIX, caller=name)
    return await bus.ask_bytes(subject, encode(message), headers={BADGE: badge} if badge else {}, budget_ms=20_000)


async def test_who_may_ask_is_answered_and_nobody_else(place: Open, tmp_path: Path) -> None:
    await place.node()
    client, web, ana = await place.client(), await place.party("shop"), await place.party("ana", Kind.ANALYST)
    async with recording(place, tmp_path / "stats") as role:
        assert (await client.search("whale")).complete
        recorded = role.recording
        await until(lambda: recorded.rows > 0 and (tmp_path / "stats" / "antiphon.duckdb").exists())

        async def found() -> bool:
            answer = StatsAnswer.model_validate_json(await asks(place, "ana", ana.badge))
            return [list(row) for row in answer.tables[0].rows or ()] == [["whale"]]

        async with asyncio.timeout(20):
            while not await found():  # noqa: ASYNC110 - a snapshot sends this test no event
                await asyncio.sleep(0.05)
        assert (await place.operator.ask(QUERY, budget_ms=20_000)).recorder == role.bus.name
        place.audited.clear()
        for name, badge in (("ana", None), ("ana", web.badge), ("shop", web.badge), ("root", ana.badge)):
            with pytest.raises(NotAuthenticated):
                await asks(place, name, badge)
        for name, badge in (("ana", None), ("ana", ana.badge)):
            with pytest.raises(NotAuthenticated):
                await asks(place, name, badge, StatsForget(who="web"))
        await until(lambda: [one.why for one in place.audited if one.what == "refused"].count("missing") == 2)
        await place.operator.ask(IdentityOrder(name="ana", order="suspend"))
        await until(lambda: any(one.what == "suspended" for one in place.audited))
        with pytest.raises(NotAuthenticated):
            await asks(place, "ana", ana.badge)


async def test_what_a_recorder_tells_is_believed_and_what_another_tells_in_its_name_is_not(
    place: Open, tmp_path: Path
) -> None:
    heard: list[str] = []

    def hear(fact: RecorderReported, keys: dict[str, str]) -> None:
        heard.append(f"{keys['writer']} {fact.state}")

    await place.role.bus.hear(RecorderReported, hear)
    async with recording(place, tmp_path / "stats") as role:
        await until(lambda: f"{role.bus.name} recording" in heard)
        name = role.bus.name
    await until(lambda: f"{name} stopped" in heard)
    heard.clear()
    stranger = await place.stranger(name)
    fact = RecorderReported(at_ms=1, state="stopped", reason="", lag=0, lag_ms=0, rows=0, dead=0, gaps=0)
    subject = RecorderReported.route.template.subject(prefix=PREFIX, writer=name)
    await stranger.transport.publish(subject, encode(fact))
    await place.refused("missing", name)
    assert heard == []
