"""The protocol with raw NATS, on a server that enforces the permissions: foreign node, foreign publisher, intruders.

What docs/protocol.md says is all that the foreign ones do, and what decide/grants derives is all that anybody may.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import pytest
from nats.aio.client import Client as RawClient
from nats.aio.msg import Msg

from antiphon import Client, Hit, Node
from antiphon.app import MasterRole
from antiphon.bus.connect import connect
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.decide.grants import grants
from antiphon.messages.base import Kind
from antiphon.settings import Settings

PASSWORD = "for-this-test"
WHO = {
    "master": Kind.MASTER,
    "docs": Kind.NODE,
    "wiki": Kind.NODE,
    "web": Kind.PUBLISHER,
    "mallory": Kind.NODE,
}
PATIENCE_S = 10


def authorization() -> str:
    """The table of grants as static users: what the auth callout hands out one by one."""
    users: list[dict[str, object]] = []
    for name, kind in WHO.items():
        found = grants(kind, name).permissions()
        rules: dict[str, object] = {"publish": found["pub"], "subscribe": found["sub"]}
        if "resp" in found:
            rules["allow_responses"] = {"max": found["resp"]["max"], "expires": f"{found['resp']['ttl'] // 10**9}s"}
        users.append({"user": name, "password": PASSWORD, "permissions": rules})
    return f"authorization: {json.dumps({'users': users})}"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[str]:
    """The host and port of a server with permissions and a running master."""
    async with await EmbeddedServer.start(tmp_path / "data", Options(more=authorization())) as server:
        host = server.url.removeprefix("nats://")
        role = MasterRole(await connect("master", nats=door("master", host)), Settings())
        await role.start()
        running = asyncio.create_task(role.run())
        yield host
        role.supervisor.stop()
        await running


def door(name: str, place: str) -> str:
    return f"nats://{name}:{PASSWORD}@{place}"


class Raw:
    """A NATS client of some other make, and what its server has refused."""

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.refused: asyncio.Queue[str] = asyncio.Queue()
        self._place = place
        self.client = RawClient()

    async def __aenter__(self) -> Self:
        async def refuse(error: Exception) -> None:
            self.refused.put_nowait(str(error))

        await self.client.connect(door(self.name, self._place), inbox_prefix=f"_I.{self.name}.s1", error_cb=refuse)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.close()

    async def request(self, subject: str, **body: object) -> Msg:
        return await self.client.request(subject, json.dumps(body).encode(), timeout=PATIENCE_S)

    async def next_refusal(self) -> str:
        return await asyncio.wait_for(self.refused.get(), PATIENCE_S)


async def test_a_foreign_node_and_a_foreign_publisher(place: str) -> None:
    async with Raw("wiki", place) as wiki, Raw("web", place) as web:
        asked: list[dict[str, object]] = []

        async def answer(question: Msg) -> None:
            assert question.reply.startswith("_I.master.")
            asked.append(json.loads(question.data))
            hits = [{"id": "17", "doc": {"title": "Hello antiphon", "colour": "green"}}]
            await question.respond(json.dumps({"request": asked[-1]["request"], "hits": hits}).encode())

        await wiki.client.subscribe("antiphon.v1.node.wiki.w1.search", cb=answer)
        joined = await wiki.request("antiphon.v1.registry.join.w1.wiki", instance="w1", capabilities=["search"])
        assert json.loads(joined.data)["heartbeat_ms"] > 0
        await wiki.client.publish("antiphon.v1.beat.node.w1.wiki", b'{"load": {"in_flight": 0, "latency_us": 0}}')

        reply = await web.request("antiphon.v1.search.ask.web", query="hello", limit=5)
        found = json.loads(reply.data)
        assert [hit["id"] for hit in found["hits"]] == ["17"]
        assert found["complete"]
        assert found["coverage"]["answered"] == found["coverage"]["expected"] == 1
        assert asked[0]["caller"] == "web"
        assert asked[0]["terms"]

        wrong = await web.request("antiphon.v1.search.ask.web", query="")
        assert wrong.data == b""
        assert (wrong.headers or {})["Nats-Service-Error-Code"] == "malformed"

        await wiki.request("antiphon.v1.registry.leave.w1.wiki", instance="w1")
        gone = json.loads((await web.request("antiphon.v1.search.ask.web", query="hello")).data)
        assert gone["coverage"]["expected"] == 0
        assert wiki.refused.empty()
        assert web.refused.empty()


async def test_a_foreign_node_does_steps_and_a_foreign_publisher_submits_sagas(place: str) -> None:
    async with Raw("wiki", place) as wiki, Raw("web", place) as web, Raw("mallory", place) as mallory:
        asked: list[dict[str, object]] = []

        async def run(order: Msg) -> None:
            job = json.loads(order.data)
            assert (job["caller"], job["params"]) == ("web", {"page": "hello"})
            end = {"state": "succeeded", "result": {"revision": 1}}
            await order.respond(json.dumps({"job": job["job"], "end": end}).encode())

        async def step(order: Msg) -> None:
            """The first step is told later, as one that takes long; what undoes it at once; the second one fails."""
            asked.append(said := json.loads(order.data))
            if said["ticket"] != "1f":
                how = {"outcome": "succeeded"} if said["ticket"] == "1b" else {"outcome": "failed", "code": "declined"}
                await order.respond(json.dumps({"end": how | {"retryable": False}}).encode())
                return
            await order.respond(b"{}")
            told = {"saga": said["saga"], "ticket": "1f", "instance": "w1"}
            forged = await mallory.request("antiphon.v1.saga.outcome.mallory", **told, end={"outcome": "failed"})
            assert (forged.headers or {})["Nats-Service-Error-Code"] == "wrong_state", "it is not mallory's to tell"
            end = {"outcome": "succeeded", "result": {"revision": 2}}
            assert (await wiki.request("antiphon.v1.saga.outcome.wiki", **told, end=end)).data == b"{}"

        await wiki.client.subscribe("antiphon.v1.node.wiki.w1.run", cb=run)
        await wiki.client.subscribe("antiphon.v1.node.wiki.w1.step", cb=step)
        publish = {"name": "publish", "effect": "write", "params": {"type": "object"}}
        actions = [publish, {"name": "revert", "effect": "write"}]
        await wiki.request("antiphon.v1.registry.join.w1.wiki", instance="w1", actions=actions)
        await wiki.client.publish("antiphon.v1.beat.node.w1.wiki", b'{"load": {"in_flight": 0, "latency_us": 0}}')

        done = await web.request(
            "antiphon.v1.action.run.web", action="publish", params={"page": "hello"}, everywhere=True, wait_ms=3_000
        )
        assert done.data, done.headers
        assert json.loads(done.data)["lines"][0]["result"] == {"revision": 1}

        steps = [
            {"name": "put", "node": "wiki", "action": "publish", "compensate": {"action": "revert"}},
            {"name": "tell", "node": "wiki", "action": "publish", "params": {"at": "{{steps.put.result.revision}}"}},
        ]
        reply = await web.request(
            "antiphon.v1.saga.submit.web", id="page-1", definition={"name": "page", "steps": steps}, wait=True
        )
        view = json.loads(reply.data)
        assert (view["state"], view["cause"]["step"]) == ("compensated", "tell")
        assert [(one["key"], one["params"]) for one in asked] == [
            ("page-1/1f", {}),
            ("page-1/2f", {"at": 2}),
            ("page-1/1b", {}),
        ]
        assert asked[2]["undo"] == {"params": {}, "result": {"revision": 2}, "is_known": True}
        await mallory.client.publish("antiphon.v1.saga.submit.mallory", b"{}")
        assert "permissions violation" in (await mallory.next_refusal()).lower(), "no node begins a saga"
        assert wiki.refused.empty()
        assert web.refused.empty()


async def test_our_own_node_and_client_need_no_more_than_their_grants(place: str) -> None:
    node = Node("docs")

    @node.search
    def search(query: object) -> list[Hit]:
        return [Hit(id="1", title="Hello", text="hello from the docs")]

    await node.start(door("docs", place))
    await asyncio.wait_for(node.joined(), PATIENCE_S)
    async with Client(door("web", place), name="web") as client:
        answer = await client.search("hello")
        assert [(hit.node, hit.id) for hit in answer.hits] == [("docs", "1")]
        assert answer.complete
    await node.stop()


@pytest.mark.parametrize(
    "subject",
    [
        "antiphon.v1.search.ask.web",
        "antiphon.v1.node.docs.d1.search",
        "antiphon.v1.registry.join.d1.docs",
        "antiphon.v1.beat.node.d1.docs",
        "antiphon.v1.fact.search.finished.mallory",
        "_I.web.s1.x",
        "$KV.antiphon-registry.docs.d1",
        "$JS.API.STREAM.DELETE.KV_antiphon-registry",
    ],
)
async def test_an_intruder_may_not_publish(place: str, subject: str) -> None:
    async with Raw("mallory", place) as mallory:
        await mallory.client.publish(subject, b"{}")
        assert "permissions violation for publish" in (await mallory.next_refusal()).lower()


@pytest.mark.parametrize(
    "subject", [">", "_I.>", "_I.web.>", "antiphon.v1.node.docs.*.search", "antiphon.v1.search.ask.*"]
)
async def test_an_intruder_may_not_listen(place: str, subject: str) -> None:
    async with Raw("mallory", place) as mallory:
        await mallory.client.subscribe(subject)
        assert "permissions violation for subscription" in (await mallory.next_refusal()).lower()


async def test_an_answer_cannot_be_laundered_onto_a_lane(place: str) -> None:
    """Whoever asks may name any reply subject; a request whose reply is not in its caller's inbox gets no answer."""
    async with Raw("mallory", place) as mallory, Raw("docs", place) as docs:
        lane = "antiphon.v1.node.docs.d1.search"
        heard = await docs.client.subscribe(lane)
        await docs.client.flush()
        await mallory.client.publish("antiphon.v1.registry.list.mallory", b"{}", reply=lane)
        # The same queue answers in order: once this one is answered, the other has been dropped.
        listing = await mallory.request("antiphon.v1.registry.list.mallory")
        assert json.loads(listing.data)["nodes"] == []
        await docs.client.flush()
        assert heard.pending_msgs == 0
