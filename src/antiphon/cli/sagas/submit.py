"""`antiphon saga submit FILE`: begin a saga, and watch it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from antiphon.cli import duration, say
from antiphon.cli.options import Connection
from antiphon.cli.sagas import given
from antiphon.cli.sagas.watch import followed
from antiphon.client import Client
from antiphon.errors import InvalidSetting
from antiphon.messages.saga_desk import START_AT_MS_MAX
from antiphon.runtime.loop import run
from antiphon.saga import Saga

WITH = Group("With what", sort_key=10)
WHEN = Group("When", sort_key=20)


def submit(
    file: Path,
    /,
    *,
    input: Annotated[tuple[str, ...], Parameter(group=WITH)] = (),  # noqa: A002 - the option's name
    input_file: Annotated[str | None, Parameter(group=WITH, allow_leading_hyphen=True)] = None,
    id: Annotated[str | None, Parameter(group=WITH)] = None,  # noqa: A002 - the option's name
    delay: Annotated[str | None, Parameter(group=WHEN)] = None,
    start_at: Annotated[str | None, Parameter(name="--at", group=WHEN)] = None,
    wait: Annotated[bool | None, Parameter(negative="--no-wait")] = None,
    output: Annotated[Literal["table", "json", "jsonl"], Parameter(name=["--output", "-o"])] = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Begin a saga that a file says, and watch it until it has ended or is parked.

    Exit codes: 0 completed, or taken in with --no-wait; 9 undone or abandoned, 10 parked; 2 usage, or nodes and actions
    that are not there; 4 no master, 7 no connection, 8 not allowed, 130 ended by Ctrl-C: then the saga goes on.

    Args:
        file: a .toml or .json file.
        input: name=value, what {{input.NAME}} refers to; JSON where the value is any, else text.
        input_file: all of it, a .json or .toml file, or - for JSON on stdin.
        id: the same id again is the same saga, so a script may submit twice; drawn where not given.
        delay: begin so much later, such as 90s, 10min or 12h.
        start_at: begin no earlier than this, such as 2026-12-24T18:00; this machine's time unless it says a zone.
        wait: watch it; --no-wait returns once it is stored, with its id on stdout, as a delayed one does unless told.
        output: how to write how it ended to stdout; jsonl writes it each time it has moved.
        at: where the server is.
    """
    at.configure_logs("error")
    saga = Saga.load(file)
    typed = given.read(input, input_file)
    delay_ms = 0 if delay is None else duration.parse(delay, "--delay")
    start_at_ms = 0 if start_at is None else _time_ms(start_at)
    # a mistake is told before anybody is asked
    saga.submission(typed, id=id, delay_ms=delay_ms, start_at_ms=start_at_ms)
    is_watched = wait if wait is not None else not (delay_ms or start_at_ms)

    async def submitting() -> int:
        async with Client(**at.place()) as client:
            begun = await client.submit(saga, typed, id=id, delay_ms=delay_ms, start_at_ms=start_at_ms)
            if is_watched:
                say(f"saga {begun.id}")
                return await followed(begun, output)
            print(begun.id, flush=True)
            say(f"`antiphon saga watch {begun.id}` follows it")
            return 0

    return run(submitting())


def _time_ms(text: str) -> int:
    try:
        found = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):  # the latter of a time that no zone can be counted from
        raise InvalidSetting(f"--at {text[:40]!r}: write a time such as 2026-12-24T18:00") from None
    at_ms = max(1, int(found.timestamp() * 1_000))
    if at_ms > START_AT_MS_MAX:
        raise InvalidSetting(f"--at {text[:40]!r}: no saga begins after the year 2100")
    return at_ms
