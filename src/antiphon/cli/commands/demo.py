"""`antiphon demo`: a server, a master and five node processes over content that every machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from antiphon.cli.options import LogLevel, demo_data_dir

command = App(
    name="demo",
    usage="Usage: antiphon demo [OPTIONS] [QUERY]",
    help="See a real federated search: a server, a master and five nodes over Python's documentation.",
)


@command.default
def demo(
    query: str | None = None,
    *,
    once: bool = False,
    output: Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])] = "table",
    data: Path | None = None,
    log_level: Annotated[LogLevel | None, Parameter(env_var="ANTIPHON_LOG")] = None,
) -> None:
    """See a real federated search: a server, a master and five nodes over Python's documentation.

    It indexes the standard library's documentation on two nodes that overlap, the installed packages, and Antiphon's
    own documentation on two instances of one node; asks a few questions; and stays up, so that you can ask from
    another terminal, and see what was asked. What the processes log is in demo.log in the data directory.

    Args:
        query: ask this instead of the demo's own questions.
        once: end after the answers.
        output: how to write the answers to stdout; json is one document with answers, nodes and timings.
        data: the data directory; default: `demo` below the user's own.
        log_level: what is logged to demo.log: debug, info, warning or error.
    """
    from antiphon import logs  # noqa: PLC0415 - not for --help
    from antiphon.bus.home import prepare, running  # noqa: PLC0415 - as above
    from antiphon.cli import say  # noqa: PLC0415 - it imports this
    from antiphon.cli.demo.content import PARTS, QUESTIONS  # noqa: PLC0415 - as above
    from antiphon.cli.demo.fleet import Fleet  # noqa: PLC0415 - as above
    from antiphon.cli.demo.timing import Timing  # noqa: PLC0415 - as above
    from antiphon.errors import AlreadyRunning  # noqa: PLC0415 - as above

    home = prepare(data or demo_data_dir())
    option = f" --data {home}" if data else ""
    if (note := running(home)) is not None:
        raise AlreadyRunning(
            f'it runs already, process {note.pid} at {note.url}: ask it with `antiphon search "..."{option}`'
        )
    if output == "table":
        say("Antiphon: starting a nats-server, a master and five node processes")
    log_file = home / "demo.log"
    timing = Timing()
    with log_file.open("w", encoding="utf-8", buffering=1) as stream:
        logs.configure(log_level, stream=stream)
        fleet = Fleet(PARTS, log_file, log_level)
        timing.mark("forked")
        try:
            from antiphon.cli.demo.stage import Stage  # noqa: PLC0415 - while the nodes index
            from antiphon.runtime.loop import run  # noqa: PLC0415 - as above

            stage = Stage(fleet, home, option, timing, log_file)
            run(stage.run([query] if query is not None else QUESTIONS, once=once, is_json=output == "json"))
        finally:
            fleet.stop()
