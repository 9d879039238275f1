"""A job as its record says it is: a fold over what its master and its nodes have written, and what a reader is shown.

Nothing else is needed to answer for a job, so any master can, also when the one that ran it is gone. Of each writer the
last message is there: the master's is the job as it knew it, an instance's what it reported last. What the master has
sealed counts; of a node that it had not sealed yet, what the node says. A job whose master is gone, or that should have
ended long ago, has ended: who had not reported is `no_answer`, who was not asked is `skipped` (`lost`).

A line is as new as the message that says it, by the sequence of its stream. There are two, the masters' and the nodes',
whose numbers do not compare, so readers ask with one of each (`Seen`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from antiphon.decide.aggregate import Aggregates
from antiphon.decide.rollout import FINAL
from antiphon.messages.actions import JobCounts, JobEnd, JobLine, JobTotal, JobView, RunState
from antiphon.messages.jobs import JobRecord, JobReported
from antiphon.subjects import is_master

GRACE_MS: Final = 10_000
"""Between the deadline by its master's wall clock and its being taken for lost by another's: clocks differ."""
ROOM: Final = 800_000
"""Bytes of lines in one view; the rest comes with the next."""
LOST: Final = "lost"


@dataclass(frozen=True, slots=True)
class Written:
    """One message of a job's record.

    Attributes:
        sequence: the stream's.
        writer: who has written it, by its subject.
        instance: of a report, which instance has, by its subject.
        message: what.
    """

    sequence: int
    writer: str
    instance: str | None
    message: JobRecord | JobReported


@dataclass(frozen=True, slots=True)
class Seen:
    """How far a job's record has been read: its master's record, and the last report; each stream counts for itself."""

    recorded: int = 0
    reported: int = 0

    def is_behind(self, other: Seen) -> bool:
        """Whether the other has seen something that this has not."""
        return self.recorded < other.recorded or self.reported < other.reported

    def joined(self, other: Seen) -> Seen:
        """Return what the two have seen together."""
        return Seen(max(self.recorded, other.recorded), max(self.reported, other.reported))


@dataclass(frozen=True, slots=True)
class Job:
    """What is known of a job."""

    job: str
    master: str
    record: JobRecord
    sequence: int
    """Of its master's record."""
    reports: dict[tuple[str, str], tuple[int, JobReported]] = field(
        default_factory=dict[tuple[str, str], tuple[int, JobReported]]
    )
    """The last of each instance of a node of this job, with its sequence."""

    def is_overdue(self, wall_ms: int) -> bool:
        """Whether it should have ended long ago."""
        return wall_ms > self.record.started_ms + self.record.deadline_ms + GRACE_MS


@dataclass(frozen=True, slots=True)
class Shown:
    """A line as it is shown, and since when it is so: since a report, or since the master's record."""

    sequence: int
    line: JobLine
    is_reported: bool = False

    def is_new(self, after: Seen) -> bool:
        """Whether a reader who has seen so much has not seen this."""
        return self.sequence > (after.reported if self.is_reported else after.recorded)


def job_id(caller: str, request: str) -> str:
    """Return the id of the job that a request begins: the same again is the same, and nobody else's request is."""
    return blake2b(f"{caller}/{request}".encode(), digest_size=12).hexdigest()


def fold(job: str, written: Iterable[Written]) -> Job | None:
    """Return what has been written of a job; None where no master has.

    Only a master's record makes a job, of several the one that began first; a report of a node that is not one of its
    targets is nobody's.
    """
    every = sorted(written, key=lambda one: one.sequence)
    records = [one for one in every if isinstance(one.message, JobRecord) and is_master(one.writer)]
    first = min(records, key=lambda one: (_record(one).started_ms, one.writer), default=None)
    if first is None:
        return None
    record = _record(first)
    targets = {line.node for line in record.lines}
    reports = {
        (one.writer, one.instance): (one.sequence, one.message)
        for one in every
        if isinstance(one.message, JobReported) and one.instance is not None and one.writer in targets
    }
    return Job(job, first.writer, record, first.sequence, reports)


def newest(job: Job) -> Seen:
    """Return how far whoever has read all of a job has read."""
    return Seen(job.sequence, max((sequence for sequence, _ in job.reports.values()), default=0))


def lines(job: Job, *, is_lost: bool) -> list[Shown]:
    """Return a line for each target, in the order of the record."""
    return [_shown(job, line, is_lost=is_lost) for line in job.record.lines]


