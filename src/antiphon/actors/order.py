"""What a job is to do, and what every job of one master stands on."""

from __future__ import annotations

from dataclasses import dataclass

from antiphon.bus.bus import Bus
from antiphon.bus.protocol import Journal
from antiphon.decide.dispatch import Dispatch
from antiphon.decide.policy import Principal
from antiphon.decide.registry import RegistryView
from antiphon.decide.retry import Budget, RetryBounds
from antiphon.decide.targets import Targets
from antiphon.messages.actions import ActionRun
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View


@dataclass(frozen=True, slots=True)
class JobBounds:
    """How long what may take, in milliseconds."""

    accept_ms: int = 5_000
    """An instance has so long to say that it works on it."""
    grace_ms: int = 1_000
    """The report of its end has so long to arrive."""
    gone_ms: int = 10_000
    """One that works on it, is not heard so long and does not listen either has gone away."""
    cancel_ms: int = 2_000
    """Handlers that were cut off have so long to say so."""
    record_ms: int = 250
    """How often a job that moves is written down."""
    defer_ms: int = 20
    """A job whose caller waits for its end is written down after so long, or with its end."""


@dataclass(frozen=True, slots=True)
class JobGround:
    """What every job of one master stands on."""

    bus: Bus
    registry: View[RegistryView]
    dispatch: Dispatch
    records: Journal
    facts: Facts
    bounds: JobBounds
    retries: RetryBounds
    retry_budget: Budget


@dataclass(frozen=True, slots=True)
class Order:
    """What a job is to do.

    Attributes:
        job: its id.
        request: the request's.
        ask: what was asked.
        who: who counts.
        targets: on which nodes.
    """

    job: str
    request: str
    ask: ActionRun
    who: Principal
    targets: Targets
