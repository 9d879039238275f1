"""`antiphon stats`: what happened of late, the rows behind it as files, and forgetting somebody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="stats", help="See what happened of late: traffic, latencies, coverage, nodes, breakers, alerts.")
Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])]


@command.default
def stats(
    *,
    since: str = "1h",
    node: str | None = None,
    sql: bool = False,
    history: bool = False,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """See what happened of late: traffic, latencies, coverage, nodes, breakers, cache, sagas, alerts.

    Args:
        since: how far back to look, such as 30min, 1h, 7d; over the bus there is one day of rows.
        node: the slowest nodes, the breakers and the cache of this node only.
        sql: show the statement behind each figure instead.
        history: ask this machine's snapshot: all that is kept, instead of the last day.
        output: how to write it to stdout.
        at: where the server is.
    """
    from antiphon.cli.duration import parse  # noqa: PLC0415 - not for --help
    from antiphon.cli.record import overview  # noqa: PLC0415 - as above
    from antiphon.subjects import token  # noqa: PLC0415 - as above

    if node is not None:
        token(node)
    return overview.overview(at, parse(since, "--since"), node, output, sql=sql, history=history)


@command.command
def export(
    folder: Path,
    /,
    *,
    table: tuple[str, ...] = (),
    since: str | None = None,
    form: Annotated[Literal["parquet", "csv"], Parameter(name="--format")] = "parquet",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Write tables of this machine's record into a folder, a file each.

    Args:
        folder: where to; it is made if it is not there.
        table: only these; repeat it, or separate them by commas.
        since: only rows that are so new, such as 12h or 7d.
        form: the format of the files.
        at: which data directory.
    """
    from antiphon.cli.record import taking  # noqa: PLC0415 - not for --help

    return taking.export(at, folder, table, since, form)


@command.command
def forget(
    caller: str,
    /,
    *,
    yes: bool = False,
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Take a caller's name and the text of his questions out of every recorder's files, for good.

    Args:
        caller: whom.
        yes: do not ask whether that is meant.
        at: where the server is.
    """
    from antiphon.cli.record import taking  # noqa: PLC0415 - not for --help

    return taking.forget(at, caller, yes=yes)
