"""The follower of the embedded server's log: tells the audit of everybody who did what he may not.

It begins at the log's end and reads what is added, a bounded piece at a time. The server rotates the log at a size:
then the old file is read to its end, and the new one from its beginning. A line that is not whole waits for its end.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from antiphon.actors.audit import Audit
from antiphon.clock import Clock
from antiphon.decide.violations import LINE_BYTES_MAX, Violations, read
from antiphon.identity.server_config import APP_ACCOUNT

POLL_MS = 250
PIECE_BYTES = 256 * 1024
"""Read at once: some 1,000 lines, which cost the loop 10 ms."""
COUNTED_MS = 10_000
"""How often it is told how many violations were not told one by one."""


class ViolationFollower:
    """Follows one log; a child of the supervisor.

    Args:
        path: the server's log.
        audit: is told.
        clock: the time.
    """

    def __init__(self, path: Path, audit: Audit, clock: Clock) -> None:
        self._path = path
        self._audit = audit
        self._clock = clock
        self._violations = Violations()
        self._file: BinaryIO | None = None
        self._rest = b""
        self._counted_ms = clock.now_ms()

    async def start(self) -> None:
        """Begin at the end of what is there."""
        self._open()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    async def run(self) -> None:
        """Follow, for ever."""
        while True:
            if not self.follow():
                await self._clock.sleep_ms(POLL_MS)
            else:
                await self._clock.sleep_ms(1)  # there is more, and others have work to do

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Tell what is still there, and close the file."""
        if not is_crashed:
            while self.follow():
                pass
            self._tell_counted()
        if self._file is not None:
            self._file.close()
            self._file = None

    def follow(self) -> bool:
        """Read a piece and tell of it; return whether there may be more to read at once."""
        if self._file is None:
            self._open()
        piece = self._read()
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            self._rest = b"-"  # the beginning of a line that is nobody's; its end will not be read as one
        for line in lines:
            self._tell(line.decode("utf-8", "replace"))
        now_ms = self._clock.now_ms()
        if now_ms - self._counted_ms >= COUNTED_MS:
            self._counted_ms = now_ms
            self._tell_counted()
        return bool(piece) or (self._file is None and self._path.exists())

    def _open(self) -> None:
        with suppress(OSError):
            self._file = self._path.open("rb")

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        piece = self._file.read(PIECE_BYTES)
        if piece or not self._is_rotated(self._file):
            return piece
        piece = self._file.read(PIECE_BYTES)  # what was added after it was read and before it was rotated
        if not piece:
            self._file.close()
            self._file, self._rest = None, b""
        return piece

    def _is_rotated(self, file: BinaryIO) -> bool:
        """Whether another file has this name by now, or this one has begun anew."""
        here = os.fstat(file.fileno())
        try:
            there = self._path.stat()
        except OSError:  # in this very moment there is none
            return False
        return (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino) or there.st_size < file.tell()

    def _tell(self, line: str) -> None:
        found = read(line, APP_ACCOUNT)
        if found is None or not self._violations.is_told(found, self._clock.now_ms()):
            return
        user = found.user
        self._audit.tell(
            "violated",
            user.name,
            kind=user.kind,
            instance=user.instance,
            why=found.what,
            where=f"{found.address} {found.subject}",
            credential=user.jti or user.source or None,
        )

    def _tell_counted(self) -> None:
        for user, count in self._violations.counted().items():
            self._audit.tell(
                "violated",
                user.name,
                kind=user.kind,
                instance=user.instance,
                why="too_often",
                where=f"{count} more times",
                credential=user.jti or user.source or None,
            )
