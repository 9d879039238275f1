"""The command line: one file a command in `commands/`, found by itself; here is what all of them share.

Data goes to stdout and nothing else does; what is said about it, logs and errors go to stderr. A typed error is one
line, never a traceback. `exits.py` has the exit codes.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from cyclopts import App, CycloptsError, Parameter

from antiphon.cli import commands
from antiphon.cli.exits import Exit

EPILOGUE = (
    "Start with `antiphon demo`. Exit codes: 0 done, 1 failed, 2 usage, 3 partial, 4 nobody answered, 5 deadline, "
    "6 already running, 7 no connection, 8 not let in, 9 undone, 10 parked."
)

CANNOT_WRITE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF})

__all__ = ["Exit", "app", "main", "run"]


def app() -> App:
    """Return the whole command line; each module of `commands` brings its `command`."""
    whole = App(
        name="antiphon",
        help="One question, many systems, one ranked answer: federated search over NATS.",
        help_epilogue=EPILOGUE,
        version=_version,
        help_format="plaintext",
        default_parameter=Parameter(negative=(), show_env_var=False, show_default=_default),
        suppress_keyboard_interrupt=False,
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
    )
    for command in commands.catalogue():
        whole.command(command)
    return whole


def main() -> None:
    """Run the command line of this process and end it."""
    _open_closed_streams()
    with suppress(AttributeError):  # a stream that a program has put in the place of stdout
        cast("Any", sys.stdout).reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run one command and return its exit code; only a bug of ours raises."""
    try:
        code = _called(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at its end, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        say(f"antiphon: output: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    return code


def _open_closed_streams() -> None:
    """Open what the caller has closed (`>&-`), or the first socket would become our stdout.

    A closed stdout is opened for reading: writing data to it fails as it should, and is told by the exit code.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(
                os.devnull, os.O_RDONLY if name == "stdout" else os.O_RDWR
            )  # the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8"))


def _called(words: Sequence[str]) -> int:
    try:
        result = app()(list(words))
    except CycloptsError as error:
        say(f"antiphon: usage: {error}\nantiphon: `antiphon --help` and `antiphon COMMAND --help` tell how")
        return Exit.USAGE
    except Exception as error:
        # the edge of the process: a typed error is told to a person, anything else is a bug and stays loud
        if not _is_ours(error):
            raise
        return told(cast("Any", error))
    return result if isinstance(result, int) else Exit.DONE


def told(error: Any) -> int:
    """Say a typed error and what to do about it on stderr, and return its exit code."""
    from antiphon.cli import exits, safe  # noqa: PLC0415 - only when there is one

    first, *more = error.text.splitlines() or [""]
    say(f"antiphon: {error.code}: {safe.line(first)}")
    for text in more:
        say(f"antiphon:   {safe.line(text)}")
    hint = exits.HINTS.get(error.code, "")
    if error.retry_after_ms:
        hint = f"try again in {max(1, round(error.retry_after_ms / 1_000))} s"
    if hint and not any(one in error.text for one in ("antiphon up", *hint.split("`")[1:2])):
        say(f"antiphon: {hint}")
    return exits.of_error(error)


def say(text: str) -> None:
    """Write a line for people to stderr."""
    with suppress(OSError):  # nobody there to read it
        print(text, file=sys.stderr, flush=True)


def _is_ours(error: Exception) -> bool:
    errors = sys.modules.get("antiphon.errors")
    return errors is not None and isinstance(error, errors.AntiphonError)


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - 40 ms

    return version("antiphon")


def _default(value: Any) -> Any:
    """Show a default that says something; `False`, nothing and zero say only that the option is not given."""
    return str(value) if value else None
