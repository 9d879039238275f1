"""What somebody should know: told once when it begins, now and then while it lasts, and once when it is over."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from antiphon.messages.base import Count, Fact, Kind, Label, Message, Name, Route
from antiphon.messages.facts import READERS
from antiphon.subjects import Template

AlertId = Annotated[str, StringConstraints(min_length=1, max_length=130)]
Severity = Literal["info", "warning", "critical"]


class OpenAlert(Message):
    """Something that is wrong now."""

    id: AlertId = Field(description="the same from raising to clearing and for every master: node_down:blog")
    kind: Label = Field(
        description="node_down, breaker_open, coverage_below, error_rate, saga_parked, facts_dropped, recorder_..."
    )
    subject: Name = Field(description="the node or the saga; `search` for what is of all searches")
    severity: Severity
    value: float = Field(description="a measure between 0 and 1; 1 of what is only true or false")
    text: Label
    since_ms: Count = Field(description="wall clock of the master that saw it first, UTC")
    master: Name = Field(description="who tells it")


class AlertRaised(Fact):
    """Something is wrong; also the reminder while it lasts."""

    route = Route(Template("fact.alert.raised.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)

    at_ms: Count = Field(description="wall clock, UTC")
    alert: OpenAlert
    is_reminder: bool = False


class AlertCleared(Fact):
    """What was wrong is right again."""

    route = Route(Template("fact.alert.cleared.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)

    at_ms: Count = Field(description="wall clock, UTC")
    alert: OpenAlert = Field(description="as it was told or renewed last")
    kind: Label = Field(
        description="node_recovered, breaker_closed, coverage_restored, error_rate_normal, saga_goes_on"
    )
