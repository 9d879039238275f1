"""Files of the record: written beside their place, synced, put there in one step: no reader sees half of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

HOT: Final = "hot.duckdb"
"""What the recorder writes; nobody else can open it while it does."""
SNAPSHOT: Final = "antiphon.duckdb"
"""What analysts open."""
RECENT: Final = "recent.duckdb"
"""What the query endpoint's workers open: the last day and the roll-ups, and no way to anything else."""
SEGMENTS: Final = "segments"
KEY: Final = "query.key"
FRESH: Final = ".new"


def settle(fresh: Path, place: Path) -> None:
    """Put a finished file where it belongs, so that it is there as a whole even after a power cut, or not at all."""
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(place)
    handle = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fresh_of(place: Path) -> Path:
    """Return where to write a file of DuckDB before it is settled; what a kill has left there is removed."""
    fresh = place.with_name(place.name + FRESH)
    fresh.unlink(missing_ok=True)
    wal_of(fresh).unlink(missing_ok=True)
    return fresh


def wal_of(place: Path) -> Path:
    """Return where DuckDB keeps what is not in a file of its own yet."""
    return place.with_name(place.name + ".wal")


def quoted(path: Path | str) -> str:
    """Return a path as a literal of SQL.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + str(path).replace("'", "''") + "'"
