"""What `antiphon stats export` and `antiphon stats forget` do: rows as files, and a caller out of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from antiphon.cli import say
from antiphon.cli.exits import Exit
from antiphon.cli.nodes.asking import asked, is_confirmed
from antiphon.cli.options import Connection, listed
from antiphon.cli.record.asking import snapshot_of
from antiphon.errors import InvalidSetting
from antiphon.subjects import token


def export(at: Connection, folder: Path, only: Sequence[str], since: str | None, form: str) -> int:
    """Write tables into a folder, and a line for each with its rows."""
    from antiphon.cli.duration import parse  # noqa: PLC0415 - not for --help
    from antiphon.decide.record_tables import TABLES  # noqa: PLC0415 - as above
    from antiphon.stats import reading  # noqa: PLC0415 - as above

    names = list(listed(tuple(only)) or TABLES)
    strange = [name for name in names if name not in TABLES]
    if strange:
        raise InvalidSetting(f"--table {strange[0]!r}: there are {', '.join(TABLES)}")
    place = snapshot_of(at)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(f"{folder}: {error.strerror}") from error
    written = reading.export(place, folder, names, form, parse(since, "--since") if since else 0)
    for name, count in written.items():
        print(f"{name}\t{count}\t{folder / f'{name}.{form}'}")
    return Exit.DONE


def forget(at: Connection, caller: str, *, yes: bool) -> int:
    """Have a caller forgotten, and say what each recorder has done."""
    token(caller)
    if not is_confirmed(f"take {caller} out of the record, for good?", yes=yes):
        return Exit.FAILED
    for done in asked(at, lambda client: client.forget(caller)):
        print(f"{done.recorder}\t{done.rows}\t{done.files}")
        say(f"{done.recorder}: {done.rows} rows named {caller} and do no more; {done.files} sealed files written anew")
    return Exit.DONE
