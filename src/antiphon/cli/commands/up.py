"""`antiphon up`: a server and a master, so that nodes can join and people can ask."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from antiphon.cli.options import Connection

command = App(name="up", help="Start a NATS server and a master here; nodes can join, people can ask.")


@command.default
def up(
    *,
    keys: Annotated[Path | None, Parameter(env_var="ANTIPHON_KEYS")] = None,
    open_: Annotated[bool, Parameter(name="--open", negative="")] = False,
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> None:
    """Start a NATS server and a master here; nodes can join, people can ask.

    With --nats or --context it starts no server: a master joins the one that is named, with the fabric's keys, as
    `antiphon run master` does. Ctrl-C or SIGTERM stops everything cleanly, with exit code 0. A second `up` on the same
    data directory says so and exits with 6.

    Args:
        keys: with --nats or --context, the fabric's keys folder; default: $ANTIPHON_KEYS, or `keys` in the data
            directory.
        open_: with --nats or --context, run without keys: whoever reaches that server may do everything.
        at: where the server is.
    """
    is_embedded = not (at.nats or at.context)
    is_told = is_embedded and sys.stdout.isatty()  # by the banner; then the logs need not say it again
    at.configure_logs("warning" if is_told and sys.stderr.isatty() else "info", role="master")
    from antiphon import app  # noqa: PLC0415 - not for --help
    from antiphon.errors import InvalidSetting  # noqa: PLC0415 - as above
    from antiphon.runtime.loop import run  # noqa: PLC0415 - as above
    from antiphon.settings import Settings  # noqa: PLC0415 - as above

    settings = Settings.read()
    if not is_embedded:
        run(app.master(settings, nats=at.nats, context=at.context, data=at.data, keys=keys, is_open=open_))
        return
    if open_:
        raise InvalidSetting("--open is for a server that runs already: name it with --nats or --context")
    started = asyncio.Event()
    run(_told(app.up(settings, data=at.data, started=started), started, at.data))


async def _told(serving: Coroutine[Any, Any, None], started: asyncio.Event, data: Path | None) -> None:
    """Run, and say what runs as soon as it does."""
    task = asyncio.ensure_future(serving)
    waiting = asyncio.ensure_future(started.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if started.is_set() and sys.stdout.isatty():
            print(_banner(data), flush=True)
        await task
    finally:
        waiting.cancel()


def _banner(data: Path | None) -> str:
    from antiphon.bus.home import default_data_dir, running  # noqa: PLC0415 - not for --help

    home = data or default_data_dir()
    note = running(home)
    assert note is not None, "it has just started"
    option = f" --data {home}" if data else ""
    return f"""\
Antiphon is up: nats-server {note.version} at {note.url}, one master
data     {home}
join     antiphon node serve folder ./docs{option}
ask      antiphon search "your question"{option}
see      antiphon node ls{option}
stop     Ctrl-C"""
