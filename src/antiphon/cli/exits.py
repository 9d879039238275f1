"""Exit codes: what a script can tell from a command's end, and what a person is told.

| code | means |
|---|---|
| 0 | done; of a search: answered, and sufficient |
| 1 | something here or on the answering side failed |
| 2 | usage: an option, a question, a setting or content that has no meaning |
| 3 | a partial answer below `--min-coverage`, or without a `--required` node |
| 4 | nobody answered: no master, no nodes, or none of them in time |
| 5 | the deadline passed before there was any answer |
| 6 | another Antiphon serves this data directory already |
| 7 | no connection to a NATS server |
| 8 | not let in: no credential, one that is refused, or no right to this |
| 9 | a saga was undone, or abandoned |
| 10 | a saga is parked: a person has to decide |
| 130 | interrupted by Ctrl-C |
| 141 | whoever read the output has gone |
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from antiphon.errors import AntiphonError
    from antiphon.messages.saga_desk import SagaView
    from antiphon.messages.search import SearchAnswer


class Exit(IntEnum):
    """What a command ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    PARTIAL = 3
    NOBODY = 4
    DEADLINE = 5
    RUNNING = 6
    NO_CONNECTION = 7
    NOT_LET_IN = 8
    UNDONE = 9
    PARKED = 10
    INTERRUPTED = 130
    PIPE_CLOSED = 141


def of_error(error: AntiphonError) -> Exit:
    """Return the exit code of a typed error."""
    from antiphon import errors  # noqa: PLC0415 - only when there is one

    table = (
        (errors.NoResponders, Exit.NOBODY),
        (errors.OutOfBudget, Exit.DEADLINE),
        (errors.NotConnected, Exit.NO_CONNECTION),
        (errors.AlreadyRunning, Exit.RUNNING),
        (errors.NotAuthenticated, Exit.NOT_LET_IN),
        (errors.NotAllowed, Exit.NOT_LET_IN),
        (errors.SagaUndone, Exit.UNDONE),
        (errors.RequestError, Exit.USAGE),
        (errors.InvalidSetting, Exit.USAGE),
        (errors.ContentUnreadable, Exit.USAGE),
    )
    return next((code for kind, code in table if isinstance(error, kind)), Exit.FAILED)


def of_answer(answer: SearchAnswer) -> Exit:
    """Return the exit code of an answer; a fallback that answered for silent nodes counts as an answer."""
    if not answer.coverage.answered and not answer.hits:
        return Exit.NOBODY
    return Exit.DONE if answer.sufficient else Exit.PARTIAL


def of_saga(view: SagaView) -> Exit:
    """Return the exit code of a saga that was waited for."""
    codes = {"completed": Exit.DONE, "compensated": Exit.UNDONE, "abandoned": Exit.UNDONE, "parked": Exit.PARKED}
    return codes.get(view.state, Exit.DONE)


HINTS = {
    "no_responders": "no master listens there: `antiphon up` starts one, or `antiphon run master` beside a NATS server",
    "out_of_budget": "give it more time with --deadline MS, or see `antiphon node ls`",
    "not_connected": "is the server up? `antiphon up` starts one here; `--nats URL` names another",
    "unknown_saga": "`antiphon saga ls` lists the sagas that you may see",
    "unknown_node": "`antiphon node ls` lists the nodes",
    "not_authenticated": "`antiphon doctor` says more; `antiphon whoami` whom the masters take you for",
    "not_allowed": "`antiphon whoami` says whom the masters take you for; an operator can change what he may",
    "cursor_expired": "ask the question again",
    "overloaded": "try again in a moment",
    "invalid_query": "docs/sql.md has the tables, the views and an example for each",
    "record_unwritable": "the recorder has just started, or its disk is full: `antiphon monitor` says more",
    "internal": "the log of the answering side has the details",
    "handler_failed": "the node's log has the details",
}
"""Wire code of an error -> what a person can do; where the error's own text does not say it already."""
