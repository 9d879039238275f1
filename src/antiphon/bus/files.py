"""The files of one embedded server below its data directory: configuration, log, pid and ports."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from antiphon.bus.home import write_private
from antiphon.bus.process import command_line, tied
from antiphon.errors import ServerFailed

MAX_PAYLOAD_BYTES: Final = 1_048_576
"""One message with its headers: the server's own default, stated because our bounds are derived from it."""
LOG_BYTES_MAX: Final = 5 * 1_048_576
LOG_FILES_MAX: Final = 3
MEMORY_STORE_BYTES_MAX: Final = 256 * 1_048_576
"""JetStream in memory; the server's own default is three quarters of the machine."""
WORDS_LINES_MAX: Final = 12
"""Errors of the server that are quoted; where it logged none, its last lines, which only say where it was."""
CALM_LINES_MAX: Final = 3
WORDS_BYTES_MAX: Final = 16_384

_ports = TypeAdapter(dict[str, list[str]])


class Files:
    """Where everything of one embedded server lies."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.configuration = data / "server.conf"
        self.log = data / "server.log"
        self._errors = data / "server.err"
        self._pid = data / "server.pid"
        self._ports = data / "ports"
        self._last_port = data / "port"
        self._log_start = 0

    def write(self, port: int, *, monitor: bool, fsync: bool, more: str) -> None:
        """Write the configuration, and remember where the log of this start begins."""
        self._ports.mkdir(mode=0o700, exist_ok=True)
        name = "antiphon-" + hashlib.sha256(os.fsencode(self.data)).hexdigest()[:8]
        sync = ", sync_interval: always" if fsync else ""
        lines = [
            "# Written by antiphon at every start: changes are lost.",
            f"server_name: {json.dumps(name)}",
            f'listen: "127.0.0.1:{port}"',
            *(['http: "127.0.0.1:-1"'] if monitor else []),
            f"max_payload: {MAX_PAYLOAD_BYTES}",
            # a frozen process leaves its queue groups after some 12 s; with the default of two minutes it takes minutes
            'ping_interval: "5s"',
            "ping_max: 2",
            f"ports_file_dir: {_quoted(self._ports)}",
            f"pid_file: {_quoted(self._pid)}",
            f"logfile: {_quoted(self.log)}",
            f"logfile_size_limit: {LOG_BYTES_MAX}",
            f"logfile_max_num: {LOG_FILES_MAX}",
            f"jetstream {{ store_dir: {_quoted(self.data)}, max_memory_store: {MEMORY_STORE_BYTES_MAX}{sync} }}",
            *([more] if more else []),
        ]
        write_private(self.configuration, "\n".join(lines) + "\n")
        with contextlib.suppress(FileNotFoundError):
            self._log_start = self.log.stat().st_size

    def spawn(self, binary: Path, *, tie: bool) -> subprocess.Popen[bytes]:
        """Start the server in a session of its own, so that Ctrl-C reaches it only through whoever started it."""
        command = [str(binary.absolute()), "-c", str(self.configuration)]
        try:
            with os.fdopen(os.open(self._errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as errors:
                return subprocess.Popen(  # noqa: S603 - our own words and the binary that was found
                    tied(command) if tie else command,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    cwd=self.data,
                    # it needs no variable of ours, and one may be a token, which all of its life would stand in /proc
                    env={name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")},
                    start_new_session=True,
                )
        except OSError as error:
            raise ServerFailed(f"{binary} cannot be started: {error}") from error

    def ports(self, pid: int) -> dict[str, str]:
        """Return the first address for each kind of port of the server with this pid; empty until it has said so."""
        for path in self._ports.glob(f"*_{pid}.ports"):
            # a file that is still being written is not JSON yet
            with contextlib.suppress(OSError, ValidationError):
                return {kind: urls[0] for kind, urls in _ports.validate_json(path.read_bytes()).items() if urls}
        return {}

    def pids(self) -> list[int]:
        """Return the pids that servers of this directory have left in its files."""
        texts = [path.stem.rpartition("_")[2] for path in self._ports.glob("*.ports")]
        with contextlib.suppress(OSError, UnicodeDecodeError):
            texts.append(self._pid.read_text(encoding="ascii").strip())
        return sorted({int(text) for text in texts if text.isascii() and text.isdigit() and int(text) > 1})

    def is_served_by(self, pid: int) -> bool:
        """Whether this pid is a nats-server with our configuration, and not a stranger that got the number later."""
        command = command_line(pid)
        return bool(command) and "nats-server" in command[0] and str(self.configuration) in " ".join(command)

    def is_gone(self, pid: int) -> bool:
        """Whether the server with this pid has ended."""
        return not self.is_served_by(pid)

    def clean(self) -> None:
        """Remove what only a running server's files mean."""
        for path in (self._pid, *self._ports.glob("*.ports")):
            path.unlink(missing_ok=True)

    def last_port(self) -> int:
        """Return the port of the last start if it is free, else -1: whoever was connected finds the server again."""
        try:
            port = int(self._last_port.read_text("ascii"))
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except (OSError, ValueError, OverflowError):
            return -1
        return port

    def remember_port(self, url: str) -> None:
        """Keep the port for the next start."""
        write_private(self._last_port, url.rpartition(":")[2])

    def words(self) -> str:
        """Return what the server said last since this start: its errors if there are any, else its last lines."""
        lines = [*_tail(self._errors, 0), *_tail(self.log, self._log_start)]
        loud = [line for line in lines if "[FTL]" in line or "[ERR]" in line or line.startswith("nats-server:")]
        return "\n".join(loud[-WORDS_LINES_MAX:] or lines[-CALM_LINES_MAX:])


def _quoted(path: Path) -> str:
    # The configuration's strings are JSON's as far as a path without control characters goes.
    return json.dumps(str(path), ensure_ascii=False)


def _tail(path: Path, start: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - WORDS_BYTES_MAX))
            return file.read(WORDS_BYTES_MAX).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
