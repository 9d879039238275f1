"""The conversation of analysts with a recorder: statements of SQL and what they find; of operators: forget somebody."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, JsonValue, StringConstraints

from antiphon.messages.base import Count, Kind, Label, Message, Name, Request, Route
from antiphon.subjects import Template

STATEMENT_MAX: Final = 8_192
STATEMENTS_MAX: Final = 16
ROWS_MAX: Final = 10_000
COLUMNS_MAX: Final = 256
QUEUE: Final = "stats"

Statement = Annotated[str, StringConstraints(min_length=1, max_length=STATEMENT_MAX)]


class StatsTable(Message):
    """What one statement found."""

    size_max: ClassVar[int] = 1024 * 1024
    columns: Annotated[tuple[Label, ...], Field(max_length=COLUMNS_MAX)]
    types: Annotated[tuple[Label, ...], Field(max_length=COLUMNS_MAX)] = ()
    rows: Annotated[tuple[tuple[JsonValue, ...], ...], Field(max_length=ROWS_MAX)] = Field(
        default=(), description="in the format json; times are UTC"
    )
    text: str | None = Field(default=None, description="in the formats ndjson and csv")
    count: Count = 0
    is_cut: bool = Field(default=False, description="there are more rows, or they would not fit into an answer")


class StatsAnswer(Message):
    """What the statements found, one table each."""

    size_max: ClassVar[int] = 1024 * 1024
    tables: Annotated[tuple[StatsTable, ...], Field(max_length=STATEMENTS_MAX)]
    as_of_ms: Count = Field(description="of when the rows are, wall clock of the recorder, UTC")
    took_ms: Count = 0
    recorder: Name


class StatsQuery(Request[StatsAnswer]):
    """Ask the record of the last day, and its roll-ups; each statement reads and does nothing else (docs/sql.md)."""

    route = Route(
        Template("stats.query.<caller>"), sent_by=(Kind.ANALYST, Kind.OPERATOR), read_by=(Kind.MASTER,), queue=QUEUE
    )
    size_max: ClassVar[int] = 256 * 1024

    statements: Annotated[tuple[Statement, ...], Field(min_length=1, max_length=STATEMENTS_MAX)]
    rows_max: int = Field(default=1_000, ge=1, le=ROWS_MAX, description="of each statement")
    format: Literal["json", "ndjson", "csv"] = "json"


class StatsForgotten(Message):
    """What was taken out of the record."""

    rows: Count = Field(description="rows that named the caller and do no more")
    files: Count = Field(default=0, description="sealed files that were written anew")
    recorder: Name


class StatsForget(Request[StatsForgotten]):
    """Take a caller's name and the text of his questions out of the record, of every recorder that hears this."""

    route = Route(Template("stats.forget.<caller>"), sent_by=(Kind.OPERATOR,), read_by=(Kind.MASTER,))

    who: Name
