"""`antiphon doctor`: the checks one after the other, and how they are shown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from antiphon.cli import say
from antiphon.cli.exits import Exit
from antiphon.cli.identity import checks
from antiphon.cli.identity.checks import Finding
from antiphon.cli.options import Connection
from antiphon.cli.safe import json_text, line
from antiphon.client import Client
from antiphon.errors import AntiphonError
from antiphon.runtime.loop import run

STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


def examine(at: Connection, output: str) -> int:
    """Check everything, and say what to do."""
    findings = run(_examined(at))
    _show(findings, output)
    failed = [one.check for one in findings if one.status == "failed"]
    say(f"to be mended: {', '.join(failed)}" if failed else "nothing is wrong")
    return Exit.FAILED if failed else Exit.DONE


async def _examined(at: Connection) -> list[Finding]:
    found = [*checks.files(at.home()), checks.disk(at.home())]
    try:
        async with Client(**at.place()) as client:
            found += await checks.connected(client, at)
    except AntiphonError as error:
        found.append(checks.not_connected(error))
    return found


def _show(findings: Sequence[Finding], output: str) -> None:
    if output == "json":
        import json  # noqa: PLC0415 - for this form only

        print(json_text(json.dumps([asdict(one) for one in findings])))
    elif sys.stdout.isatty():
        _table(findings)
    else:
        for one in findings:
            print("\t".join(filter(None, (one.status, one.check, line(one.says), line(one.advice)))))
    sys.stdout.flush()


def _table(findings: Sequence[Finding]) -> None:
    from rich.console import Console  # noqa: PLC0415 - for people only
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table.grid(padding=(0, 2, 0, 0))
    for one in findings:
        words = Text.assemble(line(one.says), (f"\n{line(one.advice)}" if one.advice else "", "bold"))
        table.add_row(Text(one.status, STYLES[one.status]), Text(one.check), words)
    Console(highlight=False).print(table)
