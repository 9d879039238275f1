"""`Node` before it runs: what is no handler is refused where it is written, not when somebody asks."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from typing import Any

import pytest
from structlog.testing import capture_logs

from antiphon import Node
from antiphon.errors import InvalidSetting
from antiphon.messages.handler import Query
from antiphon.responder import NodeBounds
from fabrics import Buses, MemoryFabric


def nothing() -> list[Any]:
    return []


def two(query: Query, other: object) -> list[Any]:
    return [query, other]


def named(*, query: Query) -> list[Any]:
    return [query]


@pytest.mark.parametrize("handler", [nothing, two, named, "no function"], ids=["nothing", "two", "named", "none"])
def test_a_handler_that_cannot_be_called_with_a_query_is_refused(handler: Any) -> None:
    node = Node("blog")
    with pytest.raises(InvalidSetting, match="called with a Query alone"):
        node.search(handler)
    assert node.card().capabilities == ()


@pytest.mark.parametrize(
    "handler",
    [lambda query: [query], functools.partial(two, other=1), dict, print],
    ids=["lambda", "partial", "class", "builtin"],
)
def test_whatever_takes_a_query_is_a_handler(handler: Any) -> None:
    node = Node("blog")
    assert node.search(handler) is handler
    assert node.card().capabilities == ("search",)


def test_a_node_does_not_load_what_it_never_uses() -> None:
    script = "import sys; from antiphon import Hit, Node; Node('blog').card(); print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    ours = {
        "antiphon.bus.server",
        "antiphon.messages.identities",
        "antiphon.messages.saga_desk",
        "antiphon.decide.login",
    }
    assert set(loaded) & ({"rich", "cryptography", "jwt", "Stemmer", "anyio", "duckdb", "cyclopts"} | ours) == set()


def test_a_client_loads_no_rich_either() -> None:
    script = "import sys; import antiphon.client; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


async def test_a_node_that_cannot_join_says_so_once() -> None:
    buses = Buses(MemoryFabric())
    node = Node("blog", bounds=NodeBounds(join_retry_ms=1))
    node.search(lambda _query: [])
    try:
        with capture_logs() as logs:
            await node.start(bus=await buses.open("blog"))
            told = [log["log_level"] for log in logs if log["event"] == "node.not_joined"]
            async with asyncio.timeout(10):
                while len(told) < 4:  # a log has no event
                    await asyncio.sleep(0.002)
                    told = [log["log_level"] for log in logs if log["event"] == "node.not_joined"]
        assert told.count("info") == 1, "the others are for whoever debugs"
    finally:
        await node.stop()
        await buses.close()
