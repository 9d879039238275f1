"""Asking the record: over the bus, or, for all of its history, in the snapshot on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from antiphon.cli.nodes.asking import asked
from antiphon.cli.options import Connection
from antiphon.errors import InvalidQuery, InvalidSetting

if TYPE_CHECKING:
    from antiphon.messages.stats import StatsTable


def tables(at: Connection, statements: Sequence[str], *, rows_max: int, history: bool) -> list[StatsTable]:
    """Return what each statement finds, from the query endpoint, or with `history` from the snapshot."""
    if history:
        return _local(at, statements, rows_max)
    answer = asked(at, lambda client: client.sql(*statements, rows_max=rows_max))
    return list(answer.tables)


def snapshot_of(at: Connection) -> Path:
    """Return where this machine's snapshot is; raises `InvalidSetting` where there is none."""
    from antiphon.bus.home import RECORD  # noqa: PLC0415 - not for --help

    place = at.home() / RECORD / "antiphon.duckdb"
    if not place.is_file():
        raise InvalidSetting(f"there is no record at {place}: `antiphon up` makes one, --data names another directory")
    return place


def _local(at: Connection, statements: Sequence[str], rows_max: int) -> list[StatsTable]:
    from antiphon.messages.stats import StatsTable  # noqa: PLC0415 - not for --help
    from antiphon.stats import reading  # noqa: PLC0415 - as above

    found: list[StatsTable] = []
    with reading.opened(snapshot_of(at)) as connection:
        for statement in statements:
            made: dict[str, Any] = reading.table(connection, statement, rows_max)
            if made.get("error"):
                raise InvalidQuery(made["error"])
            found.append(StatsTable.model_validate(made))
    return found
