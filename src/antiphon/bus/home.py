"""The data directory of an embedded server: one holder at a time, and a note of where that one listens.

The lock is the operating system's, so a holder that was killed leaves nothing behind that has to be believed.
The note (`antiphon.json`) says where the server is; it is only believed while the lock is held.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec

from antiphon.bus.process import is_alive
from antiphon.errors import AlreadyRunning, InvalidSetting

if sys.platform == "win32":  # pragma: no cover - not a tested platform
    import msvcrt

    def _lock(handle: int, *, shared: bool) -> None:
        del shared  # Windows has no shared lock here: a look takes the lock for an instant
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int, *, shared: bool) -> None:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


DATA_VARIABLE: Final = "ANTIPHON_DATA"
NOTE: Final = "antiphon.json"
LOCK: Final = "antiphon.lock"
RECORD: Final = "stats"
"""The record's folder in the data directory; it has a lock of its own."""
LOCK_WAIT_MS: Final = 1_000
"""How long a start waits for a holder that says nothing: one that starts or stops, which takes less than this."""
LOOK_MS_MAX: Final = 50
"""How long it waits for one that does: `running` takes the lock too, for microseconds, to see whether it is free."""
LOCK_POLL_MS: Final = 10


@dataclass(frozen=True, slots=True)
class Running:
    """The embedded server that serves a data directory now.

    Attributes:
        pid: the process that started it and holds the lock.
        server_pid: the nats-server.
        url: where clients connect.
        version: the server's version, e.g. `2.15.1`.
        started_at_ms: wall clock, milliseconds since 1970 in UTC.
        monitor_url: the server's HTTP monitoring, if it was asked for.
    """

    pid: int
    server_pid: int
    url: str
    version: str
    started_at_ms: int
    monitor_url: str | None = None


_note = msgspec.json.Decoder(Running)


def default_data_dir() -> Path:
    """Return `$ANTIPHON_DATA`, or the user's data directory (XDG on Linux) with `antiphon` below it."""
    given = os.environ.get(DATA_VARIABLE)
    if given:
        return Path(given).expanduser()
    import platformdirs  # noqa: PLC0415 - 0.3 MB, which nobody needs who is told where

    return platformdirs.user_data_path("antiphon", appauthor=False)


def _make(data: Path) -> None:
    """Make the directory and what is missing above it for this user only; `parents=True` gives parents the default."""
    if not data.is_dir():
        if not data.parent.exists():
            _make(data.parent)
        data.mkdir(mode=0o700, exist_ok=True)


def prepare(data: Path) -> Path:
    """Make the directory for this user only and return its full path.

    Raises `InvalidSetting` where it cannot be made, where others may write into it, or where its name cannot stand
    in a configuration file.
    """
    try:
        data = data.expanduser().resolve()
        _make(data)
        if not any(data.iterdir()):
            data.chmod(0o700)
        mode = data.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise InvalidSetting(f"the data directory {data} cannot be used: {error}") from error
    if any(ord(char) < ord(" ") for char in str(data)):
        raise InvalidSetting(f"the data directory {str(data)!r} has a control character in its name")
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and os.name == "posix":
        raise InvalidSetting(f"others may write into the data directory {data}: chmod 700 it, or choose another")
    return data


class Lock:
    """The exclusive right to serve a data directory; the operating system gives it back when this process ends."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._handle: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._handle is not None

    async def take(self) -> None:
        """Take the lock; raise `AlreadyRunning` when its holder keeps it for longer than a look or a stop lasts."""
        handle = os.open(self._data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            free = await self._becomes_free(handle)
        except BaseException:
            os.close(handle)
            raise
        if not free:
            os.close(handle)
            raise AlreadyRunning(_who(self._data))
        self._handle = handle

    async def _becomes_free(self, handle: int) -> bool:
        begun = time.monotonic()
        while not _locked(handle, shared=False):
            # A holder that has said where it serves will keep the lock: waiting longer than a look is no use.
            bound_ms = LOOK_MS_MAX if _holder(self._data) else LOCK_WAIT_MS
            if (time.monotonic() - begun) * 1_000 > bound_ms:
                return False
            await asyncio.sleep(LOCK_POLL_MS / 1_000)
        return True

    def give_back(self) -> None:
        """Give the lock back; harmless when it is not held. The file stays: removing it would race with a taker."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def is_locked(data: Path) -> bool:
    """Whether some process holds the lock of this data directory."""
    try:
        handle = os.open(data / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locked(handle, shared=True)
    finally:
        os.close(handle)


def running(data: Path) -> Running | None:
    """Return the server that serves this data directory now, or None; a note left by a killed one is not believed."""
    data = data.expanduser()
    return _holder(data) if is_locked(data) else None


def write_note(data: Path, note: Running) -> None:
    """Say where the server is, at once and in full: a reader sees the old note, the new one, or none."""
    write_private(data / NOTE, json.dumps(asdict(note), indent=2) + "\n")


def remove_note(data: Path) -> None:
    """Take the note back."""
    (data / NOTE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Replace a file by one that only this user may read, in one step."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def _locked(handle: int, *, shared: bool) -> bool:
    try:
        _lock(handle, shared=shared)
    except OSError:
        return False
    return True


def _holder(data: Path) -> Running | None:
    try:
        note = _note.decode((data / NOTE).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return note if is_alive(note.pid) else None


def _who(data: Path) -> str:
    note = _holder(data)
    if note is None:
        return f"another Antiphon is starting or stopping on {data}: try again in a moment"
    return f"Antiphon already runs on {data}: process {note.pid}, {note.url}; use it, stop it, or choose another --data"
