"""Files that only this user may read: how keys and credentials lie on disk.

A file that its group or others may read is refused, with the command that mends it: a secret that others have seen
has to be replaced, and only a person can tell whether anybody looked. Writing is in one step and durable: a reader
sees the old file or the new one, also after a power cut, because the old refresh token is worthless once the new one
was handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import stat
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from antiphon.errors import OutOfBudget, SecretsUnusable

if sys.platform == "win32":  # pragma: no cover - not a tested platform
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


BYTES_MAX: Final = 64 * 1024
LOCK_POLL_MS: Final = 10
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def read_private(path: Path) -> str:
    """Return the text of a file that only this user may read.

    Raises `FileNotFoundError` where there is none, and `SecretsUnusable` for one that is open to others, no file, not
    text, or larger than 64 KB.
    """
    try:
        # Not blocking: somebody may have put a pipe there.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SecretsUnusable(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(handle)  # of what was opened, not of what has this name by now
        if not stat.S_ISREG(state.st_mode):
            raise SecretsUnusable(f"{path} is not a file")
        check_private(path, state.st_mode, "600")
        raw = file.read(BYTES_MAX + 1)
    if len(raw) > BYTES_MAX:
        raise SecretsUnusable(f"{path} is larger than {BYTES_MAX} bytes: it is not one of ours")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SecretsUnusable(f"{path} is not text: it was damaged") from error


def check_private(path: Path, mode: int, wanted: str) -> None:
    """Raise `SecretsUnusable` when group or others may do anything with this path; Windows has no such bits."""
    if mode & _OTHERS and os.name == "posix":
        text = f"{path} is open to other users (mode {stat.S_IMODE(mode):o}): chmod {wanted} it"
        raise SecretsUnusable(f"{text}, and replace what is in it if somebody may have read it")


def create_private(path: Path, text: str) -> None:
    """Write a new file that only this user may read, to the disk; raise `FileExistsError` for one that is there."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def replace_private(path: Path, text: str) -> None:
    """Replace a file, or make it, in one step and to the disk."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        create_private(fresh, text)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lock_of(path: Path) -> Path:
    """Return the file beside a file that it is locked by."""
    return path.with_name(f"{path.name}.lock")


@asynccontextmanager
async def locked(path: Path, wait_ms: int) -> AsyncGenerator[None]:
    """Hold the lock beside a file while the block runs; the system gives it back when this process ends.

    The lock file stays: removing it would race with a taker. Raises `OutOfBudget` when another holds it for longer.
    """
    handle = os.open(lock_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + wait_ms / 1_000
        while not try_lock(handle):
            if time.monotonic() > end:
                raise OutOfBudget(f"another process has been changing {path} for {wait_ms} ms")
            await asyncio.sleep(LOCK_POLL_MS / 1_000)
        yield
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Whether the lock of an open file is this process's now; the system gives it back when the file is closed."""
    with contextlib.suppress(OSError):
        _lock(handle)
        return True
    return False
