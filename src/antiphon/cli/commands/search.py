"""`antiphon search QUERY`: one question to all nodes, one ranked answer, and who gave none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from antiphon.cli.options import Connection, listed

if TYPE_CHECKING:
    from antiphon.messages.search import SearchAnswer

command = App(
    name="search",
    help="Ask all nodes one question and see one ranked answer.",
    usage="Usage: antiphon search [OPTIONS] QUERY",
)

Output = Literal["table", "json", "jsonl", "csv"]
NEEDS = Group("What must answer", sort_key=80)
STDIN_BYTES_MAX = 65_536
"""More than a question may have, so that a too long one is refused for what it is."""


@command.default
def search(
    *query: Annotated[str, Parameter(allow_leading_hyphen=True)],  # for the one hyphen of stdin
    limit: Annotated[int, Parameter(name=["--limit", "-n"], validator=Number(gte=1, lte=100))] = 10,
    nodes: tuple[str, ...] = (),
    output: Annotated[Output, Parameter(name=["--output", "-o"])] = "table",
    explain: bool = False,
    cursor: str | None = None,
    deadline: Annotated[int, Parameter(validator=Number(gte=1))] = 5_000,
    fusion: str | None = None,
    required: Annotated[tuple[str, ...], Parameter(group=NEEDS)] = (),
    optional: Annotated[tuple[str, ...], Parameter(group=NEEDS)] = (),
    min_coverage: Annotated[float, Parameter(group=NEEDS, validator=Number(gte=0, lte=1))] = 0.0,
    at: Connection = Connection(),  # noqa: B008 - frozen
) -> int:
    """Ask all nodes one question and see one ranked answer.

    Exit codes: 0 answered, 2 usage, 3 partial below --min-coverage or without a --required node, 4 nobody answered,
    5 no answer by the deadline, 7 no connection.

    Args:
        query: the question, in quotes or not; - reads it from stdin.
        limit: hits on a page, 1 to 100.
        nodes: ask only these, separated by commas; default: every node that can search.
        output: how to write the answer to stdout.
        explain: say of each hit how its score came about.
        cursor: show the page that a cursor stands for; each answer names the next one's.
        deadline: milliseconds to wait at most; what is there by then is the answer.
        fusion: how the nodes' lists are made one; default: the master's choice.
        required: nodes without which the answer is not sufficient.
        optional: nodes that do not count for --min-coverage.
        min_coverage: the share of nodes, 0 to 1, below which the answer is not sufficient.
        at: where the server is.
    """
    at.configure_logs("error")
    from antiphon.cli import exits, show  # noqa: PLC0415 - not for --help
    from antiphon.client import Client  # noqa: PLC0415 - as above
    from antiphon.runtime.loop import run  # noqa: PLC0415 - as above

    text = _question(query, cursor)

    async def ask() -> SearchAnswer:
        async with Client(**at.place()) as client:
            if cursor is not None:
                return await client.page(cursor, limit=limit, deadline_ms=deadline)
            return await client.search(
                text,
                limit=limit,
                nodes=listed(nodes),
                required=listed(required),
                optional=listed(optional),
                min_coverage=min_coverage,
                fusion=fusion,
                explain=explain,
                paged=True,
                deadline_ms=deadline,
            )

    answer = run(ask())
    show.answer(answer, output)
    return exits.of_answer(answer)


def _question(words: tuple[str, ...], cursor: str | None) -> str:
    from antiphon.errors import Malformed  # noqa: PLC0415 - not for --help

    if bool(words) == (cursor is not None):
        raise Malformed("give a question, or --cursor and no question")
    for word in words:
        if word.startswith("-") and word != "-" and " " not in word:
            raise Malformed(f"there is no option {word}")
    if words != ("-",):
        return " ".join(words)
    try:
        return sys.stdin.buffer.read(STDIN_BYTES_MAX).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"stdin is not UTF-8: byte {error.start}") from None
