"""Logs that are kept: what a process of the fabric logs also goes to a file in its data directory, for `antiphon logs`.

A file a process, JSON lines, bounded: at its bound a file is put aside as `.1`, in the place of the one before. Of
processes that have ended only the newest files stay.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDER: Final = "logs"
FILE_BYTES_MAX: Final = 5 * 1024 * 1024
FILES_MAX: Final = 24
"""Files in the folder; the oldest go when a process starts."""
SUFFIX: Final = ".jsonl"
ASIDE: Final = ".1"


class LogFile:
    """One process's file; a disk that refuses is no reason to stop, the lines are on stderr too.

    Args:
        folder: the data directory's folder of logs.
        role: what the process is, e.g. master.
        bytes_max: of one file.
    """

    def __init__(self, folder: Path, role: str, bytes_max: int = FILE_BYTES_MAX) -> None:
        self.path = folder / f"{role}-{os.getpid()}{SUFFIX}"
        self.bytes_max = bytes_max
        self._handle: int | None = None
        self._size = 0
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _thin_out(folder)

    def write(self, line: str) -> None:
        """Add a line."""
        data = line.encode("utf-8", "replace") + b"\n"
        with suppress(OSError):
            if self._handle is None or self._size + len(data) > self.bytes_max:
                self._open()
            assert self._handle is not None, "it was opened"
            os.write(self._handle, data)
            self._size += len(data)

    def _open(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            self.path.replace(self.path.with_name(self.path.name + ASIDE))
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._handle).st_size


def files(folder: Path) -> list[Path]:
    """Return the files of a folder, the one that was written last at the end."""
    found = [path for path in folder.glob("*") if path.name.removesuffix(ASIDE).endswith(SUFFIX)]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def role_of(path: Path) -> str:
    """Return the role of a file's process.

    >>> role_of(Path("node-blog-4711.jsonl.1"))
    'node-blog'
    """
    return path.name.removesuffix(ASIDE).removesuffix(SUFFIX).rpartition("-")[0]


def _thin_out(folder: Path) -> None:
    for path in files(folder)[: -FILES_MAX + 1]:
        path.unlink(missing_ok=True)
