"""What `antiphon sql` does: one statement, or one after the other from a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from antiphon.cli import say, told
from antiphon.cli.options import Connection
from antiphon.cli.record.asking import tables
from antiphon.cli.record.writing import write
from antiphon.errors import InvalidQuery, QueryLimit

PROMPT = "antiphon> "
CONTINUED = "     ...> "


def ask(at: Connection, query: str | None, output: str, *, rows_max: int, history: bool) -> int:
    """Answer one statement, or those that come from stdin until it ends; return the exit code of the last."""
    if query is not None:
        _answer(at, query, output, rows_max=rows_max, history=history)
        return 0
    code = 0
    for statement in _statements():
        try:
            _answer(at, statement, output, rows_max=rows_max, history=history)
            code = 0
        except (InvalidQuery, QueryLimit) as error:
            code = told(error)
    return code


def _answer(at: Connection, query: str, output: str, *, rows_max: int, history: bool) -> None:
    for table in tables(at, [query], rows_max=rows_max, history=history):
        write(table, output)


def _statements() -> Iterator[str]:
    """Yield statements from stdin; each ends with a semicolon at the end of a line."""
    is_person = sys.stdin.isatty()
    if is_person:
        say("a statement ends with ; and Ctrl-D ends this; DESCRIBE requests; shows a table's columns")
    waiting: list[str] = []
    while True:
        if is_person:
            sys.stderr.write(CONTINUED if waiting else PROMPT)
            sys.stderr.flush()
        read = sys.stdin.readline()
        if read.strip():
            waiting.append(read)
        if waiting and (not read or read.rstrip().endswith(";")):
            yield "".join(waiting)
            waiting.clear()
        if not read:
            return
