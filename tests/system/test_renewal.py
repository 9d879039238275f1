"""Tokens of seconds instead of an hour: whoever works through their ends loses nothing, and whoever was away heals."""

from __future__ import annotations

import asyncio
import json
import operator
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from cli_process import Fabric as Processes
from cli_process import fabric
from cli_process import until as until_it_is

from antiphon import Client, Hit, Node
from antiphon.app import embedded
from antiphon.bus.bus import Bus
from antiphon.bus.nats import NatsTransport
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.identity.server_config import configuration
from antiphon.identity.vault import FOLDER, Vault
from antiphon.settings import Settings
from fabrics import until

ACCESS_MS = 4_000
RENEWALS = 2
MASTERS = ("master-one", "master-two")
TCP = Path("/proc/net/tcp")
NO_LIMITS: dict[str, Any] = {"caller_per_minute": 0, "tokens_per_minute": 0, "tell_facts": False}


def wire(bus: Bus | None) -> NatsTransport:
    assert bus is not None
    return cast("NatsTransport", bus.transport)


async def whales(handled: Counter[str], data: Path, name: str = "blog") -> Node:
    """Return a node that has joined and counts what it is asked."""
    node = Node(name)

    @node.search
    async def search(query: Any) -> list[Hit]:
        handled[query.text] += 1
        await asyncio.sleep(0.02)
        return [Hit(id="1", title=f"{name} whale", text="whales sing")]

    await node.start(data=data)
    await asyncio.wait_for(node.joined(), 10)
    return node


async def test_under_load_nothing_notices_that_tokens_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_ACCESS_MS", str(ACCESS_MS))
    settings = Settings(**NO_LIMITS)
    assert settings.access_ms == ACCESS_MS
    async with embedded(tmp_path, settings) as (_server, role):
        running = asyncio.ensure_future(role.run())
        handled: Counter[str] = Counter()
        node = await whales(handled, tmp_path)
        async with Client(name="web", data=tmp_path) as client:
            ends = (wire(client.bus), wire(node._bus))
            asked = 0

            async def ask() -> None:
                nonlocal asked
                while min(end.renewals for end in ends) < RENEWALS:
                    asked += 1
                    answer = await client.search(f"whale {asked}")
                    assert answer.complete, answer.nodes
                    assert answer.hits

            async with asyncio.timeout(30):
                await asyncio.gather(*(ask() for _ in range(6)))
            assert asked > 100
            assert len(handled) == asked
            assert handled.total() <= asked * 1.04, "what is asked twice is what hedges and impatient clients may"
            for end in ends:
                assert end.losses == 0
                assert end.violations == 0
            for bus in (client.bus, node._bus):
                assert bus is not None
                assert bus.counters.strays == 0
        await node.stop()
        role.supervisor.stop()
        await running


def is_hung_up_on(port: int) -> bool:
    """Whether somebody's connection to a port was ended by the other side, and he has not noticed (`CLOSE_WAIT`)."""
    lines = [line.split() for line in TCP.read_text(encoding="ascii").splitlines()[1:]]
    return any(line[2].endswith(f":{port:04X}") and line[3] == "08" for line in lines)


@pytest.mark.skipif(not TCP.exists(), reason="only Linux says what became of another process's connection")
def test_a_process_that_was_frozen_beyond_its_tokens_life_heals_by_itself(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "whale.md").write_text("# Whales\n\nA whale is no fish.\n")
    with fabric(tmp_path) as made:
        made.environment["ANTIPHON_ACCESS_MS"] = str(ACCESS_MS)
        master = made.up()
        node = made.serve("folder", str(pages), "--name", "pages")
        os.kill(node.pid, signal.SIGSTOP)
        try:
            port = int(made.url().rpartition(":")[2])
            until_it_is(lambda: is_hung_up_on(port))
        finally:
            os.kill(node.pid, signal.SIGCONT)

        def is_back() -> bool:
            return '"bus.reconnected"' in made.log(node)

        until_it_is(is_back)
        until_it_is(lambda: "pages\tactive" in made.run("node", "ls").out)
        found = made.run("search", "whale", "-o", "json")
        assert found.code == 0, found.err
        assert [hit["doc"]["title"] for hit in found.json["hits"]] == ["Whales"]
        told = [json.loads(line) for line in made.log(node).splitlines() if line.startswith("{")]
        events = Counter(one["event"] for one in told)
        assert events["bus.disconnected"] == events["bus.reconnected"] == 1, events
        assert events["bus.not_healed"] <= 2, "what lasts is said once"
        assert master.poll() is None


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Processes]:
    with fabric(tmp_path) as one:
        one.environment |= {"ANTIPHON_ACCESS_MS": str(ACCESS_MS), "ANTIPHON_CALLER_PER_MINUTE": "0"}
        yield one


async def test_another_identity_actor_takes_over_where_one_is_killed(made: Processes) -> None:
    vault = Vault.open(made.data)
    async with await EmbeddedServer.start(made.data, Options(more=configuration(vault.public))):
        masters = [made.start("run", "master", "--name", name, "--keys", str(made.data / FOLDER)) for name in MASTERS]
        await until(lambda: all('"master.serves"' in made.log(one) for one in masters), 30)
        handled: Counter[str] = Counter()
        node = await whales(handled, made.data)
        async with Client(name="web", data=made.data) as client:
            ends = (wire(client.bus), wire(node._bus))
            masters[0].kill()
            masters[0].wait()
            renewed = [end.renewals for end in ends]
            await until(lambda: all(map(operator.gt, renewals(*ends), renewed)), 20)
            answer = await client.search("whale")
            assert answer.complete, answer.nodes
            assert answer.master == MASTERS[1]
            assert [end.losses for end in ends] == [0, 0]
        await node.stop()


def renewals(*ends: NatsTransport) -> list[int]:
    return [end.renewals for end in ends]
