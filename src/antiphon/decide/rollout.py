"""A job on its way over its nodes: who is asked next, who has fallen silent, when it stops, when it is over.

Sans-I/O: asks go out and reports come in through the caller, the time is an argument. A node is asked once; again only
where nothing has begun there (it was never delivered, it was refused before it began), or where doing it twice is the
same as once. Waves go one after the other, within one at most `parallel` nodes run. Enough failures stop it: who has
not been asked never is, who runs may end. A node whose time is over without a report has `no_answer`: it may have done
it.

One object holds one job and is changed by its methods only, as a gather is (docs/decisions/mutable-gather.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from antiphon.decide.targets import amount
from antiphon.errors import Cancelled, OutOfBudget
from antiphon.messages.actions import JobCounts, JobEnd, JobLine, RunPlan, RunState
from antiphon.messages.jobs import JobReported, RunEnd

NEVER: Final = 2**62
"""A time that does not come."""
FINAL: Final = frozenset(
    {RunState.SUCCEEDED, RunState.FAILED, RunState.NO_ANSWER, RunState.SKIPPED, RunState.CANCELLED}
)
NOBODY: Final = dict.fromkeys(RunState, 0)
CANARY_PERCENT: Final = 10
TEXT_MAX: Final = 200

Again = Callable[[int], int | None]
"""Called with the attempts so far where a node would fail now: when it may be asked again, in milliseconds, or None."""


@dataclass(frozen=True, slots=True)
class Course:
    """A plan, as it is for so many nodes.

    Attributes:
        waves: how many nodes each wave has; they add up to all.
        parallel: nodes at once.
        failures_max: so many failures stop it.
    """

    waves: tuple[int, ...]
    parallel: int
    failures_max: int

    @property
    def rounds(self) -> int:
        """How many times one node's time it may take at most."""
        return sum(-(-size // self.parallel) for size in self.waves)


@dataclass(frozen=True, slots=True)
class Times:
    """How long what may take, in milliseconds.

    Attributes:
        accept_ms: an instance has so long to say that it works on it.
        run_ms: and so long, from when it was asked, to end.
        grace_ms: and its report so long to arrive.
        total_ms: the job has so long.
    """

    accept_ms: int
    run_ms: int
    grace_ms: int
    total_ms: int


def course(plan: RunPlan, nodes: int) -> Course:
    """Return what a plan means for so many nodes; raises `Malformed` for more than all of them."""
    sizes: list[int] = []
    left = nodes
    if plan.canary:
        for size in (1, -(-nodes * CANARY_PERCENT // 100)):
            sizes.append(min(size, left))
            left -= sizes[-1]
    rest = plan.batch or left
    while left > 0:
        sizes.append(min(rest, left))
        left -= sizes[-1]
    if plan.stop_after is not None:
        failures_max = max(1, amount(plan.stop_after, nodes, "stop_after"))
    else:
        failures_max = 1 if plan.canary else NEVER
    return Course(tuple(size for size in sizes if size), plan.parallel, failures_max)


class Line:
    """What is known of one node."""

    __slots__ = (
        "attempts",
        "began_ms",
        "code",
        "done",
        "instance",
        "instances",
        "is_accepted",
        "is_failure",
        "node",
        "number",
        "result",
        "retry_at_ms",
        "state",
        "text",
        "took_us",
        "total",
        "until_ms",
        "wave",
    )

    def __init__(self, node: str, wave: int) -> None:
        self.node = node
        self.wave = wave
        self.state = RunState.WAITING
        self.instance: str | None = None
        self.instances: set[str] = set()
        """Those that were asked and may have begun."""
        self.attempts = 0
        self.is_accepted = False
        self.is_failure = False
        self.began_ms = 0
        self.until_ms = NEVER
        self.retry_at_ms = 0
        self.number = 0
        self.done = 0
        self.total: int | None = None
        self.text: str | None = None
        self.code: str | None = None
        self.result: JsonValue = None
        self.took_us = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.state in FINAL

    def told(self, *, has_result: bool = True) -> JobLine:
        """Return it as it is told; facts have no results."""
        return JobLine.model_construct(
            node=self.node,
            instance=self.instance,
            state=self.state,
            wave=self.wave,
            attempts=self.attempts,
            done=self.done,
            total=self.total,
            text=self.text,
            code=self.code,
            result=self.result if has_result else None,
            took_us=self.took_us,
        )


class Rollout:
    """One job in progress."""

    __slots__ = (
        "_at",
        "_in_flight",
        "_left",
        "_waves",
        "changes",
        "counts",
        "course",
        "deadline_ms",
        "end",
        "failures",
        "last_ms",
        "lines",
        "times",
    )

    def __init__(self, nodes: Sequence[str], course: Course, times: Times, now_ms: int) -> None:
        self.course = course
        self.times = times
        self.deadline_ms = now_ms + times.total_ms
        self.last_ms = self.deadline_ms - min(times.grace_ms, times.total_ms // 10)
        """Nobody is asked any more and handlers are cut off then, which leaves time to hear how they have ended."""
        self.lines: list[Line] = []
        self._waves: list[list[int]] = []
        self._at: dict[str, int] = {}
        left = iter(nodes)
        for wave, size in enumerate(course.waves):
            members = [Line(node, wave) for _, node in zip(range(size), left, strict=False)]
            self._waves.append(list(range(len(self.lines), len(self.lines) + len(members))))
            self.lines += members
        self._at = {line.node: at for at, line in enumerate(self.lines)}
        self.counts = NOBODY | {RunState.WAITING: len(self.lines)}
        self.failures = 0
        self.end: JobEnd | None = None if self.lines else JobEnd.DONE
        """Why it asks nobody more; it is over once nobody runs either."""
        self.changes = 0
        """How often something has changed; who has told of it remembers the number."""
        self._in_flight = 0
        self._left = len(self.lines)

    @property
    def is_over(self) -> bool:
        """Whether nothing more can happen."""
        return self._left == 0

    def at(self, node: str) -> int | None:
        """Return which line a node has."""
        return self._at.get(node)

    def job_counts(self) -> JobCounts:
        """Return how many nodes are how."""
        return JobCounts.model_validate(self.counts)

    # -- asking

    def ready(self, now_ms: int) -> list[int]:
        """Return whom to ask now; each has to be told of with `asked` or `skip`."""
        if self.end is not None or now_ms >= self.last_ms:
            return []
        found: list[int] = []
        room = self.course.parallel - self._in_flight
        for wave in self._waves:
            open_ = [at for at in wave if not self.lines[at].is_over]
            for at in open_:
                if room - len(found) <= 0:
                    return found
                line = self.lines[at]
                if line.state is RunState.WAITING and now_ms >= line.retry_at_ms:
                    found.append(at)
            if open_:
                break  # the next wave begins when this one has ended
        return found

    def asked(self, at: int, instance: str, now_ms: int) -> None:
        """Note that an instance is being asked."""
        line = self.lines[at]
        assert line.state is RunState.WAITING, "it is asked once at a time"
        if not line.attempts:
            line.began_ms = now_ms
        line.instance = instance
        line.instances.add(instance)
        line.attempts += 1
        line.is_accepted = False
        line.number = 0
        line.until_ms = min(now_ms + self.times.accept_ms, self.deadline_ms)
        self._in_flight += 1
        self._move(line, RunState.RUNNING)

    def skip(self, at: int, code: str, text: str, *, is_failure: bool) -> None:
        """Note that a node cannot be asked, and why; whether that counts as a failure of the job.

        One that was to be asked again ends as its first time has ended: it may have done it.
        """
        line = self.lines[at]
        assert line.state is RunState.WAITING, "who is being asked is not skipped"
        if not self._give_up(line):
            self._finish(line, RunState.SKIPPED, code, text, is_failure=is_failure)

    def postpone(self, at: int, until_ms: int) -> None:
        """Ask a node later."""
        self.lines[at].retry_at_ms = until_ms

    def accepted(self, at: int, instance: str, now_ms: int) -> None:
        """Note that an instance works on it."""
        line = self.lines[at]
        if line.state is RunState.RUNNING and line.instance == instance and not line.is_accepted:
            line.is_accepted = True
            line.until_ms = min(now_ms + self.times.run_ms + self.times.grace_ms, self.deadline_ms)
            self.changes += 1

    def refused(
        self, at: int, instance: str, code: str, text: str, now_ms: int, *, has_begun: bool, again: Again | None = None
    ) -> bool:
        """Note that an ask has failed; return whether the node's fate is sealed by it.

        Args:
            at: the node.
            instance: which one of it was asked.
            code: the error's wire code.
            text: the same for people.
            now_ms: the time.
            has_begun: whether it may have begun: it did not answer.
            again: whether it may be asked again.
        """
        line = self.lines[at]
        if line.state is not RunState.RUNNING or line.instance != instance or line.is_accepted:
            return False
        if not has_begun:
            line.instances.discard(instance)
        return self._fail(line, code, text, now_ms, again)

    def gone(self, at: int, instance: str, now_ms: int, again: Again | None = None) -> None:
        """Note that an instance that works on it has gone away: it may have done it."""
        line = self.lines[at]
        if line.state is RunState.RUNNING and line.instance == instance:
            self._fail(line, OutOfBudget.code, "it has gone away in the midst of it", now_ms, again)

    def reported(self, node: str, instance: str, report: JobReported, now_ms: int, again: Again | None = None) -> bool:
        """Take a report; return whether the node's fate is sealed by it. One that nobody waits for changes nothing."""
        at = self._at.get(node)
        line = None if at is None else self.lines[at]
        if at is None or line is None or instance not in line.instances:
            return False
        if report.end is not None:
            return self.ended(at, instance, report.end, now_ms, again)
        if line.state is RunState.RUNNING and line.instance == instance and report.number > line.number:
            self.accepted(at, instance, now_ms)
            line.number = report.number
            line.done, line.total, line.text = report.done, report.total, report.text
            self.changes += 1
        return False

    def ended(self, at: int, instance: str, end: RunEnd, now_ms: int, again: Again | None = None) -> bool:
        """Take the end of a run; the first one of a node counts. Return whether the node's fate is sealed by it."""
        line = self.lines[at]
        if line.is_over or instance not in line.instances:
            return False
        if end.state == "succeeded":  # also of one that had been given up and may be asked again
            line.instance, line.result, line.text, line.took_us = instance, end.result, None, end.took_us
            if line.state is RunState.RUNNING:
                self._land(line)
            self._finish(line, RunState.SUCCEEDED)
            return True
        line.instances.discard(instance)
        if instance != line.instance or line.state is not RunState.RUNNING:
            return False  # it has been given up already
        line.took_us = end.took_us
        if end.state == "cancelled":
            self._land(line)
            self._finish(line, RunState.CANCELLED, end.code or Cancelled.code, end.text or "", is_failure=True)
            return True
        return self._fail(line, end.code or "failed", end.text or "", now_ms, again if end.retryable else None)

    # -- time

    def wake_ms(self) -> int:
        """Return when `due` or `ready` has something to do next, `NEVER` if it has not."""
        if self.is_over:
            return NEVER
        times = [self.deadline_ms]
        for line in self.lines:
            if line.state is RunState.RUNNING:
                times.append(line.until_ms)
            elif line.state is RunState.WAITING and line.retry_at_ms:
                times.append(line.retry_at_ms)
        return min(times)

    def due(self, now_ms: int, again: Callable[[int], Again | None] | None = None) -> list[int]:
        """Do what time has brought; return whose time is over. `again` gives, for a node, what `refused` takes."""
        silent = [
            at for at, line in enumerate(self.lines) if line.state is RunState.RUNNING and now_ms >= line.until_ms
        ]
        if now_ms >= self.deadline_ms and not self.is_over and self.end is None:
            self.end = JobEnd.DEADLINE  # also where all that are left have been asked
        for at in silent:
            line = self.lines[at]
            what = "no report of its end in time" if line.is_accepted else "it did not say in time that it works on it"
            may = None if again is None or now_ms >= self.deadline_ms else again(at)
            self._fail(line, OutOfBudget.code, what, now_ms, may)
        if now_ms >= self.deadline_ms:
            self._stop(JobEnd.DEADLINE, "the deadline of the job has passed")
        return silent

    def cancel(self) -> list[tuple[str, str]]:
        """Ask nobody more; return whom to tell. They are waited for, for what they say of how it ended."""
        self._stop(JobEnd.CANCELLED, "the job was cancelled")
        return [(line.node, one) for line in self.lines if not line.is_over for one in sorted(line.instances)]

    def hurry(self, until_ms: int) -> None:
        """Wait for those who run until then at the latest."""
        for line in self.lines:
            line.until_ms = min(line.until_ms, until_ms)
        self.deadline_ms = min(self.deadline_ms, until_ms)

    def lose(self) -> None:
        """End it now, whatever runs: its master stops. One that is over stays as it is."""
        if self.is_over:
            return
        self.end = JobEnd.LOST
        for line in self.lines:
            if line.state is RunState.RUNNING:
                self._land(line)
                self._finish(line, RunState.NO_ANSWER, "lost", "its master has stopped", is_failure=True)
        self._stop(JobEnd.LOST, "its master has stopped")

    # -- state

    def _fail(self, line: Line, code: str, text: str, now_ms: int, again: Again | None) -> bool:
        self._land(line)
        is_stopped = self.end is not None or self.failures >= self.course.failures_max
        after_ms = None if is_stopped or again is None else again(line.attempts)
        if after_ms is not None and now_ms + after_ms < self.deadline_ms:
            line.retry_at_ms = now_ms + after_ms
            line.code, line.text = code, text[:TEXT_MAX]
            self._move(line, RunState.WAITING)
            return False
        state = RunState.NO_ANSWER if line.instances else RunState.FAILED
        self._finish(line, state, code, text, is_failure=True)
        return True

    def _land(self, line: Line) -> None:
        self._in_flight -= 1
        line.until_ms = NEVER

    def _finish(
        self, line: Line, state: RunState, code: str | None = None, text: str | None = None, *, is_failure: bool = False
    ) -> None:
        line.code = code
        if text is not None:
            line.text = text[:TEXT_MAX]
        line.is_failure = is_failure
        self._left -= 1
        self._move(line, state)
        self.failures += is_failure
        if self._left == 0:
            self.end = self.end or JobEnd.DONE
        elif self.failures >= self.course.failures_max and self.counts[RunState.WAITING]:
            self._stop(JobEnd.STOPPED, f"not asked any more after {_counted(self.failures, 'failure')}")

    def _stop(self, end: JobEnd, text: str) -> None:
        if self.end is None:
            self.end = end
        for line in self.lines:
            if line.state is RunState.WAITING and not self._give_up(line):
                self._finish(line, RunState.SKIPPED, str(self.end), text)

    def _give_up(self, line: Line) -> bool:
        """End a node that was to be asked again as its last time has ended; return whether there was one."""
        if not line.attempts or line.code is None:
            return False
        state = RunState.NO_ANSWER if line.instances else RunState.FAILED
        self._finish(line, state, line.code, line.text or "", is_failure=True)
        return True

    def _move(self, line: Line, state: RunState) -> None:
        self.counts[line.state] -= 1
        self.counts[state] += 1
        line.state = state
        self.changes += 1


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
