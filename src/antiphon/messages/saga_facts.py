"""What is told of sagas while they run; what is kept of them is in their histories."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from antiphon.messages.base import Count, Fact, Kind, Label, Name, Route
from antiphon.messages.facts import READERS
from antiphon.messages.saga_desk import SagaState
from antiphon.messages.saga_history import SagaCause, Steps
from antiphon.subjects import Template


class SagaTurn(StrEnum):
    """What happened to a saga."""

    STARTED = "started"
    PARKED = "parked"
    RESUMED = "resumed"
    ENDED = "ended"


class SagaMoved(Fact):
    """A saga has begun, was parked, goes on, or has ended."""

    route = Route(Template("fact.saga.moved.<writer>"), sent_by=(Kind.MASTER,), read_by=READERS)

    saga: Name
    name: Name
    caller: Name = Field(description="who counts: the principal, where a delegate has submitted for him")
    turn: SagaTurn
    state: SagaState
    at_ms: Count = Field(description="the broker's time, UTC")
    took_ms: Count = Field(default=0, description="since its start")
    step: Name | None = Field(default=None, description="at which it was parked, or which goes on")
    cause: SagaCause | None = Field(default=None, description="why it was undone")
    left: Steps = Field(default=(), description="steps that were or may have been done and are not undone")
    code: Label | None = None
    text: Label | None = None
