"""Every stream, bucket and consumer that Antiphon keeps on the server, with its limits and its only writer.

Creating them is idempotent. Rollup headers, deletes and purges are off: with rollup on, one permitted key is enough
to wipe a bucket (nats-facts.md, hole 2).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from antiphon.bus.protocol import Bucket, CounterStream, JournalStream
from antiphon.messages.jobs import JOBS, REPORTS
from antiphon.messages.saga_history import OUTCOMES, SAGAS, SUBJECTS, TIMERS

REGISTRY: Final = Bucket(
    name="antiphon-registry",
    description="one entry an instance of a node; written by masters, watched by masters",
    value_bytes_max=64 * 1024,
    bytes_max=64 * 1024 * 1024,
)


def registry_of(prefix: str) -> Bucket:
    """Return the registry's bucket of one fabric; several may share a server."""
    return replace(REGISTRY, name=f"{prefix}-registry")


BREAKERS: Final = Bucket(
    name="antiphon-breakers",
    description="one entry a breaker that is not closed; written by masters, watched by masters",
    value_bytes_max=4 * 1024,
    bytes_max=16 * 1024 * 1024,
)


def breakers_of(prefix: str) -> Bucket:
    """Return the breakers' bucket of one fabric."""
    return replace(BREAKERS, name=f"{prefix}-breakers")


ALERTS: Final = Bucket(
    name="antiphon-alerts",
    description="one entry an alert that is open; written by masters, watched by masters",
    value_bytes_max=4 * 1024,
    bytes_max=16 * 1024 * 1024,
)


def alerts_of(prefix: str) -> Bucket:
    """Return the alerts' bucket of one fabric."""
    return replace(ALERTS, name=f"{prefix}-alerts")


IDENTITY: Final = Bucket(
    name="antiphon-identity",
    description="identities, their credentials and the policy; written by masters, watched by masters",
    value_bytes_max=64 * 1024,
    bytes_max=64 * 1024 * 1024,
)


def identity_of(prefix: str) -> Bucket:
    """Return the identities' bucket of one fabric."""
    return replace(IDENTITY, name=f"{prefix}-identity")


def counters_of(prefix: str) -> CounterStream:
    """Return the counters of one fabric: one subject a caller and window, kept for two windows."""
    return CounterStream(f"{prefix}-counters", f"{prefix}.v1.limit.count.>", keep_ms=180_000, counters_max=200_000)


JOB_KEEP_MS: Final = 24 * 3_600_000
"""How long a job can be asked for; `UnknownJob` says so."""


def jobs_of(prefix: str) -> JournalStream:
    """Return what masters keep of the jobs of one fabric: their records, a day; nobody else reaches it.

    Of each subject the last message is enough, here and in the reports, so that a reader needs one question of each and
    progress costs no room. A job's state is a fold over both (`decide/job.py`).
    """
    return JournalStream(
        name=f"{prefix}-{JOBS}",
        subjects=(f"{prefix}.v1.job.*.*",),
        description="jobs: their records by masters",
        keep_ms=JOB_KEEP_MS,
        bytes_max=512 * 1024 * 1024,
        message_bytes_max=1024 * 1024,
        per_subject_max=1,
        is_masters=True,
    )


def reports_of(prefix: str) -> JournalStream:
    """Return what nodes have reported of the jobs of one fabric, a day; each writes on subjects of its own.

    It is the one stream where nodes can write, so it acknowledges nothing: the server sends an acknowledgement wherever
    a writer aims it, past all permissions. A message holds a report and its badge, so that nobody fills it with few.
    """
    return JournalStream(
        name=f"{prefix}-{REPORTS}",
        subjects=(f"{prefix}.v1.job.*.*.*",),
        description="jobs: reports by nodes",
        keep_ms=JOB_KEEP_MS,
        bytes_max=512 * 1024 * 1024,
        message_bytes_max=80 * 1024,
        per_subject_max=1,
        no_ack=True,
    )


SAGA_BYTES_MAX: Final = 1024 * 1024 * 1024
"""The server sets so much of its disk aside for each stream, and makes none where there is not so much."""


def sagas_of(prefix: str, bytes_max: int = SAGA_BYTES_MAX) -> JournalStream:
    """Return the histories of sagas (`messages/saga_history.py`), one message a subject.

    Nobody but masters reaches this and the next two: JetStream's own answers go to whatever subject an asker names, so
    whoever could write or read any stream beside them could put something into a history.
    """
    return JournalStream(
        name=f"{prefix}-sagas",
        subjects=tuple(f"{prefix}.v1.{one}" for one in SUBJECTS[SAGAS]),
        description="sagas: starts, commands, orders, ends",
        keep_ms=0,
        bytes_max=bytes_max,
        message_bytes_max=1024 * 1024,
        per_subject_max=1,
        is_masters=True,
        refuses_when_full=True,
    )


def outcomes_of(prefix: str, bytes_max: int = SAGA_BYTES_MAX) -> JournalStream:
    """Return what became of commands: for each the first that is said stays."""
    return JournalStream(
        name=f"{prefix}-outcomes",
        subjects=tuple(f"{prefix}.v1.{one}" for one in SUBJECTS[OUTCOMES]),
        description="sagas: what became of each command",
        keep_ms=0,
        bytes_max=bytes_max,
        message_bytes_max=1024 * 1024,
        per_subject_max=1,
        is_masters=True,
        refuses_when_full=True,
        keeps_first=True,
    )


def timers_of(prefix: str) -> JournalStream:
    """Return the timers of sagas; a stream of their own, for one with schedules may also be rolled up."""
    return JournalStream(
        name=f"{prefix}-timers",
        subjects=tuple(f"{prefix}.v1.{one}" for one in SUBJECTS[TIMERS]),
        description="sagas: when each is to be looked at again",
        keep_ms=0,
        bytes_max=256 * 1024 * 1024,
        message_bytes_max=4 * 1024,
        per_subject_max=1,
        is_masters=True,
        has_timers=True,
    )


def facts_of(prefix: str) -> JournalStream:
    """Return what is kept of the facts of one fabric: batches of masters, until every recorder has had time to read.

    It stands where only masters come: what a node or a client could write there would be believed.
    """
    return JournalStream(
        name=f"{prefix}-facts",
        subjects=(f"{prefix}.v1.record.>",),
        description="what happened, in batches; written by masters, read by recorders",
        keep_ms=7 * 24 * 3_600_000,
        bytes_max=2 * 1024 * 1024 * 1024,
        message_bytes_max=1024 * 1024,
        per_subject_max=-1,
        is_masters=True,
    )
