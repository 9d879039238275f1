"""The composition root: which actors make a role, and how a process runs one or all of them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import structlog

from antiphon import subjects
from antiphon.actors.actions import Actions
from antiphon.actors.breaker import BreakerActor, BreakerHandle
from antiphon.actors.gate import Gate
from antiphon.actors.master import Master
from antiphon.actors.monitor import Monitor
from antiphon.actors.policy import PolicyActor
from antiphon.actors.registry import Registry
from antiphon.actors.sagas import Sagas
from antiphon.actors.search import SearchBounds
from antiphon.actors.violations import ViolationFollower
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import Endpoint as At
from antiphon.bus.endpoint import resolve
from antiphon.bus.home import RECORD, default_data_dir
from antiphon.bus.server import EmbeddedServer, Options
from antiphon.client import user_name
from antiphon.decide import fuse
from antiphon.decide.dispatch import Dispatch
from antiphon.decide.headcount import ROOM_FOR_MASTERS
from antiphon.decide.policy import Access, Verify
from antiphon.decide.registry import RegistryView
from antiphon.decide.traffic import Traffic
from antiphon.errors import InvalidSetting, ServerFailed
from antiphon.identity import credential, server_config
from antiphon.identity.server_config import AccountLimits
from antiphon.identity.session import Fixed
from antiphon.identity.vault import FOLDER, Vault
from antiphon.messages.lane import Load
from antiphon.node import Node
from antiphon.runtime.actor import Actor
from antiphon.runtime.companion import Companion
from antiphon.runtime.discovery import Discovery
from antiphon.runtime.endpoint import Endpoint
from antiphon.runtime.facts import Facts
from antiphon.runtime.keeping import Keeper
from antiphon.runtime.sinks import Sink, SinkSpool
from antiphon.runtime.supervisor import Supervisor
from antiphon.runtime.views import View
from antiphon.settings import Settings

log = structlog.get_logger("antiphon.app")


class MasterRole:
    """The actors of a master, started in this order, stopped in reverse.

    Facts, the gate, the keeper, policy, registry, breaker, search, actions, sagas, monitor.

    Args:
        bus: its connection.
        settings: its limits.
        fallbacks: nodes in this process that answer when no other does.
        sinks: where alerts go besides the log and the bus.
        verify: reads on-behalf-of tokens; default: the gate, and without one they are refused.
        dice: what choices are drawn with; tests give seeded ones.
        gate: who comes in; None where the server lets everybody in, or where other masters decide it.
    """

    def __init__(
        self,
        bus: Bus,
        settings: Settings,
        *,
        fallbacks: Sequence[Node] = (),
        sinks: Sequence[Sink] = (),
        verify: Verify | None = None,
        dice: Random | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.bus = bus
        self.gate = gate
        self.sinks = tuple(sinks)
        self.verify = verify or (gate.verify if gate is not None else None)
        self.dice = dice
        self.settings = settings
        self.fallbacks = tuple(fallbacks)
        self.view: View[RegistryView] = View(RegistryView())
        self.access: View[Access] = View(Access())
        self.supervisor = Supervisor(intensity=settings.intensity())
        self.discovery = Discovery(
            bus,
            name="antiphon-master",
            instance=bus.name,
            version=version("antiphon"),
            description="answers searches and keeps the registry",
            endpoints=self.endpoints,
            metadata={"role": "master"},
        )

    def endpoints(self) -> list[Endpoint]:
        """Return what the role's actors serve, for discovery."""
        actors = [child for child in self.supervisor.children if isinstance(child, Actor)]
        return [endpoint for actor in actors for endpoint in actor.endpoints]

    async def start(self) -> None:
        """Return when the registry's picture is complete and searches are answered."""
        settings, bus = self.settings, self.bus
        fuse.method(settings.fusion)
        keeper = Keeper(bus, settings.keeper()) if settings.tell_facts and settings.keep_facts else None
        facts = Facts(bus, buffer_max=settings.facts_buffer_max, is_on=settings.tell_facts, keeper=keeper)
        bounds = settings.actor()
        search = SearchBounds(
            fusion=settings.fusion,
            hits_min=settings.hits_min,
            depth=settings.depth,
            reserve_ms=settings.reserve_ms,
            fallback_reserve_ms=settings.fallback_reserve_ms,
            answer_bytes_max=settings.answer_bytes_max,
            pages=settings.pages(),
        )
        await self.supervisor.start("facts", lambda: facts)
        if self.gate is not None:
            await self.gate.start(self.supervisor, bus, facts, self.access, limits=settings.identity(), bounds=bounds)
        if keeper is not None:  # behind the gate, which opens the way to where facts are kept
            await self.supervisor.start("keeper", lambda: keeper)
        await self.supervisor.start("policy", lambda: PolicyActor(bus, self.access, facts, bounds=bounds))
        await self.supervisor.start(
            "registry",
            lambda: Registry(bus, self.view, facts, access=self.access, patience=settings.patience(), bounds=bounds),
        )
        handle, traffic = BreakerHandle(), Traffic()
        await self.supervisor.start(
            "breaker",
            lambda: BreakerActor(bus, self.view, facts, handle, policy=settings.breaker(), bounds=bounds),
        )
        await self.supervisor.start(
            "master",
            lambda: Master(
                bus,
                self.view,
                facts,
                handle,
                search=search,
                dispatch=settings.dispatch(),
                retries=settings.retries(),
                door=settings.door(),
                bounds=bounds,
                fallbacks=self.fallbacks,
                access=self.access,
                verify=self.verify,
                traffic=traffic,
                dice=self.dice,
            ),
        )
        await self.supervisor.start(
            "actions",
            lambda: Actions(
                bus,
                self.view,
                facts,
                handle,
                job=settings.job(),
                rate=settings.action_rate(),
                jobs_max=settings.jobs_max,
                dispatch=settings.dispatch(),
                retries=settings.retries(),
                bounds=bounds,
                access=self.access,
                verify=self.verify,
                dice=self.dice,
            ),
        )
        await self.supervisor.start(
            "sagas",
            lambda: Sagas(
                bus,
                self.view,
                facts,
                handle,
                limits=settings.sagas(),
                rate=settings.action_rate(),
                dispatch=settings.dispatch(),
                bounds=bounds,
                access=self.access,
                verify=self.verify,
                dice=self.dice,
            ),
        )
        spools = [SinkSpool(sink) for sink in self.sinks]
        for spool in spools:
            await self._start_sink(spool)
        await self.supervisor.start(
            "monitor",
            lambda: Monitor(
                bus,
                self.view,
                handle,
                traffic=traffic,
                dispatch=self._dispatch,
                judge=self._judge,
                parked=self._parked,
                sinks=spools,
                keeper=keeper,
                health=settings.health(),
                alerts=settings.alerts(),
                blind_ms=settings.heartbeat_ms * settings.misses_max,
                bounds=bounds,
                dice=self.dice,
            ),
        )
        await self.discovery.start()

    async def follow_violations(self, path: Path) -> None:
        """Tell of everybody who does what he may not, as the log of this server says."""
        assert self.gate is not None
        audit = self.gate.audit
        assert audit is not None, "start() comes first"
        await self.supervisor.start("violations", lambda: ViolationFollower(path, audit, self.bus.clock))

    async def _start_sink(self, spool: SinkSpool) -> None:
        await self.supervisor.start(f"sink:{spool.sink.name}", lambda: spool)

    def _dispatch(self) -> Dispatch | None:
        """Return the book of the master that runs now."""
        return next((one.ground.dispatch for one in self.supervisor.children if isinstance(one, Master)), None)

    def _parked(self) -> Mapping[str, str]:
        """Return the sagas that are known to need a person."""
        nothing: Mapping[str, str] = {}
        return next((one.parked for one in self.supervisor.children if isinstance(one, Sagas)), nothing)

    def _judge(self, key: tuple[str, str], misses: int, load: Load | None) -> None:
        """Tell the registry that runs now of a ping."""
        for child in self.supervisor.children:
            if isinstance(child, Registry):
                child.pinged(key, misses, load)

    async def abandon(self) -> None:
        """Stop and close what `start` has begun, where nobody is going to run it."""
        self.supervisor.stop()
        await self.run()

    async def run(self) -> None:
        """Work until stopped; raises the crash of an actor that crashed too often."""
        try:
            await self.supervisor.run()
        finally:
            await self.discovery.stop()
            if self.gate is not None:
                await self.gate.close()
            await self.bus.close()


