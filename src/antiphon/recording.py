"""The recorder's role: one process that reads what happened and writes it down, beside the masters.

It is a process of its own even under `antiphon up`: reading a fact costs CPU, DuckDB wants memory, and neither may
delay a search. To the fabric it is a master that serves no searches: it reads what only masters may read.
"""

from __future__ import annotations

import asyncio
import secrets
from importlib.metadata import version
from pathlib import Path

import structlog

from antiphon import subjects
from antiphon.actors.recorder import Recorder
from antiphon.actors.recording import Recording
from antiphon.app import until_told
from antiphon.bus.assets import facts_of
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import resolve
from antiphon.bus.home import RECORD, Lock, default_data_dir, prepare
from antiphon.bus.nats import NatsTransport
from antiphon.decide.record_rows import Hide, as_is
from antiphon.errors import AlreadyRunning
from antiphon.identity.connect import local_operator
from antiphon.identity.session import Fixed
from antiphon.identity.vault import FOLDER, Vault
from antiphon.runtime.discovery import Discovery
from antiphon.runtime.supervisor import Supervisor
from antiphon.runtime.threads import Threads
from antiphon.settings import Settings
from antiphon.stats.privacy import hidden
from antiphon.stats.sandbox import Sandbox
from antiphon.stats.store import Store
from antiphon.stats.upkeep import Upkeep

log = structlog.get_logger("antiphon.record")

THREAD_END_S = 10.0
"""How long the end waits for DuckDB's thread: a process that ends under it is aborted."""


class RecorderRole:
    """The children of a recorder: the recording, then the actor that answers for it.

    Args:
        bus: its connection, as a master.
        settings: its limits.
        folder: the record's directory, locked by whoever makes this.
        hide: what is stored of a query.
    """

    def __init__(self, bus: Bus, settings: Settings, folder: Path, hide: Hide = as_is) -> None:
        self.bus = bus
        self.settings = settings
        self.folder = folder
        self.supervisor = Supervisor(intensity=settings.intensity())
        self.store = Store(folder, bus.prefix, hide, settings.store())
        self.threads = Threads(1, "record")
        self.sandbox = Sandbox(folder, settings.sandbox())
        self.discovery = Discovery(
            bus,
            name="antiphon-recorder",
            instance=bus.name,
            version=version("antiphon"),
            description="writes down what happened",
            endpoints=list,
            metadata={"role": "recorder"},
        )

    async def start(self) -> None:
        """Return when it records."""
        settings, bus = self.settings, self.bus
        await bus.transport.journal(facts_of(bus.prefix))  # a master may not have come yet
        recording = Recording(
            bus, self.store, self.threads, Upkeep(self.store, settings.upkeep()), settings.recording()
        )
        await self.supervisor.start("recording", lambda: recording)
        await self.supervisor.start("recorder", lambda: Recorder(bus, recording, self.sandbox, bounds=settings.actor()))
        await self.discovery.start()

    async def run(self) -> None:
        """Record until stopped."""
        try:
            await self.supervisor.run()
        finally:
            self.sandbox.close()
            self.threads.stop(wait_s=THREAD_END_S)
            await self.discovery.stop()
            await self.bus.close()


async def recorder(
    settings: Settings,
    *,
    nats: str | None = None,
    context: str | None = None,
    data: Path | None = None,
    keys: Path | None = None,
    folder: Path | None = None,
) -> None:
    """Record what happens on a server that runs already, until SIGINT or SIGTERM.

    Args:
        settings: its limits.
        nats: where the server is.
        context: or a NATS context that says so.
        data: or the data directory of `antiphon up`.
        keys: the fabric's keys folder, where the server asks who comes in.
        folder: where the record is; default: `stats` in the data directory.

    Raises `AlreadyRunning` where another recorder writes there.
    """
    endpoint = resolve(nats, context=context, data=data)
    home = data or default_data_dir()
    if keys is None and local_operator(endpoint, data) is not None:
        keys = home / FOLDER
    folder = prepare(folder or home / RECORD)
    lock = Lock(folder)
    try:
        await lock.take()
    except AlreadyRunning:
        raise AlreadyRunning(
            f"another recorder writes in {folder}: there is one writer, choose another --record"
        ) from None
    store: NatsTransport | None = None
    try:
        vault = None if keys is None else Vault.load(keys)
        name = f"{subjects.MASTER}-recorder-{secrets.token_hex(4)}"
        logins = None if vault is None else Fixed(vault.master)
        bus = await connect(name, endpoint=endpoint, prefix=settings.prefix, bounds=settings.bus(), logins=logins)
        if vault is not None and bus.transport.asks_for_login:
            assert isinstance(bus.transport, NatsTransport), "it asks for a login"
            inbox = subjects.inbox(f"{subjects.MASTER}-store", secrets.token_hex(8))
            store = await NatsTransport.connect(endpoint, name="store", inbox=inbox, logins=Fixed(vault.store))
            bus.transport.store = store
        role = RecorderRole(bus, settings, folder, hidden(settings.record_queries, folder))
        await role.start()
        log.info("recorder.records", name=name, folder=str(folder))
        await until_told(role.supervisor, asyncio.ensure_future(role.run()))
    finally:
        if store is not None:
            await store.close()
        lock.give_back()
