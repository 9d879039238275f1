"""A job over its nodes: once on each, never more at once than allowed, in waves, stopping, and always ending."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from antiphon.decide.rollout import FINAL, NEVER, Rollout, Times, course
from antiphon.errors import Malformed
from antiphon.messages.actions import JobEnd, RunPlan, RunState
from antiphon.messages.jobs import JobReported, RunEnd

TIMES = Times(accept_ms=100, run_ms=1_000, grace_ms=50, total_ms=10_000)

amounts = st.one_of(st.integers(1, 60).map(str), st.integers(1, 100).map(lambda percent: f"{percent}%"))
plans = st.builds(
    RunPlan,
    parallel=st.integers(1, 40),
    batch=st.none() | st.integers(1, 20),
    canary=st.booleans(),
    stop_after=st.none() | amounts,
)


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


def rollout(count: int, times: Times = TIMES, **plan: Any) -> Rollout:
    return Rollout(names(count), course(RunPlan(**plan), count), times, 0)


def succeeded(result: Any = None) -> RunEnd:
    return RunEnd(state="succeeded", result=result)


def failed(*, retryable: bool = False) -> RunEnd:
    return RunEnd(state="failed", code="handler_failed", text="it raised", retryable=retryable)


def ask_all(job: Rollout, now_ms: int = 0) -> list[int]:
    asked = job.ready(now_ms)
    for at in asked:
        job.asked(at, "i1", now_ms)
    return asked


def states(job: Rollout) -> list[str]:
    return [str(line.state) for line in job.lines]


# -- plans


@given(plans, st.integers(1, 200))
def test_the_waves_of_a_plan_are_all_nodes(plan: RunPlan, nodes: int) -> None:
    way = course(plan, nodes)
    assert sum(way.waves) == nodes
    assert all(size > 0 for size in way.waves)
    assert way.failures_max >= 1
    rest = way.waves[2:] if plan.canary else way.waves
    if plan.batch is not None:
        assert all(size <= plan.batch for size in rest)
    assert way.rounds <= nodes


@pytest.mark.parametrize(
    ("nodes", "waves"), [(1, (1,)), (2, (1, 1)), (5, (1, 1, 3)), (30, (1, 3, 26)), (100, (1, 10, 89))]
)
def test_a_canary_is_one_node_then_a_tenth_then_the_rest(nodes: int, waves: tuple[int, ...]) -> None:
    assert course(RunPlan(canary=True), nodes).waves == waves
    assert course(RunPlan(canary=True), nodes).failures_max == 1


def test_stop_after_is_a_number_or_a_share_rounded_up() -> None:
    assert course(RunPlan(stop_after="3"), 10).failures_max == 3
    assert course(RunPlan(stop_after="25%"), 10).failures_max == 3
    assert course(RunPlan(stop_after="1%"), 10).failures_max == 1
    assert course(RunPlan(canary=True, stop_after="50%"), 10).failures_max == 5
    with pytest.raises(Malformed):
        course(RunPlan(stop_after="101%"), 10)


# -- single laws


def test_a_batch_begins_when_the_last_one_has_ended() -> None:
    job = rollout(5, batch=2)
    assert ask_all(job) == [0, 1]
    job.ended(0, "i1", succeeded(), 5)
    assert job.ready(5) == []
    job.ended(1, "i1", failed(), 6)
    assert ask_all(job, 6) == [2, 3]


def test_one_after_the_other_is_one_at_once() -> None:
    job = rollout(3, parallel=1)
    for at in range(3):
        assert ask_all(job) == [at]
        assert job.ready(0) == []
        job.ended(at, "i1", succeeded(), 1)
    assert (job.is_over, job.end) == (True, JobEnd.DONE)


def test_enough_failures_stop_it_and_who_runs_may_end() -> None:
    job = rollout(6, parallel=3, stop_after="2")
    ask_all(job)
    job.ended(0, "i1", failed(), 1)
    job.ended(1, "i1", failed(), 1)
    assert job.end is JobEnd.STOPPED
    assert job.ready(1) == []
    assert not job.is_over
    job.ended(2, "i1", succeeded(7), 2)
    assert states(job) == ["failed", "failed", "succeeded", "skipped", "skipped", "skipped"]
    assert job.is_over


def test_after_enough_failures_who_fails_later_is_not_asked_again() -> None:
    job = rollout(2, parallel=2, stop_after="1")
    ask_all(job)
    job.refused(0, "i1", "failed", "", 1, has_begun=False)
    assert job.refused(1, "i1", "failed", "", 2, has_begun=False, again=lambda _attempts: 1), "its fate is sealed"
    assert states(job) == ["failed", "failed"]
    assert job.is_over


def test_who_does_not_accept_or_falls_silent_is_no_answer() -> None:
    job = rollout(2)
    ask_all(job)
    job.accepted(0, "i1", 10)
    assert job.due(99) == []
    assert job.due(100) == [1]
    assert states(job) == ["running", "no_answer"]
    assert job.due(10 + 1_050) == [0]
    assert states(job) == ["no_answer", "no_answer"]
    assert job.end is JobEnd.DONE
    assert not job.reported("n0", "i1", JobReported(number=9, end=succeeded()), 2_000), "it came too late"
    assert states(job) == ["no_answer", "no_answer"]


def test_what_was_refused_before_it_began_has_failed_and_is_no_silence() -> None:
    job = rollout(1)
    ask_all(job)
    assert job.refused(0, "i1", "malformed", "no", 1, has_begun=False)
    assert states(job) == ["failed"]


def test_a_report_says_that_it_was_accepted_and_older_ones_change_nothing() -> None:
    job = rollout(1)
    ask_all(job)
    job.reported("n0", "i1", JobReported(number=2, done=5, total=9, text="page 5"), 50)
    job.reported("n0", "i1", JobReported(number=1, done=1), 51)
    assert job.due(150) == []
    told = job.lines[0].told()
    assert (told.done, told.total, told.text) == (5, 9, "page 5")


def test_a_report_of_an_instance_that_was_not_asked_changes_nothing() -> None:
    job = rollout(1)
    ask_all(job)
    for node, instance in [("n0", "other"), ("stranger", "i1")]:
        assert not job.reported(node, instance, JobReported(number=1, end=succeeded()), 1)
    assert states(job) == ["running"]


def test_asked_again_the_first_success_counts_whoever_brings_it() -> None:
    job = rollout(1)
    ask_all(job)
    assert job.due(100, lambda _: lambda _: 10) == [0]
    assert states(job) == ["waiting"]
    assert job.ready(105) == []
    [at] = job.ready(110)
    job.asked(at, "i2", 110)
    assert job.ended(0, "i1", succeeded("first"), 120)
    assert not job.ended(0, "i2", succeeded("second"), 130)
    assert (job.lines[0].instance, job.lines[0].result, job.lines[0].attempts) == ("i1", "first", 2)


def test_a_success_that_comes_while_it_waits_to_be_asked_again_counts() -> None:
    job = rollout(1)
    ask_all(job)
    job.due(100, lambda _: lambda _: 1_000)
    assert job.reported("n0", "i1", JobReported(number=1, end=succeeded(1)), 200)
    assert (job.is_over, job.ready(2_000)) == (True, [])


def test_a_failure_that_another_try_cannot_help_is_not_tried_again() -> None:
    job = rollout(2)
    ask_all(job)
    assert job.ended(0, "i1", failed(), 1, lambda _: 5)
    assert not job.ended(1, "i1", failed(retryable=True), 1, lambda _: 5)
    assert states(job) == ["failed", "waiting"]


def test_cancelled_it_asks_nobody_more_and_names_whom_to_tell() -> None:
    job = rollout(3, parallel=2)
    ask_all(job)
    job.ended(0, "i1", succeeded(), 1)
    assert job.cancel() == [("n1", "i1")]
    assert states(job) == ["succeeded", "running", "skipped"]
    job.hurry(500)
    job.ended(1, "i1", RunEnd(state="cancelled", code="cancelled"), 20)
    assert states(job) == ["succeeded", "cancelled", "skipped"]
    assert (job.is_over, job.end) == (True, JobEnd.CANCELLED)


def test_lost_it_is_over_at_once_and_over_it_cannot_be_lost() -> None:
    job = rollout(2, parallel=1)
    ask_all(job)
    job.lose()
    assert (states(job), job.end) == (["no_answer", "skipped"], JobEnd.LOST)
    done = rollout(1)
    ask_all(done)
    done.ended(0, "i1", succeeded(), 1)
    done.lose()
    assert done.end is JobEnd.DONE


def test_a_job_that_has_asked_everybody_did_not_end_early() -> None:
    job = rollout(3, parallel=3, stop_after="1")
    ask_all(job)
    for at in range(2):
        job.ended(at, "i1", failed(), 1)
    job.ended(2, "i1", succeeded(), 1)
    assert (states(job), job.end) == (["failed", "failed", "succeeded"], JobEnd.DONE)


def test_whom_operators_hold_back_is_skipped_and_stops_nothing() -> None:
    job = rollout(2, canary=True)
    job.skip(0, "suspended", "an operator has it suspended", is_failure=False)
    assert job.ready(0) == [1]
    other = rollout(2, canary=True)
    other.skip(0, "down", "nobody is heard", is_failure=True)
    assert other.end is JobEnd.STOPPED


def test_who_was_asked_is_never_said_to_be_skipped() -> None:
    """It fell silent, was to be asked again, and by then was down: it may have done it."""
    job = rollout(2)
    ask_all(job)
    job.due(100, lambda _: lambda _: 10)
    job.skip(0, "down", "nobody is heard", is_failure=True)
    assert (states(job)[0], job.lines[0].code) == ("no_answer", "out_of_budget")
    refused = rollout(2)
    ask_all(refused)
    refused.refused(0, "i1", "overloaded", "busy", 1, has_begun=False, again=lambda _: 10)
    refused.skip(0, "down", "nobody is heard", is_failure=True)
    assert (states(refused)[0], refused.lines[0].code) == ("failed", "overloaded")


def test_who_has_gone_away_is_no_answer_at_once_and_asked_again_only_where_it_may_be() -> None:
    job = rollout(2)
    ask_all(job)
    for at in range(2):
        job.accepted(at, "i1", 10)
    job.gone(0, "other", 20)
    job.gone(0, "i1", 20)
    job.gone(1, "i1", 20, lambda _: 5)
    assert states(job) == ["no_answer", "waiting"]
    assert job.ready(25) == [1]


def test_shortly_before_its_deadline_a_job_asks_nobody_and_says_at_the_deadline_why_it_is_over() -> None:
    job = rollout(2, Times(accept_ms=100, run_ms=1_000, grace_ms=50, total_ms=1_000), parallel=1)
    assert job.last_ms == 950
    ask_all(job)
    job.ended(0, "i1", failed(), 950)
    assert job.ready(950) == []
    job.due(1_000)
    assert (states(job), job.end) == (["failed", "skipped"], JobEnd.DEADLINE)
    silent = rollout(1, Times(accept_ms=100, run_ms=1_000, grace_ms=50, total_ms=80))
    ask_all(silent)
    silent.due(80)
    assert (states(silent), silent.end) == (["no_answer"], JobEnd.DEADLINE)


@given(st.integers(1, 50), plans)
def test_a_job_without_faults_reaches_everybody_once(count: int, plan: RunPlan) -> None:
    job = Rollout(names(count), course(plan, count), TIMES, 0)
    asked: list[int] = []
    while not job.is_over:
        now = ask_all(job)
        assert now, "it never waits for nothing"
        asked += now
        for at in now:
            job.ended(at, "i1", succeeded(), 1)
    assert sorted(asked) == list(range(count))
    assert (job.end, job.failures) == (JobEnd.DONE, 0)


# -- all interleavings


class Course(RuleBasedStateMachine):
    """Whatever happens, in whatever order."""

    job: Rollout

    @initialize(count=st.integers(3, 12), plan=plans, parallel=st.integers(1, 4), idempotent=st.booleans())
    def begin(self, count: int, plan: RunPlan, parallel: int, idempotent: bool) -> None:
        self.now = 0
        narrow = plan.model_copy(update={"parallel": parallel})
        self.job = Rollout(names(count), course(narrow, count), TIMES, 0)
        self.asked: set[tuple[int, str]] = set()
        self.idempotent = idempotent
        self.may_have_begun: dict[int, int] = dict.fromkeys(range(count), 0)
        self.sealed: dict[int, RunState] = {}

    def is_stopped(self) -> bool:
        return self.job.end is not None

    def again(self, attempts: int) -> int | None:
        return 20 if self.idempotent and attempts < 3 else None

    def running(self) -> list[int]:
        return [at for at, line in enumerate(self.job.lines) if line.state is RunState.RUNNING]

    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        for at in self.job.ready(self.now):
            assert self.job.end is None, "who is stopped asks nobody"
            if data.draw(st.integers(0, 5)) == 0:
                self.job.skip(at, "down", "down", is_failure=data.draw(st.booleans()))
                if self.is_stopped():
                    return  # the others that were ready are skipped by now
            else:
                instance = f"i{data.draw(st.integers(1, 2))}"
                self.job.asked(at, instance, self.now)
                self.may_have_begun[at] += 1
                self.asked.add((at, instance))

    @precondition(lambda self: self.running())
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        at = data.draw(st.sampled_from(self.running()))
        self.job.accepted(at, self.job.lines[at].instance or "", self.now)

    @precondition(lambda self: self.running())
    @rule(data=st.data(), has_begun=st.booleans())
    def refuse(self, data: st.DataObject, has_begun: bool) -> None:
        at = data.draw(st.sampled_from(self.running()))
        line = self.job.lines[at]
        was_accepted = line.is_accepted
        again = self.again if has_begun else (lambda attempts: 0 if attempts < 3 else None)
        self.job.refused(at, line.instance or "", "x", "x", self.now, has_begun=has_begun, again=again)
        if not has_begun and not was_accepted:
            self.may_have_begun[at] -= 1

    @rule(data=st.data(), how=st.sampled_from(["succeeded", "failed", "cancelled"]), instance=st.integers(1, 2))
    def end(self, data: st.DataObject, how: str, instance: int) -> None:
        at = data.draw(st.integers(0, len(self.job.lines) - 1))
        end = RunEnd.model_validate({"state": how, "code": None if how == "succeeded" else how, "retryable": True})
        before = self.job.lines[at].state
        self.job.ended(at, f"i{instance}", end, self.now, self.again)
        assert (at, f"i{instance}") in self.asked or self.job.lines[at].state is before, "it was never asked"

    @rule(ms=st.integers(1, 1_200))
    def pass_time(self, ms: int) -> None:
        self.now += ms
        self.job.due(self.now, lambda _: self.again)

    @rule()
    def cancel(self) -> None:
        told = self.job.cancel()
        assert {node for node, _ in told} <= {line.node for line in self.job.lines if not line.is_over}
        assert RunState.WAITING not in {line.state for line in self.job.lines}

    @invariant()
    def never_more_at_once_than_allowed(self) -> None:
        assert len(self.running()) <= self.job.course.parallel

    @invariant()
    def a_fate_that_is_sealed_never_changes(self) -> None:
        for at, line in enumerate(self.job.lines):
            if at in self.sealed:
                assert line.state is self.sealed[at]
            elif line.state in FINAL:
                self.sealed[at] = line.state

    @invariant()
    def counts_add_up_and_are_the_lines(self) -> None:
        for state in RunState:
            assert self.job.counts[state] == sum(line.state is state for line in self.job.lines)
        assert self.job.is_over == all(line.is_over for line in self.job.lines)
        assert self.job.is_over <= (self.job.end is not None)

    @invariant()
    def what_is_not_idempotent_begins_once(self) -> None:
        if not self.idempotent:
            assert max(self.may_have_begun.values()) <= 1

    @invariant()
    def a_wave_waits_for_the_one_before(self) -> None:
        asked = [line.wave for line in self.job.lines if line.attempts]
        for line in self.job.lines:
            if not line.is_over:
                assert all(wave <= line.wave for wave in asked), "a later wave was begun"

    @invariant()
    def enough_failures_stop_it(self) -> None:
        if self.job.failures >= self.job.course.failures_max:
            # where all had been asked by then there is nothing to stop, and nobody is asked again either
            assert not self.job.counts[RunState.WAITING]
            assert self.job.ready(self.now) == []

    @invariant()
    def there_is_always_something_to_wait_for(self) -> None:
        assert self.job.is_over or self.now <= self.job.wake_ms() < NEVER or self.job.wake_ms() <= self.now

    def teardown(self) -> None:
        """Liveness: whatever was lost, it ends by its deadline."""
        if not hasattr(self, "job"):
            return
        self.job.due(max(self.now, self.job.deadline_ms))
        assert self.job.is_over
        assert self.job.end is not None


TestCourse = Course.TestCase
TestCourse.settings = settings(max_examples=150, stateful_step_count=40)