def master_name() -> str:
    """Return a fresh name for one of several masters."""
    return f"{subjects.MASTER}-{secrets.token_hex(4)}"


async def master(
    settings: Settings,
    *,
    nats: str | None = None,
    context: str | None = None,
    data: Path | None = None,
    name: str | None = None,
    keys: Path | None = None,
    is_open: bool = False,
    started: asyncio.Event | None = None,
) -> None:
    """Run a master on a server that runs already, until SIGINT or SIGTERM.

    With the fabric's keys it is a master of a server that asks the callout, and answers the callout, too; on a server
    that asks nobody it and all others look at badges.

    Args:
        settings: its limits.
        nats: the server's URL.
        context: a NATS context by name.
        data: the data directory.
        name: `master` or `master-...`.
        keys: the fabric's keys folder; default: that of the data directory.
        is_open: run without keys and check nobody.
        started: is set when it serves.

    Raises `InvalidSetting` where there are no keys and nobody has said that it is to be open.
    """
    endpoint = resolve(nats, context=context, data=data)
    keys = keys_folder(keys, data, is_open=is_open)
    vault = None if keys is None else Vault.load(keys)
    role = await master_role(name or master_name(), settings, endpoint, vault)
    await _begin(role, None if keys is None else keys.absolute().parent / credential.OPERATOR)
    if vault is None:
        log.warning("master.open", name=role.bus.name, why="it has no keys: whoever reaches the server may do all")
    log.info("master.serves", name=role.bus.name)
    if started is not None:
        started.set()
    await _until_told(role)


