"""Small servers for tests of the transport alone: a callout that admits anybody with any rights, and slow wires."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from antiphon.bus.endpoint import Endpoint
from antiphon.bus.protocol import Login
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.identity.keypair import KeyPair, Role

SYSTEM = "sys-password"


class Given:
    """A login that the test changes; it counts how often it was asked for."""

    def __init__(self, login: Login) -> None:
        self.login_now = login
        self.asked = 0

    async def login(self) -> Login:
        self.asked += 1
        return self.login_now

    def refused(self) -> None:
        """The test says what is shown."""


class Tokens:
    """A login whose token is a new one at every connection."""

    def __init__(self, pair: KeyPair, lives_s: float = 3_600) -> None:
        self.pair = pair
        self.lives_s = lives_s
        self.shown: list[str] = []

    async def login(self) -> Login:
        self.shown.append(f"token-{len(self.shown)}")
        expires_ms = round((asyncio.get_running_loop().time() + self.lives_s) * 1_000)
        return Login(nkey_seed=self.pair.seed(), token=self.shown[-1], expires_ms=expires_ms)

    def refused(self) -> None:
        """The next one is another anyway."""


def _part(data: dict[str, Any] | bytes) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _jwt(issuer: KeyPair, claims: dict[str, Any]) -> str:
    claims = {"iss": issuer.public, "iat": int(time.time()), "jti": str(time.time_ns()), **claims}
    text = _part({"typ": "JWT", "alg": "ed25519-nkey"}) + "." + _part(claims)
    return text + "." + _part(issuer.sign(text.encode()))


class Lock:
    """A server whose users are admitted by a callout; the test says for how long and with which rights.

    Attributes:
        lives_s: how long a login is good.
        tokens: what was shown, in order.
        refuses: whether nobody is admitted just now.
        grants: the rights, as in a user JWT.
    """

    def __init__(self, issuer: KeyPair) -> None:
        self.issuer = issuer
        self.lives_s = 3_600.0
        self.tokens: list[str] = []
        self.refuses = False
        self.grants: dict[str, Any] = {"pub": {}, "sub": {}}
        self.url = ""
        self.admitted = asyncio.Event()

    async def judge(self, message: Msg) -> None:
        """Answer one authorization request."""
        middle = message.data.split(b".")[1]
        request = json.loads(base64.urlsafe_b64decode(middle + b"=" * (-len(middle) % 4)))["nats"]
        options = request["connect_opts"]
        self.tokens.append(options.get("auth_token", ""))
        assert options["sig"], "the key signs the nonce"
        nats_part: dict[str, Any] = {"type": "authorization_response", "version": 2}
        if self.refuses:
            nats_part["error"] = "not today"
        else:
            rights = {**self.grants, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
            user = {"sub": request["user_nkey"], "aud": "APP", "name": options["nkey"], "nats": rights}
            nats_part["jwt"] = _jwt(self.issuer, {**user, "exp": int(time.time() + self.lives_s)})
        answer = {"sub": request["user_nkey"], "aud": request["server_id"]["id"], "nats": nats_part}
        await message.respond(_jwt(self.issuer, answer).encode())
        self.admitted.set()


async def silent(_error: Exception) -> None:
    """What nats-py says when a test's server ends."""


@asynccontextmanager
async def lock(data: Path) -> AsyncIterator[Lock]:
    """A server with a callout, and a responder for it."""
    issuer, responder = KeyPair.make(Role.ACCOUNT), KeyPair.make(Role.USER)
    accounts = f"""
        accounts {{
          SYS: {{ users: [ {{ user: sys, password: "{SYSTEM}" }} ] }}
          AUTH: {{ users: [ {{ nkey: {responder.public} }} ] }}
          APP: {{ jetstream: enabled, users: [ {{ user: free, password: free }} ] }}
        }}
        system_account: SYS
        authorization {{ timeout: 2
          auth_callout {{ issuer: {issuer.public}, account: AUTH, auth_users: [ {responder.public}, sys, free ] }} }}
    """
    async with await EmbeddedServer.start(data, Options(more=accounts)) as server:
        opened = Lock(issuer)
        opened.url = server.url
        client = await nats.connect(server.url, nkeys_seed_str=responder.seed(), error_cb=silent)
        await client.subscribe("$SYS.REQ.USER.AUTH", cb=opened.judge)
        await client.flush()
        try:
            yield opened
        finally:
            await client.close()


@asynccontextmanager
async def system_client(url: str) -> AsyncIterator[Client]:
    """A connection of the system account."""
    client = await nats.connect(url, user="sys", password=SYSTEM, error_cb=silent)
    try:
        yield client
    finally:
        await client.close()


async def connections(system: Client, name: str) -> list[dict[str, Any]]:
    """What the server says of the connections with this name: `cid`, `server` and more."""
    reply = await system.request("$SYS.REQ.SERVER.PING.CONNZ", b'{"auth": true}', timeout=5)
    said = json.loads(reply.data)
    server = said["server"]["id"]
    found = cast("list[dict[str, Any]]", said["data"]["connections"])
    return [{**one, "server": server} for one in found if one.get("name") == name]


async def none_left(system: Client, name: str) -> None:
    """Return when the server has noticed that the last connection with this name has ended."""
    async with asyncio.timeout(5):
        while await connections(system, name):
            pass


async def kick(system: Client, name: str) -> int:
    """End all connections with this name; return how many they were."""
    found = await connections(system, name)
    for one in found:
        subject = f"$SYS.REQ.SERVER.{one['server']}.KICK"
        await system.request(subject, json.dumps({"cid": one["cid"]}).encode(), timeout=5)
    return len(found)


def at(url: str, **fields: Any) -> Endpoint:
    return Endpoint(url, **fields)


class Wire:
    """A wire to a server on which every piece takes some time, each connection and direction by itself."""

    def __init__(self, seed: int, longest_s: float) -> None:
        self.url = ""
        self._dice = random.Random(seed)
        self._longest_s = longest_s
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self, to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect somebody with the server."""
        host, _, port = to.removeprefix("nats://").rpartition(":")
        back, onward = await asyncio.open_connection(host, int(port))
        for source, sink in ((reader, onward), (back, writer)):
            task = asyncio.get_running_loop().create_task(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(4_096):
                await asyncio.sleep(self._dice.random() * self._longest_s)
                sink.write(data)
                await sink.drain()
        sink.close()

    async def closed(self) -> None:
        """Return when nobody is connected any more."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


@asynccontextmanager
async def wire(to: str, seed: int, longest_s: float) -> AsyncIterator[Wire]:
    """A wire that ends with the test; its connections must have ended before."""
    opened = Wire(seed, longest_s)
    listener = await asyncio.start_server(partial(opened.carry, to), "127.0.0.1", 0)
    opened.url = f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield opened
    finally:
        listener.close()
        await opened.closed()
