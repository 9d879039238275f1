"""What one would write without Antiphon: the floor, the plain script, and a master by hand.

- `Floor` asks all nodes on one shared inbox and decodes with orjson: as little as can be done with nats-py.
- `script` is what most people write: `asyncio.gather` of `nc.request`, `json.loads`, sort by score.
- `serve` is a master by hand: the floor's gather, rank fusion, dedupe by hash, one reply.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import nats
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

dump_json = staticmethod(lambda value: json.dumps(value).encode()).__func__
SUBJECT = "bench.master"
TIMEOUT_S = 5


class Floor:
    """A gather on one shared inbox, nothing else."""

    def __init__(self, client: Client, nodes: int) -> None:
        self._client = client
        self._subjects = [f"bench.orjson.{at}" for at in range(nodes)]
        self._inbox = client.new_inbox()
        self._next = 0
        self._waiting: dict[str, tuple[list[Any], asyncio.Future[None]]] = {}

    async def start(self) -> None:
        """Subscribe the inbox."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._receive)

    async def gather(self, question: bytes) -> list[Any]:
        """Ask all nodes and return their decoded replies."""
        self._next += 1
        token = str(self._next)
        replies: list[Any] = []
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[token] = (replies, future)
        reply = f"{self._inbox}.{token}"
        for subject in self._subjects:
            await self._client.publish(subject, question, reply=reply)
        timer = asyncio.get_running_loop().call_later(TIMEOUT_S, future.cancel)
        await future
        timer.cancel()
        return replies

    async def _receive(self, msg: Msg) -> None:
        token = msg.subject[len(self._inbox) + 1 :]
        replies, future = self._waiting[token]
        replies.append(orjson.loads(msg.data))
        if len(replies) == len(self._subjects):
            del self._waiting[token]
            future.set_result(None)


async def script(client: Client, nodes: int, question: bytes) -> list[dict[str, Any]]:
    """Ask all nodes as most people would, and return their hits by score."""
    replies = await asyncio.gather(
        *(client.request(f"bench.json.{at}", question, timeout=TIMEOUT_S) for at in range(nodes))
    )
    hits = [hit for reply in replies for hit in json.loads(reply.data)]
    hits.sort(key=lambda hit: hit["score"], reverse=True)
    return hits[:10]


def fuse(replies: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Fuse by rank and drop duplicates by title and snippet."""
    scored: dict[int, tuple[float, dict[str, Any]]] = {}
    for hits in replies:
        for rank, hit in enumerate(hits):
            key = hash((hit["title"], hit["snippet"]))
            score = 1 / (60 + rank)
            if key in scored:
                scored[key] = (scored[key][0] + score, hit)
            else:
                scored[key] = (score, hit)
    best = sorted(scored.values(), key=lambda one: one[0], reverse=True)
    return [hit for _, hit in best[:10]]


async def serve(url: str, nodes: int) -> Client:
    """Answer searches as a master by hand, until the connection that is returned is closed."""
    client = await nats.connect(url)
    floor = Floor(client, nodes)
    await floor.start()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(msg: Msg) -> None:
        question = orjson.loads(msg.data)
        replies = await floor.gather(orjson.dumps({"query": question["query"], "limit": 10}))
        await msg.respond(orjson.dumps({"hits": fuse(replies), "answered": len(replies)}))

    async def receive(msg: Msg) -> None:
        task = asyncio.create_task(answer(msg))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await client.subscribe(SUBJECT, queue="hand", cb=receive)
    await client.flush()
    return client
