"""What `antiphon sql` does: one statement, or one after the other from a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module

from antiphon.cli import say, told
from antiphon.cli.options import Connection
from antiphon.cli.record.asking import tables
from antiphon.cli.record.writing import write
from antiphon.errors import AntiphonError, InvalidQuery, QueryLimit

PROMPT = "antiphon> "
CONTINUED = "     ...> "


def ask(at: Connection, query: str | None, output: str, *, rows_max: int, history: bool) -> int:
    """Answer one statement, or those that come from stdin until it ends; return the exit code of the last."""
    if query is not None:
        _answer(at, query, output, rows_max=rows_max, history=history)
        return 0
    code, is_person = 0, sys.stdin.isatty()
    for statement in _typed() if is_person else _piped():
        try:
            _answer(at, statement, output, rows_max=rows_max, history=history)
            code = 0
        except (InvalidQuery, QueryLimit) as error:
            code = told(error)
        except AntiphonError as error:
            if not is_person:
                raise
            code = told(error)  # a person may try again
    return code


def _answer(at: Connection, query: str, output: str, *, rows_max: int, history: bool) -> None:
    for table in tables(at, [query], rows_max=rows_max, history=history):
        write(table, output)


def _piped() -> Iterator[str]:
    """Yield statements from stdin; each ends with a semicolon at the end of a line."""
    waiting: list[str] = []
    for read in sys.stdin:
        if read.strip():
            waiting.append(read)
        if waiting and read.rstrip().endswith(";"):
            yield "".join(waiting)
            waiting.clear()
    if waiting:
        yield "".join(waiting)


def _typed() -> Iterator[str]:
    """Yield statements that a person types, with the keys of a line editor; Ctrl-C gives up what is typed so far."""
    with suppress(ImportError):  # not everywhere; lines are typed without it then
        import_module("readline")  # input() edits lines with it
    say("a statement ends with ; and Ctrl-D ends this; DESCRIBE requests; shows a table's columns")
    waiting: list[str] = []
    while True:
        try:
            read = _line(CONTINUED if waiting else PROMPT)
        except KeyboardInterrupt:
            waiting.clear()
            print()
            continue
        except EOFError:
            print()
            return
        if read.strip():
            waiting.append(f"{read}\n")
        if waiting and read.rstrip().endswith(";"):
            yield "".join(waiting)
            waiting.clear()


def _line(prompt: str) -> str:
    """Return the next line; what asks for it is no data, so it stays out of a stdout that is kept."""
    if sys.stdout.isatty():
        return input(prompt)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return input()
