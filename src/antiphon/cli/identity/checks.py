"""The checks of `antiphon doctor`: each returns what it found and, where it is not well, what to do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import Endpoint
from antiphon.bus.version import VERSION_MIN
from antiphon.cli.exits import HINTS
from antiphon.cli.identity.asking import when
from antiphon.cli.listing import since
from antiphon.cli.options import Connection
from antiphon.client import Client
from antiphon.errors import AntiphonError, NoResponders, NotAllowed, NotAuthenticated
from antiphon.identity import credential as credentials
from antiphon.identity.connect import credential_of, session_of
from antiphon.identity.desk import Desk
from antiphon.identity.session import Fixed
from antiphon.identity.vault import FOLDER, Vault
from antiphon.messages.identities import IdentityDetail
from antiphon.messages.registry import NodeList
from antiphon.messages.tokens import WhoIs
from antiphon.subjects import VERSION

FREE_BYTES_MIN = 1024**3
FREE_BYTES_LEAST = 128 * 1024**2
SKEW_MS_MAX = 5_000
"""Tokens say when they were made; a master takes one from a minute ahead (`MARGIN_MS`)."""
SKEW_MS_LEAST = 60_000
SOON_MS = 3 * 86_400_000
SETTLE_MS = 100
"""How long a refusal may take after the flush that it has come before."""
GREETING_MS_MAX = 3_000
PORT = 4222
OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        check: what was looked at.
        status: how it is.
        says: what was found.
        advice: what to do about it; empty where nothing is to be done.
    """

    check: str
    status: Literal["ok", "warning", "failed"]
    says: str
    advice: str = ""


# -- this machine


def files(home: Path) -> Iterator[Finding]:
    """Yield whether the secrets of the data directory are this user's alone."""
    if not home.is_dir():
        yield Finding("files", "ok", f"there is no data directory {home} yet: nothing is kept here")
        return
    wrong = [(path, mode) for path, mode in _modes(home) if mode & OPEN_TO_OTHERS and os.name == "posix"]
    for path, mode in wrong:
        wanted = "700" if path.is_dir() else "600"
        text = f"others may use {path} (mode {stat.S_IMODE(mode):o})"
        yield Finding("files", "failed", text, f"chmod {wanted} {path}, and replace what is in it if somebody looked")
    if not wrong:
        yield Finding("files", "ok", f"keys and credentials in {home} are for this user alone")


def _modes(home: Path) -> Iterator[tuple[Path, int]]:
    """Yield what only this user may read, and its mode; the directory itself may be looked at."""
    folders = [home / FOLDER, home / credentials.FOLDER]
    for path in [home / credentials.OPERATOR, *folders, *(one for folder in folders for one in folder.glob("*"))]:
        if path.exists():
            yield path, path.stat().st_mode


