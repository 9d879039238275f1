"""The limits of a recorder that are no decision: how it reads its streams, and what it may use of its machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreBounds:
    """What the store may use of this machine; `settings.py` names them for operators."""

    memory_bytes_max: int = 512 * 1024 * 1024
    threads: int = 1


@dataclass(frozen=True, slots=True)
class RecordingBounds:
    """How the streams are read; `settings.py` names them for operators."""

    rows: int = 1_000
    """Rows after which is written at once; with fewer, a turn waits `wait_ms` for more, unless a stream gave as much
    as is read of it at once."""
    wait_ms: int = 250
    messages_max: int = 256
    bytes_max: int = 1024 * 1024
    retry_ms: int = 1_000
    """How often is tried again while the disk refuses."""
    shards: int = 1
    """Sets of streams that sagas are spread over."""


@dataclass(frozen=True, slots=True)
class SandboxBounds:
    """What a question may take; `settings.py` names them for operators."""

    time_ms: int = 5_000
    memory_bytes: int = 256 * 1024 * 1024
    bytes_max: int = 700_000
    """Of all rows of an answer, which has to fit into a message of 1 MB."""
    parallel_max: int = 2
    rows_max: int = 2_000_000
    """Of each table of the file that is asked; the newest ones."""
    fresh_ms: int = 5_000
    """How old that file may be before it is made anew."""
