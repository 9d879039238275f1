"""What the verbs of `antiphon node` share: a client for one question, and a person's yes."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, TypeVar

from cyclopts import Parameter

from antiphon.cli.options import Connection
from antiphon.client import Client
from antiphon.runtime.loop import run

T = TypeVar("T")

Output = Annotated[Literal["table", "json"], Parameter(name=["--output", "-o"])]


def asked(at: Connection, ask: Callable[[Client], Awaitable[T]]) -> T:
    """Return what a connected client is answered."""
    at.configure_logs("error")

    async def asking() -> T:
        async with Client(**at.place()) as client:
            return await ask(client)

    return run(asking())


def is_confirmed(question: str, *, yes: bool) -> bool:
    """Whether a person at a terminal says yes; where there is none, the command itself is the word."""
    if yes or not sys.stdin.isatty():
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