def keys_folder(keys: Path | None, data: Path | None, *, is_open: bool, role: str = "master") -> Path | None:
    """Return the keys that a master or a recorder runs with, None for one that is to be open.

    Raises `InvalidSetting` where neither is so: nobody shall run an open fabric because he has left out an option.
    """
    if is_open:
        if keys is not None:
            raise InvalidSetting(f"--open is for a {role} without keys: leave it out, or --keys and $ANTIPHON_KEYS")
        return None
    folder = keys or (data or default_data_dir()) / FOLDER
    if keys is None and not folder.is_dir():
        raise InvalidSetting(
            f"a {role} needs the fabric's keys, and there are none at {folder}: `antiphon nats-config` makes them, "
            "--keys DIR or $ANTIPHON_KEYS names others; --open does without, and whoever reaches the server may do all"
        )
    return folder


async def _begin(role: MasterRole, operator: Path | None) -> None:
    """Start a role; `operator` is where this user's credential is to lie. What cannot start is closed again."""
    try:
        await role.start()
        if role.gate is not None and operator is not None:
            await role.gate.introduce(operator, user_name())
    except BaseException:
        await role.abandon()
        raise


async def up(settings: Settings, *, data: Path | None = None, started: asyncio.Event | None = None) -> None:
    """Start the embedded server, a master in this process and a recorder in another, until SIGINT or SIGTERM.

    Raises `AlreadyRunning` when the data directory is served, and `ServerFailed` when the server ends by itself.
    """
    async with embedded(data or default_data_dir(), settings) as (server, role):
        if settings.record:
            await role.supervisor.start("recorder", lambda: recorder_beside(server))
        log.info("antiphon.up", url=server.url, data=str(server.data), server=server.note.version)
        if started is not None:
            started.set()
        await _until_told(role, server)


def recorder_beside(server: EmbeddedServer, log_file: Path | None = None) -> Companion:
    """Return the recorder of an embedded server, a process of its own, which logs only what is wrong."""
    words = ["--nats", server.url, "--keys", str(server.data / FOLDER), "--record", str(server.data / RECORD)]
    level = [] if os.environ.get("ANTIPHON_LOG") else ["--log-level", "warning"]
    command = [sys.executable, "-m", "antiphon", "run", "recorder", *words, *level]
    return Companion("recorder", command, os.environ, log_file)


@asynccontextmanager
async def embedded(home: Path, settings: Settings) -> AsyncGenerator[tuple[EmbeddedServer, MasterRole], None]:
    """Start the server of a data directory and a master that lets people in; this machine's user is its operator.

    The role has started and is the caller's to run; the server stops at the end. Secrets are made at the first start.
    """
    vault = Vault.open(home)
    limits = AccountLimits(connections=settings.connections_max + ROOM_FOR_MASTERS)
    options = Options(fsync=settings.fsync, more=server_config.configuration(vault.public, limits))
    async with await EmbeddedServer.start(home, options) as server:
        role = await master_role(subjects.MASTER, settings, resolve(server.url), vault)
        await _begin(role, server.data / credential.OPERATOR)
        await role.follow_violations(server.log)
        yield server, role


async def master_role(
    name: str, settings: Settings, endpoint: At, vault: Vault | None = None, *, sinks: Sequence[Sink] = ()
) -> MasterRole:
    """Return the role of a master on its own connection; with the fabric's secrets it decides who comes in.

    Args:
        name: `master` or `master-...`.
        settings: its limits.
        endpoint: the server.
        vault: the secrets of the fabric; None for a server that lets everybody in.
        sinks: where alerts go besides the log and the bus.
    """
    logins = None if vault is None else Fixed(vault.master)
    bus = await connect(name, endpoint=endpoint, prefix=settings.prefix, bounds=settings.bus(), logins=logins)
    gate = None if vault is None else Gate(vault, endpoint)
    return MasterRole(bus, settings, sinks=sinks, gate=gate)


async def until_told(
    supervisor: Supervisor, running: asyncio.Future[None], served: asyncio.Future[Any] | None = None
) -> None:
    """Let a role run until SIGINT or SIGTERM, its own end or that of `served`; then stop it."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows has no signal handlers on the loop
            loop.add_signal_handler(signum, told.set)
    ends: set[asyncio.Future[Any]] = {running, asyncio.ensure_future(told.wait())}
    _, left = await asyncio.wait(ends | ({served} if served else set()), return_when=asyncio.FIRST_COMPLETED)
    supervisor.stop()
    await running
    for one in left - {running}:
        one.cancel()


async def _until_told(role: MasterRole, server: EmbeddedServer | None = None) -> None:
    served = None if server is None else asyncio.ensure_future(server.exited())
    await until_told(role.supervisor, asyncio.ensure_future(role.run()), served)
    if server is not None and served is not None and served.done() and not served.cancelled():
        raise ServerFailed(f"the nats-server ended: {server.last_words()}")