def disk(home: Path) -> Finding:
    """Return whether there is room for streams and logs."""
    there = next(path for path in (home, *home.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1024**3:.1f} GiB free at {there}"
    if free < FREE_BYTES_LEAST:
        return Finding("disk", "failed", text, "make room: the server stops taking messages into its streams")
    if free < FREE_BYTES_MIN:
        return Finding("disk", "warning", text, "make room soon: streams and logs grow")
    return Finding("disk", "ok", text)


def not_connected(error: AntiphonError) -> Finding:
    """Return that there is no connection, and what to do."""
    advice = HINTS.get(error.code, "")
    if isinstance(error, NotAuthenticated):
        advice = (
            "an operator sees why in the masters' log (identity.refused), and by `antiphon identity show NAME` whether "
            "you are suspended; where you have no credential, `antiphon login` gets one"
        )
    return Finding("connection", "failed", f"{error.code}: {error.text}", advice)


# -- the fabric


async def connected(client: Client, at: Connection) -> list[Finding]:
    """Return what is found over a connection."""
    bus = client.bus
    began = time.perf_counter()
    await bus.transport.flush()
    rtt_ms = (time.perf_counter() - began) * 1_000
    endpoint = at.endpoint()
    server = await greeting(endpoint)
    text = f"connected to {endpoint.url} as {bus.name}; there and back in {rtt_ms:.1f} ms"
    found = [Finding("connection", "ok", text)]
    try:
        who: WhoIs | None = await Desk(bus).whoami()
    except NoResponders:
        who = None
    except AntiphonError as error:
        return [*found, Finding("master", "failed", f"{error.code}: {error.text}", HINTS.get(error.code, ""))]
    found += [await mode(bus, who), *versions(server, who)]
    if who is not None:
        found.append(clock(who))
    found.append(await permissions(bus))
    found.append(await jetstream(server, at, has_master=who is not None))
    found.append(await credential(client, at))
    return found


async def mode(bus: Bus, who: WhoIs | None) -> Finding:
    """Return who checks who somebody is."""
    if who is None:
        try:
            await bus.ask(NodeList())
        except AntiphonError as error:
            return Finding("mode", "failed", f"no master answers: {error.code}", HINTS["no_responders"])
        text = "open: nobody checks anybody; whoever reaches the server may do everything"
        return Finding("mode", "warning", text, "give the masters the fabric's keys: `antiphon nats-config` says how")
    if who.mode == "callout":
        return Finding("mode", "ok", "callout: the server lets in and lets do only what each identity may")
    text = f"{who.mode}: the server lets everybody in; those who answer check tokens"
    return Finding("mode", "warning", text, "put the callout at the server's door: `antiphon nats-config` says how")


def versions(server: Mapping[str, Any], who: WhoIs | None) -> Iterator[Finding]:
    """Yield the versions of the server, of this Antiphon, and of the master that answered."""
    least = ".".join(map(str, VERSION_MIN))
    yield Finding("server", "ok", f"nats-server {server.get('version', 'unknown')}; {least} or newer is needed")
    own = installed("antiphon")
    text = f"antiphon {own} here with nats-py {installed('nats-py')}"
    if who is None or not who.version:
        yield Finding("versions", "ok", text)
    elif who.version == own:
        yield Finding("versions", "ok", f"{text}; {who.master} has the same")
    else:
        advice = "bring both to one version when it suits you: minor versions understand each other"
        yield Finding("versions", "warning", f"{text}; {who.master} has {who.version}", advice)


def clock(who: WhoIs) -> Finding:
    """Return how far this machine's wall clock is from the master's."""
    skew_ms = time.time_ns() // 1_000_000 - who.wall_ms
    text = f"{abs(skew_ms) / 1_000:.1f} s {'ahead of' if skew_ms > 0 else 'behind'} {who.master}"
    if abs(skew_ms) > SKEW_MS_LEAST:
        return Finding("clock", "failed", text, "set the clocks (NTP): tokens from a minute ahead are refused")
    if abs(skew_ms) > SKEW_MS_MAX:
        return Finding("clock", "warning", text, "set the clocks (NTP) before it is a minute")
    return Finding("clock", "ok", text)


async def permissions(bus: Bus) -> Finding:
    """Return whether the server refuses what this identity may not publish, by trying it."""
    transport: Any = bus.transport
    before = getattr(transport, "violations", 0)
    subject = f"{bus.prefix}.{VERSION}.doctor.probe.{bus.name}"
    await bus.transport.publish(subject, b"")
    await bus.transport.flush()
    if bus.transport.asks_for_login:
        await asyncio.sleep(SETTLE_MS / 1_000)  # nats-py tells it in a task of its own
    if getattr(transport, "violations", 0) > before:
        return Finding("permissions", "ok", f"the server refused {subject!r}, which nobody may publish")
    text = f"the server took {subject!r}, which nobody may publish"
    if bus.transport.asks_for_login:
        advice = "use a credential of Antiphon and no user of the server's own: `antiphon login`"
        return Finding("permissions", "failed", text, advice)
    return Finding("permissions", "warning", text, "the server has no permissions: see `mode`")


async def jetstream(server: Mapping[str, Any], at: Connection, *, has_master: bool) -> Finding:
    """Return whether there is JetStream, which keeps registry, identities and breakers; how full, where keys are."""
    if not has_master and not server.get("jetstream"):
        return Finding("jetstream", "failed", "the server has none", "start it with JetStream (-js) and a store_dir")
    used = await _used(at)
    if used is not None:
        return Finding("jetstream", "ok", used)
    if has_master:
        return Finding("jetstream", "ok", "on; a master answers, which needs its buckets")
    return Finding("jetstream", "ok", "on")


async def _used(at: Connection) -> str | None:
    """Return how much JetStream holds, as a master would be told; None where the fabric's keys are not here."""
    try:
        vault = Vault.load(at.home() / FOLDER)
        bus = await connect("master-doctor", endpoint=at.endpoint(), logins=Fixed(vault.master))
    except AntiphonError:
        return None
    try:
        info = json.loads(await bus.ask_bytes("$JS.API.INFO", b"", budget_ms=2_000))
    except AntiphonError:
        return None
    finally:
        await bus.close()
    return f"on; {info.get('streams', 0)} streams hold {info.get('storage', 0) / 1024**2:.1f} MiB"


async def credential(client: Client, at: Connection) -> Finding:
    """Return what this process logged in with, and when that ends."""
    session = session_of(client.bus)
    if session is None:
        return Finding("credential", "warning", "none was needed", "see `mode`")
    source, file = credential_of(client.name, at.endpoint(), at.where()["data"], at.credentials)
    text = f"{file or source}; the access token is good for {since(session.expires_in_ms)} and renewed by itself"
    try:
        detail = await Desk(client.bus).get(client.name)
    except (NotAllowed, AntiphonError):  # only operators may look; the others trust that it renews
        return Finding("credential", "ok", text)
    ends_ms = _ends_ms(detail, file)
    if ends_ms is None:
        return Finding("credential", "ok", text)
    text = f"{text}; its key ends {when(ends_ms)}"
    if ends_ms - time.time_ns() // 1_000_000 < SOON_MS:
        return Finding("credential", "warning", text, f"make the next one: `antiphon key create {client.name}`")
    return Finding("credential", "ok", text)


def _ends_ms(detail: IdentityDetail, file: Path | None) -> int | None:
    """Return when the API key in a file ends, None for never and for a file without one."""
    found = credentials.find(file) if file is not None else None
    serial = (found.api_key or "").split("_")[1:2] if found is not None else []
    return next((key.expires_ms for key in detail.keys if [key.id] == serial), None)


async def greeting(endpoint: Endpoint) -> dict[str, Any]:
    """Return what a server says of itself to whoever knocks; nothing of one that speaks TLS or websocket first."""
    at = urlsplit(endpoint.urls[0])
    try:
        async with asyncio.timeout(GREETING_MS_MAX / 1_000):
            reader, writer = await asyncio.open_connection(at.hostname, at.port or PORT)
            try:
                line = await reader.readline()
            finally:
                writer.close()
        said: dict[str, Any] = json.loads(line.removeprefix(b"INFO "))
    except (OSError, TimeoutError, ValueError):
        return {}
    return said
