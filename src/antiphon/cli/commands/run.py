"""`antiphon run ROLE`: one role in a process of its own, beside a NATS server that runs already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="run", help="Run one role in a process of its own, beside a NATS server that runs already.")


@command.command
def master(
    *,
    name: str | None = None,
    keys: Annotated[Path | None, Parameter(env_var="ANTIPHON_KEYS")] = None,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> None:
    """Answer searches and keep the registry; several masters share the work.

    Args:
        name: the master's name, `master` or `master-...`; drawn if it is not given.
        keys: the fabric's keys folder; default: $ANTIPHON_KEYS, or `keys` in the data directory.
        open_: run without keys and check nobody: whoever reaches the server may do everything.
        at: where the server is.
    """
    at.configure_logs("info", role="master")
    from antiphon import app  # noqa: PLC0415 - not for --help
    from antiphon.errors import InvalidSetting  # noqa: PLC0415 - as above
    from antiphon.runtime.loop import run  # noqa: PLC0415 - as above
    from antiphon.settings import Settings  # noqa: PLC0415 - as above
    from antiphon.subjects import is_master, token  # noqa: PLC0415 - as above

    if name is not None and not is_master(token(name)):
        raise InvalidSetting(f"{name!r} is no name of a master: write master or master-...")
    run(app.master(Settings.read(), name=name, keys=keys, is_open=open_, **at.where()))


@command.command
def recorder(
    *,
    record: Path | None = None,
    keys: Annotated[Path | None, Parameter(env_var="ANTIPHON_KEYS")] = None,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> None:
    """Write down what happens, for analysts; a second one elsewhere is a full copy of its own.

    Args:
        record: the record's folder; default: `stats` in the data directory. One recorder writes there at a time.
        keys: the fabric's keys folder; default: $ANTIPHON_KEYS, or `keys` in the data directory.
        open_: run without keys and answer everybody: whoever reaches the server may ask the record.
        at: where the server is.
    """
    at.configure_logs("info", role="recorder")
    from antiphon import recording  # noqa: PLC0415 - not for --help
    from antiphon.runtime.loop import run  # noqa: PLC0415 - as above
    from antiphon.settings import Settings  # noqa: PLC0415 - as above

    run(recording.recorder(Settings.read(), folder=record, keys=keys, is_open=open_, **at.where()))
