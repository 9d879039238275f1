"""What is written for the record: facts in batches, facts that were lost, and how a recorder is.

Masters keep their facts in the stream `facts`, many in one message, so that keeping them costs a search next to
nothing. Each fact is also told on its own subject as it happens; what counts for the record is what is kept.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, JsonValue

from antiphon.messages.base import Count, Fact, Kind, Label, Message, Name, Route
from antiphon.messages.facts import READERS
from antiphon.subjects import Template

FACTS: Final = "facts"
"""The stream, its name after `<prefix>-`."""
FACTS_MAX: Final = 1_000
"""Facts of one message."""
MASTERS = (Kind.MASTER,)


class KeptFact(Message):
    """One fact as it was told."""

    kind: Label = Field(description="the message's name, e.g. SearchFinished")
    fact: dict[str, JsonValue] = Field(description="as that message's schema says")


class FactsKept(Fact):
    """Some facts of one master, in the order in which they happened."""

    route = Route(Template("record.facts.<writer>"), sent_by=MASTERS, read_by=MASTERS, stream=FACTS)
    size_max: ClassVar[int] = 1024 * 1024

    session: Name = Field(description="of the master's process")
    number: Count = Field(description="of its messages, counted from 1")
    facts: Annotated[tuple[KeptFact, ...], Field(max_length=FACTS_MAX)]


class FactsDropped(Fact):
    """A master could not keep some facts: its buffer was full, or one was too large. They are not in the record."""

    route = Route(Template("fact.facts.dropped.<writer>"), sent_by=MASTERS, read_by=READERS)

    at_ms: Count = Field(description="wall clock, UTC")
    dropped: Count = Field(description="since this was told last")
    total: Count = Field(description="since the master has started")


class RecorderReported(Fact):
    """How a recorder is; told every second, and not kept."""

    route = Route(Template("fact.recorder.reported.<writer>"), sent_by=MASTERS, read_by=READERS)

    at_ms: Count = Field(description="wall clock, UTC")
    state: Literal["recording", "degraded", "stopped"] = Field(description="stopped: in order, it says no more")
    reason: Label = Field(default="", description="why it is degraded")
    lag: Count = Field(default=0, description="messages of its streams that it has not read yet")
    lag_ms: Count = Field(default=0, description="age of the last message that it has written")
    rows: Count = Field(default=0, description="written since it has started")
    dead: Count = Field(default=0, description="facts that could not be read, since it has started")
    gaps: Count = Field(default=0, description="stretches of its streams that it could not read, since it has started")
    snapshots: Count = Field(default=0, description="written since it has started")
    snapshots_ms: Count = Field(default=0, description="how long they have taken in all")
