"""No secret is written anywhere but where it is kept: a whole run, and then everything that it wrote is read.

Real processes with all logs on: the server and its master, logins and refusals, a node whose handler raises with a
secret in a local variable, commands. What each secret is, is read from where it may be (`keys/`, `credentials/`,
`operator.json`, the one line of stdout that hands it out); it is looked for in every form in which it could stand.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_process import SCRIPT, Done, Fabric, fabric, until
from nats.aio.client import Client
from nats.aio.msg import Msg

from antiphon.identity.jws import decode64

LOCAL = "local-" + base64.b32encode(os.urandom(15)).decode("ascii")
"""A secret of a node's author, in a local variable of his handler."""
HANDLER = """
    import os
    password = os.environ["AUTHORS_PASSWORD"]
    raise KeyError("no such table")
"""
KEPT = ("keys", "credentials", "operator.json")
TOLD = (
    "created", "granted", "invited", "connected", "refused", "revoked", "suspended", "resumed", "rotated", "kicked",
    "violated",
)  # fmt: skip
"""What has to be a fact."""


def forms(secret: str) -> set[bytes]:
    """Every form in which a secret would give itself away."""
    raw = secret.encode()
    found = {raw, base64.b64encode(raw)[:-3], raw.hex().encode()}
    if secret.startswith(("ak_", "jt_", "rt_")):
        found.add(secret.split("_")[2][:52].encode())  # without its id and its checksum
    if secret.count(".") == 2:  # a JWT is worth something with its signature only
        found = {secret.rpartition(".")[2].encode(), decode64(secret.rpartition(".")[2]).hex().encode()}
    return found


def secrets_of(data: Path) -> dict[str, str]:
    """Every secret that a data directory keeps, by what it is."""
    found = {f"keys/{path.name}": path.read_text("ascii").strip() for path in (data / "keys").iterdir()}
    for path in (data / "operator.json", *(data / "credentials").glob("*.json")):
        said = json.loads(path.read_text("utf-8"))
        found |= {f"{path.name}: {key}": said[key] for key in ("seed", "access", "refresh", "api_key") if said.get(key)}
    return found


def found_in(secrets: dict[str, str], name: str, data: bytes) -> list[str]:
    """Which secrets stand somewhere."""
    return [f"{what} in {name}" for what, secret in secrets.items() if any(form in data for form in forms(secret))]


def leaks(secrets: dict[str, str], written: dict[str, bytes]) -> list[str]:
    return [leak for name, data in written.items() for leak in found_in(secrets, name, data)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def children() -> dict[str, tuple[bytes, bytes]]:
    """The command line and the environment of each process that came of this one."""
    found: dict[str, tuple[bytes, bytes]] = {}
    ours = {os.getpid()}
    for _ in range(4):  # server, master, node and what they started
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) not in ours:
                try:
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent in ours:
                        found[folder.name] = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
                        ours.add(int(folder.name))
                except (OSError, IndexError):  # it has just ended
                    continue
    return found


@asynccontextmanager
async def spying(here: Fabric) -> AsyncIterator[tuple[list[Any], list[bytes]]]:
    """All facts, as parsed JSON, and every header and every error on the wire, as a master sees them."""
    facts: list[Any] = []
    wire: list[bytes] = []
    client = Client()
    seed = (here.data / "keys" / "master.seed").read_text("ascii").strip()

    async def note(message: Msg) -> None:
        wire.append(f"{message.subject} {message.reply} {message.headers}".encode())
        if ".fact." in message.subject:
            wire.append(message.data)
            facts.append(json.loads(message.data))

    await client.connect(here.url(), nkeys_seed_str=seed, allow_reconnect=False)
    await client.subscribe(">", cb=note)
    await client.flush()
    try:
        yield facts, wire
    finally:
        await client.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fabric]:
    with fabric(tmp_path) as made:
        made.environment |= {"ANTIPHON_LOG": "debug", "AUTHORS_PASSWORD": LOCAL}
        yield made


class Run:
    """A run: commands, and what they wrote."""

    def __init__(self, here: Fabric) -> None:
        self.here = here
        self.count = 0
        self.said: dict[str, bytes] = {}
        self.handed_out: dict[str, str] = {}

    async def __call__(
        self, *words: str, name: str | None = None, token: str | None = None, code: int = 0, stdin: str = ""
    ) -> Done:
        given = {"ANTIPHON_NAME": name, "ANTIPHON_TOKEN": token}
        environment = {variable: value for variable, value in given.items() if value is not None}
        done = await asyncio.to_thread(partial(self.here.run, *words, environment=environment, stdin=stdin))
        assert done.code == code, (words, done)
        self.count += 1
        what = f"{self.count}: {' '.join(words)}"
        self.said[what] = done.err.encode()
        secret = done.out.strip()
        if secret.startswith(("ak_", "jt_")):  # shown this once, on stdout, and nowhere else
            self.handed_out[what] = secret
        else:
            self.said[f"{what} >"] = done.out.encode()
        return done

    async def hand_out(self, *words: str) -> str:
        """A credential that a command hands out."""
        return (await self(*words)).out.strip()


