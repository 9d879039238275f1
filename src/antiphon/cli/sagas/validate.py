"""`antiphon saga validate FILE`: what is wrong with a saga, by itself and with the nodes that are there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from antiphon.cli import say
from antiphon.cli.exits import Exit
from antiphon.cli.nodes.asking import Output
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.cli.sagas import given
from antiphon.client import Client
from antiphon.decide.saga_plan import verdict
from antiphon.errors import AntiphonError
from antiphon.messages.saga_desk import SagaVerdict
from antiphon.runtime.loop import run
from antiphon.saga import Saga, read

WITH = Group("With what", sort_key=10)


def validate(
    file: Path,
    /,
    *,
    input: Annotated[tuple[str, ...], Parameter(group=WITH)] = (),  # noqa: A002 - the option's name
    input_file: Annotated[str | None, Parameter(group=WITH, allow_leading_hyphen=True)] = None,
    output: Output = "table",
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Say what is wrong with a saga, without beginning it: by itself, and with the fleet where a master is reached.

    Exit codes: 0 nothing is wrong, 2 something is; that no master could be asked is said on stderr only.

    Args:
        file: a .toml or .json file.
        input: name=value; with an input, references to it are checked as well.
        input_file: all of it, a .json or .toml file, or - for JSON on stdin.
        output: how to write what was found to stdout.
        at: where the server is.
    """
    at.configure_logs("error")
    definition = read(file)
    typed = given.read(input, input_file) if input or input_file is not None else None

    async def validating() -> SagaVerdict:
        async with Client(**at.place()) as client:
            return await client.validate(Saga.of(definition), typed)

    try:
        found, is_reached = run(validating()), True
    except AntiphonError as error:
        found, is_reached = verdict(definition, typed), False
        say(f"checked by itself only, not against the nodes: {error.code}: {line(error.text)}")
    _written(found, output, is_reached=is_reached)
    return Exit.USAGE if found.problems else Exit.DONE


def _written(found: SagaVerdict, output: str, *, is_reached: bool) -> None:
    if output == "json":
        whole = json.loads(found.model_dump_json(exclude_none=True)) | {"is_checked_by_master": is_reached}
        print(json_text(json.dumps(whole, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None)))
        return
    for one in found.problems:
        print("\t".join((one.step or "-", one.code, line(one.text))))
    for number, wave in enumerate(found.waves, 1):
        print(f"{number}\t{', '.join(wave)}")
    sys.stdout.flush()
    count = len(found.problems)
    say(f"{count} problem{'' if count == 1 else 's'}" if count else "nothing is wrong with it")