def view(job: Job, *, after: Seen, wall_ms: int, is_gone: bool) -> JobView:
    """Return a job as it stands, with the lines that are newer than `after`.

    Args:
        job: what has been written.
        after: what the reader has seen already; nothing shows everything.
        wall_ms: the wall clock.
        is_gone: whether the master that ran it is known to be gone.
    """
    record = job.record
    is_lost = record.end is None and (is_gone or job.is_overdue(wall_ms))
    shown = lines(job, is_lost=is_lost)
    # what has become of a lost job is written nowhere: its lines are shown again, however new
    new = [one for one in shown if one.is_new(after) or (is_lost and one.line.code == LOST)]
    told, last, is_more = _cut(new)
    seen = after.joined(last if is_more else newest(job))
    end = JobEnd.LOST if is_lost else record.end
    took_us = record.took_us if record.end is not None else max(0, wall_ms - record.started_ms) * 1_000
    every = [one.line for one in shown]
    return JobView(
        job=job.job,
        action=record.action,
        caller=record.caller,
        master=job.master,
        effect=record.effect,
        dry_run=record.dry_run,
        started_ms=record.started_ms,
        took_us=took_us,
        deadline_ms=record.deadline_ms,
        end=end,
        by=record.by,
        counts=counts(every),
        no_answer=tuple(line.node for line in every if line.state is RunState.NO_ANSWER),
        not_allowed=record.not_allowed,
        totals=record.totals if record.end is not None else _totals(job, every),
        lines=told,
        after=seen.reported,
        recorded=seen.recorded,
        is_more=is_more,
    )


def counts(every: Iterable[JobLine]) -> JobCounts:
    """Return how many nodes are how."""
    found = dict.fromkeys(map(str, RunState), 0)
    for line in every:
        found[str(line.state)] += 1
    return JobCounts(**found)


def _record(one: Written) -> JobRecord:
    assert isinstance(one.message, JobRecord), "it was asked for"
    return one.message


def _shown(job: Job, line: JobLine, *, is_lost: bool) -> Shown:
    found = _report(job, line)
    if line.state in FINAL:
        if found is None or line.state is not RunState.SUCCEEDED or line.result is not None:
            return Shown(job.sequence, line)
        _instance, sequence, report = found
        result = None if report.end is None else report.end.result
        return Shown(sequence, line.model_copy(update={"result": result}), is_reported=True)
    if found is not None:
        instance, sequence, report = found
        line = _reported(line, instance, report)
        if report.end is not None or not is_lost:
            return Shown(sequence, line, is_reported=True)
    if not is_lost:
        return Shown(job.sequence, line)
    state = RunState.SKIPPED if line.state is RunState.WAITING and not line.attempts else RunState.NO_ANSWER
    text = "the master that ran the job is gone"
    return Shown(job.sequence, line.model_copy(update={"state": state, "code": LOST, "text": text}))


def _report(job: Job, line: JobLine) -> tuple[str, int, JobReported] | None:
    """Return the last report about a line: of its instance, or of the one that its master had not written down yet."""
    if line.instance is not None and (line.node, line.instance) in job.reports:
        return line.instance, *job.reports[line.node, line.instance]
    if line.state in FINAL:
        return None
    of_node = [(instance, *report) for (node, instance), report in job.reports.items() if node == line.node]
    return max(of_node, key=lambda one: one[1], default=None)


def _reported(line: JobLine, instance: str, report: JobReported) -> JobLine:
    told: dict[str, object] = {
        "instance": instance,
        "done": report.done,
        "total": report.total,
        "text": report.text,
    }
    end = report.end
    if end is None:
        told["state"] = RunState.RUNNING
    else:
        state = RunState(end.state)
        told |= {"state": state, "code": end.code, "text": end.text, "result": end.result, "took_us": end.took_us}
    return line.model_copy(update=told | {"attempts": max(1, line.attempts)})


def _totals(job: Job, every: Iterable[JobLine]) -> tuple[JobTotal, ...]:
    aggregates = Aggregates(job.record.aggregates)
    for line in every:
        if line.state is RunState.SUCCEEDED:
            aggregates.add(line.result)
    return aggregates.totals()


def _cut(new: Sequence[Shown]) -> tuple[tuple[JobLine, ...], Seen, bool]:
    """Return what fits into one message, the record's lines first, how far it goes, and whether there are more.

    Lines of one message are never parted, for readers could not ask for the rest of them.
    """
    told: list[JobLine] = []
    room, last, seen = ROOM, (False, 0), Seen()
    for one in sorted(new, key=_age):
        size = len(one.line.model_dump_json(exclude_none=True))
        if size > room and told and _age(one) != last:
            return tuple(told), seen, True
        told.append(one.line)
        room -= size
        last = _age(one)
        seen = seen.joined(Seen(reported=one.sequence) if one.is_reported else Seen(recorded=one.sequence))
    return tuple(told), seen, False


def _age(one: Shown) -> tuple[bool, int]:
    return one.is_reported, one.sequence
