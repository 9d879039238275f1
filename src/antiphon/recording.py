"""The recorder's role: one process that reads what happened and writes it down, beside the masters.

It is a process of its own even under `antiphon up`: reading a fact costs CPU, DuckDB wants memory, and neither may
delay a search. To the fabric it is a master that serves no searches: it reads what only masters may read.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from importlib.metadata import version
from pathlib import Path

import structlog

from antiphon import subjects
from antiphon.actors import badges
from antiphon.actors.audit import Audit
from antiphon.actors.badges import BadgeBook
from antiphon.actors.recorder import Recorder
from antiphon.actors.recording import Recording
from antiphon.app import keys_folder, until_told
from antiphon.bus.assets import facts_of
from antiphon.bus.bus import Bus
from antiphon.bus.connect import connect
from antiphon.bus.endpoint import resolve
from antiphon.bus.home import RECORD, Lock, default_data_dir, prepare
from antiphon.bus.nats import NatsTransport
from antiphon.decide.knocks import Knocks
from antiphon.decide.record_rows import Hide, as_is
from antiphon.errors import AlreadyRunning
from antiphon.identity.session import Fixed
from antiphon.identity.vault import Vault
from antiphon.runtime.discovery import Discovery
from antiphon.runtime.facts import Facts
from antiphon.runtime.keeping import Keeper
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
        vault: the fabric's secrets; None where masters have none and check nobody.
    """

    def __init__(
        self, bus: Bus, settings: Settings, folder: Path, hide: Hide = as_is, vault: Vault | None = None
    ) -> None:
        self.bus = bus
        self.settings = settings
        self.folder = folder
        self.vault = vault
        self.supervisor = Supervisor(intensity=settings.intensity())
        self.store = Store(folder, bus.prefix, hide, settings.store())
        self.threads = Threads(1, "record")
        self.recording = Recording(
            bus, self.store, self.threads, Upkeep(self.store, settings.upkeep()), settings.recording()
        )
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
        settings, bus, recording = self.settings, self.bus, self.recording
        await bus.transport.journal(facts_of(bus.prefix))  # a master may not have come yet
        if self.vault is not None and not bus.transport.asks_for_login:
            await self._put_on_badge(self.vault)
        await self.supervisor.start("recording", lambda: recording)
        await self.supervisor.start("recorder", lambda: Recorder(bus, recording, self.sandbox, bounds=settings.actor()))
        await self.discovery.start()

    async def _put_on_badge(self, vault: Vault) -> None:
        """Show a badge as masters do, and answer those alone whose badges allow it; a refusal is a fact here, too."""
        settings, bus, books = self.settings, self.bus, list[BadgeBook]()
        keeper = Keeper(bus, settings.keeper()) if settings.tell_facts and settings.keep_facts else None
        facts = Facts(bus, buffer_max=settings.facts_buffer_max, is_on=settings.tell_facts, keeper=keeper)
        limits = settings.identity()

        def opened(one: BadgeBook) -> None:
            books[:] = [one]

        def book() -> BadgeBook:
            return BadgeBook(bus, vault, lives=limits.lives, opened=opened, bounds=settings.actor())

        await self.supervisor.start("facts", lambda: facts)
        if keeper is not None:
            await self.supervisor.start("keeper", lambda: keeper)
        await self.supervisor.start("badges", book)
        knocks = Knocks(limits.knocks)
        badges.put_on(bus, lambda: books[0], vault.master.public, audit=Audit(bus, facts), knocks=knocks)

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
    is_open: bool = False,
) -> None:
    """Record what happens on a server that runs already, until SIGINT or SIGTERM.

    Args:
        settings: its limits.
        nats: where the server is.
        context: or a NATS context that says so.
        data: or the data directory of `antiphon up`.
        keys: the fabric's keys folder; default: that of the data directory.
        folder: where the record is; default: `stats` in the data directory.
        is_open: run without keys and answer everybody.

    Raises `AlreadyRunning` where another recorder writes there, and `InvalidSetting` where there are no keys and nobody
    has said that it is to be open.
    """
    os.umask(0o077)  # what this process writes is for its own user alone, whatever folder it is told to write in
    endpoint = resolve(nats, context=context, data=data)
    keys = keys_folder(keys, data, is_open=is_open, role="recorder")
    folder = prepare(folder or (data or default_data_dir()) / RECORD)
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
        role = RecorderRole(bus, settings, folder, hidden(settings.record_queries, folder), vault)
        await role.start()
        if vault is None:
            log.warning("recorder.open", name=name, why="it has no keys: whoever reaches the server may ask the record")
        log.info("recorder.records", name=name, folder=str(folder))
        await until_told(role.supervisor, asyncio.ensure_future(role.run()))
    finally:
        if store is not None:
            await store.close()
        lock.give_back()