def with_a_wrong_letter(token: str) -> str:
    return token[:30] + ("a" if token[30] != "a" else "b") + token[31:]


async def a_day(here: Fabric, run: Run, facts: list[Any]) -> dict[str, tuple[bytes, bytes]]:
    """All that happens to credentials, good and bad; returns the processes of noon."""
    await run("identity", "create", "web", "--kind", "publisher")
    key, gone, join = await asyncio.gather(
        run.hand_out("key", "create", "web", "--label", "a test"),
        run.hand_out("key", "create", "web"),
        run.hand_out("node", "invite", "shop"),
    )
    await run("key", "revoke", gone.split("_")[1])
    here.environment["ANTIPHON_TOKEN"] = join
    program = (sys.executable, "-c", SCRIPT.format(body=HANDLER.strip()))
    shop = here.start("shop", here.url(), command=program)
    del here.environment["ANTIPHON_TOKEN"]
    await asyncio.gather(
        run("whoami", name="web", token=key),
        run("whoami", name="web", token=with_a_wrong_letter(key), code=2),  # not even a credential
        run("whoami", name="web", token=gone, code=8),
        asyncio.to_thread(until, lambda: '"node.joined"' in here.log(shop)),
    )
    await run("search", "whales", code=4)
    until(lambda: "handler_failed" in here.log(shop))
    noon = children()
    await run("identity", "suspend", "web")
    await run("whoami", name="web", token=key, code=8)
    await run("identity", "resume", "web")
    await asyncio.gather(run("key", "rotate"), run("identity", "revoke", "shop"), probe(here))
    await run("login", name="web", stdin=key)
    await run("search", "whales", name="web", code=4)
    async with asyncio.timeout(10):
        while not {*TOLD} <= {fact.get("what") for fact in facts}:  # noqa: ASYNC110 - of another process, as `until`
            await asyncio.sleep(0.02)
    return noon


async def test_no_secret_is_written_anywhere_but_where_it_is_kept(here: Fabric) -> None:
    given = here.environment["ANTIPHON_TOKEN"] = f"ak_{'a' * 16}_{'b' * 52}00000000"
    await asyncio.to_thread(here.up)
    del here.environment["ANTIPHON_TOKEN"]
    run = Run(here)
    async with spying(here) as (facts, wire):
        processes = await a_day(here, run, facts)
    secrets = secrets_of(here.data) | run.handed_out | {"a handler's local variable": LOCAL, "a variable": given}
    assert len(secrets) >= 15
    for process in reversed(here.running):
        process.terminate()
        await asyncio.to_thread(process.wait, 20)

    everything = files(here.data)
    kept = {name: data for name, data in everything.items() if Path(name).relative_to(here.data).parts[0] in KEPT}
    others = {name: data for name, data in everything.items() if name not in kept}
    logs = {name: data for name, data in files(here.data.parent).items() if Path(name).suffix in (".err", ".out")}
    lines = {f"command line of {pid}": line for pid, (line, _) in processes.items()}
    servers = {f"environment of {pid}": found for pid, (line, found) in processes.items() if b"nats-server" in line}
    assert leaks(secrets, others) == []
    assert leaks(secrets, logs) == []
    assert leaks(secrets, run.said) == []
    assert leaks(secrets, {f"wire {at}": data for at, data in enumerate(wire)}) == []
    assert leaks(secrets, lines) == []
    assert leaks({what: one for what, one in secrets.items() if one != LOCAL}, servers) == []

    # The search is not blind: all that was written was there to be read, and each secret is found where it is kept.
    assert servers
    assert any(name.endswith("server.log") for name in others)
    assert any("jetstream" in name and data for name, data in others.items())
    assert any(b"identity.refused" in data for data in logs.values())
    assert any(b"KeyError" in data for data in logs.values())
    assert len(wire) > 50
    known = {leak.partition(" in ")[0] for leak in leaks(secrets, kept)}
    assert {what for what in secrets if what.startswith("keys/") or ".json: " in what} <= known


async def probe(here: Fabric) -> None:
    """Do what this machine's operator may not."""
    program = (
        "import asyncio, sys\n"
        "from antiphon import Client\n"
        "async def main():\n"
        "    async with Client(name='probe') as client:\n"
        "        await client.bus.transport.publish('$JS.API.STREAM.LIST', b'')\n"
        "        await client.bus.transport.flush()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program]
    done = await asyncio.to_thread(partial(subprocess.run, command, env=here.environment, check=False, timeout=40))
    assert done.returncode == 0
