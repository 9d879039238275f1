"""One job on its way over its nodes: asks, hears reports, writes the job's record, and ends it, whatever happens.

What is to be done says `decide/rollout.py`; this carries it out. A job outlives the request that began it. Its record
is written before anybody is told that the job was accepted; one whose caller waits for the end and that ends at once is
written once, with its end.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import lru_cache

import structlog

from antiphon.actors.absence import Absences
from antiphon.actors.order import JobGround, Order
from antiphon.bus.codec import decode, encode
from antiphon.clock import Timer
from antiphon.decide.aggregate import Aggregates
from antiphon.decide.contract import result_violation
from antiphon.decide.dispatch import Leg
from antiphon.decide.retry import UNDELIVERED, Answer, judge
from antiphon.decide.rollout import NEVER, TEXT_MAX, Again, Course, Rollout, Times, course
from antiphon.decide.targets import is_wished
from antiphon.errors import AntiphonError, InvalidReply, NotConnected, OutOfBudget, from_wire
from antiphon.messages.actions import (
    DEADLINE_MS_MAX,
    JobEnd,
    JobView,
    RunState,
)
from antiphon.messages.jobs import ActionFinished, JobRecord, JobReported, JobWritten, NodeAccepted, NodeRun, RunEnd
from antiphon.messages.lane import NodeCancel

log = structlog.get_logger("antiphon.actions")

LANES_MAX = 4_096
"""Subjects of lanes remembered, so that they are not put together again for each run."""


class Job:
    """One job that runs on this master."""

    def __init__(self, ground: JobGround, order: Order) -> None:
        ask, clock = order.ask, ground.bus.clock
        self.ground = ground
        self.order = order
        self.clock = clock
        self.started_ms = clock.wall_ms()
        self.by: str | None = None
        self.over = asyncio.Event()
        """Set once its end has been written."""
        self.is_written = False
        self._began_us = clock.now_us()
        self._nodes = {node.node: node for node in order.targets.nodes}
        contract = order.targets.nodes[0].actions[ask.action].contract
        self._wanted = contract.aggregates
        self._aggregates = Aggregates(contract.aggregates)
        self.rollout = Rollout(tuple(self._nodes), *self._times(), clock.now_ms())
        self._is_single = len(self.rollout.lines) == 1
        self._slots: list[tuple[int, str]] = []
        self._legs: dict[tuple[int, str], Leg] = {}
        self._lost: list[tuple[str, str]] = []
        """Instances to be told that nobody wants it any more."""
        self._told = -1
        """`changes` of the rollout that the last record holds."""
        self._timer: Timer | None = None
        self._recording: Timer | None = None
        self._is_due = False
        """Whether it is time to write it down."""
        self._turn: asyncio.Future[None] | None = None
        self._bug: Exception | None = None
        self._is_cut_off = False
        self._last_record: JobRecord | None = None
        self._absences = Absences(ground, self._gone)
        self._wire = ground.bus.gather(self._on_reply)
        self._wire.bug = self._on_bug

    # -- told by the actor

    def report(self, node: str, instance: str, report: JobReported) -> None:
        """Take what an instance reports."""
        at = self.rollout.at(node)
        if at is None:
            return
        if report.load is not None:
            load = report.load
            self.ground.dispatch.told(node, instance, load.in_flight, load.latency_us, self.clock.now_ms())
        if report.end is not None:
            self._ended(at, instance, report.end)
        else:
            self.rollout.reported(node, instance, report, self.clock.now_ms())
        self._wake()

    def cancel(self, by: str) -> None:
        """Ask nobody more, and have those who run cut off."""
        if self.rollout.is_over:
            return
        self.by = self.by or by
        self._lost += self.rollout.cancel()
        self.rollout.hurry(self.clock.now_ms() + self.ground.bounds.cancel_ms)
        self._wake()

    def view(self) -> JobView:
        """Return it as it stands; results are in the record, but for the one of a job on one node."""
        record = self.record()
        rollout = self.rollout
        silent = tuple(line.node for line in rollout.lines if line.state is RunState.NO_ANSWER)
        return JobView(
            job=self.order.job,
            action=record.action,
            caller=record.caller,
            master=self.ground.bus.name,
            effect=record.effect,
            dry_run=record.dry_run,
            started_ms=record.started_ms,
            took_us=record.took_us,
            deadline_ms=record.deadline_ms,
            end=record.end,
            by=record.by,
            counts=rollout.job_counts(),
            no_answer=silent,
            not_allowed=record.not_allowed,
            totals=record.totals,
            lines=record.lines,
        )

    def record(self) -> JobRecord:
        """Return it as it is written down now."""
        if self._last_record is not None:  # what is over changes no more
            return self._last_record
        rollout, order = self.rollout, self.order
        is_over = rollout.is_over
        record = JobRecord(
            request=order.request,
            action=order.ask.action,
            caller=order.who.name,
            delegate=order.who.delegate,
            effect=order.targets.effect,
            dry_run=order.ask.dry_run,
            plan=order.ask.plan,
            timeout_ms=order.ask.timeout_ms,
            deadline_ms=rollout.times.total_ms,
            started_ms=self.started_ms,
            took_us=self.clock.now_us() - self._began_us,
            end=rollout.end if is_over else None,
            by=self.by,
            not_allowed=order.targets.not_allowed,
            aggregates=self._wanted,
            totals=self._aggregates.totals() if is_over else (),
            lines=tuple(line.told() for line in rollout.lines),
        )
        if is_over:
            self._last_record = record
        return record

    async def begin(self) -> bool:
        """Write it down before anybody is asked; return False where its id is taken."""
        self._told = self.rollout.changes
        self.is_written = await self._append(over=f"{self.ground.bus.prefix}.v1.job.{self.order.job}.*")
        return self.is_written

    async def _append(self, over: str | None = None) -> bool:
        """Store the record as it is, and tell masters that it is there; of that nothing depends, so it is one try."""
        prefix, name = self.ground.bus.prefix, self.ground.bus.name
        subject = JobRecord.route.template.subject(prefix=prefix, job=self.order.job, writer=name)
        if await self.ground.records.append(subject, encode(self.record()), over=over) is None:
            return False
        with suppress(AntiphonError):
            await self.ground.bus.publish(JobWritten(job=self.order.job))
        return True

    async def write(self) -> None:
        """Write it down as it is now; without a connection, later."""
        if self._told == self.rollout.changes and self.is_written:
            return
        self._told, self.is_written = self.rollout.changes, True
        try:
            await self._append()
        except NotConnected:
            self._told = -1
        except AntiphonError as error:
            log.warning("job.not_written", job=self.order.job, code=error.code, error=error.text)

    # -- its course

    async def drive(self) -> None:
        """Carry it out to its end; cancelled, it ends as lost."""
        bounds = self.ground.bounds
        self._recording = self.clock.call_after(bounds.record_ms if self.is_written else bounds.defer_ms, self._due)
        try:
            while not self.rollout.is_over:
                await self._step()
                if self._bug is not None:
                    raise self._bug
        except asyncio.CancelledError:
            self._is_cut_off = True
            raise
        finally:
            self.rollout.lose()  # where it is over already this changes nothing
            for timer in (self._timer, self._recording):
                if timer is not None:
                    timer.cancel()
            self._absences.close()
            self._wire.close()
            self._abandon()
            self._finish()
            with suppress(AntiphonError):
                await self._last()

    async def _step(self) -> None:
        now_ms = self.clock.now_ms()
        for at in self.rollout.due(now_ms, lambda at: self._again(at, OutOfBudget())):
            self._end_leg(at, self.rollout.lines[at].instance or "", OutOfBudget.code)
        self._turn = asyncio.get_running_loop().create_future()
        await self._ask(now_ms)
        await self._tell_lost()
        if self._is_due:
            self._is_due = False
            self._recording = self.clock.call_after(self.ground.bounds.record_ms, self._due)
            self._absences.look(self.rollout.lines, now_ms)
            await self.write()
        if self.rollout.is_over or self._bug is not None:
            return
        self._schedule()
        await self._turn

    async def _ask(self, now_ms: int) -> None:
        lanes: list[str] = []
        dispatch, action = self.ground.dispatch, self.order.ask.action
        registry = self.ground.registry.current
        while ready := self.rollout.ready(now_ms):  # who is skipped makes room for the next
            for at in ready:
                if self.rollout.end is not None:  # one of these could not be asked, and that was one too many
                    break
                name = self.rollout.lines[at].node
                node = registry.nodes.get(name, self._nodes[name])
                offer = node.actions.get(action)
                pick = dispatch.pick(registry, node, () if offer is None else offer.instances, now_ms)
                if pick.after_ms:
                    self.rollout.postpone(at, now_ms + pick.after_ms)
                elif pick.instance is None:
                    self.rollout.skip(at, pick.code, pick.text, is_failure=not is_wished(node))
                else:
                    self.rollout.asked(at, pick.instance, now_ms)
                    leg = dispatch.started(name, pick.instance, self.clock.now_us(), now_ms, is_probe=pick.is_probe)
                    self._legs[at, pick.instance] = leg
                    self._slots.append((at, pick.instance))
                    lanes.append(_lane(self.ground.bus.prefix, name, pick.instance))
        if lanes:
            self.ground.retry_budget.requested(len(lanes))
            await self._wire.ask_each(lanes, self._payload(now_ms))

    def _payload(self, now_ms: int) -> bytes:
        ask, who, times = self.order.ask, self.order.who, self.rollout.times
        run = NodeRun(
            request=self.order.request,
            job=self.order.job,
            action=ask.action,
            params=ask.params,
            budget_ms=times.accept_ms,
            timeout_ms=max(1, min(times.run_ms, self.rollout.last_ms - now_ms)),
            inline=self._is_single,
            dry_run=ask.dry_run,
            caller=who.name,
            groups=who.groups,
            delegate=who.delegate,
            behalf=ask.behalf if who.delegate is not None else None,
        )
        return encode(run)

    def _on_reply(self, slot: int, data: bytes, error: AntiphonError | None) -> None:
        at, instance = self._slots[slot]
        now_ms = self.clock.now_ms()
        if error is None:
            try:
                accepted = decode(NodeAccepted, data)
                if accepted.job != self.order.job:
                    raise InvalidReply("it has accepted another job")
            except AntiphonError as refused:
                error = InvalidReply(refused.text)
            else:
                self._accepted(at, instance, accepted, now_ms)
        if error is not None:
            self._end_leg(at, instance, error.code)
            # an error says that nothing has begun; that there is no answer, or none that can be read, does not
            has_begun = isinstance(error, (OutOfBudget, InvalidReply))
            again = self._again(at, error)
            sealed = self.rollout.refused(
                at, instance, error.code, error.text, now_ms, has_begun=has_begun, again=again
            )
            if sealed:
                self._sealed(at)
        self._wake()

    def _accepted(self, at: int, instance: str, accepted: NodeAccepted, now_ms: int) -> None:
        node, load, end = self.rollout.lines[at].node, accepted.load, accepted.end
        if load is not None:
            self.ground.dispatch.told(node, instance, load.in_flight, load.latency_us, now_ms)
        if end is None:
            self.rollout.accepted(at, instance, now_ms)
        else:
            self._ended(at, instance, end)

    def _ended(self, at: int, instance: str, end: RunEnd) -> None:
        end = self._checked(at, end)
        self._end_leg(at, instance, end.code)
        again = None if end.code is None else self._again(at, from_wire(end.code, end.text or ""))
        if self.rollout.ended(at, instance, end, self.clock.now_ms(), again):
            self._sealed(at)

    def _checked(self, at: int, end: RunEnd) -> RunEnd:
        """Return how a run ended; with a result that its contract does not allow, it has failed."""
        if end.state != "succeeded":
            return end
        contract = self._nodes[self.rollout.lines[at].node].actions[self.order.ask.action].contract
        wrong = result_violation(contract, end.result)
        if wrong is None:
            return end
        return RunEnd(state="failed", code=InvalidReply.code, text=wrong[:TEXT_MAX], took_us=end.took_us)

    def _sealed(self, at: int) -> None:
        """Take what is wanted of a result, and keep no more of it: it is in the node's report."""
        line = self.rollout.lines[at]
        if line.state is RunState.SUCCEEDED:
            self._aggregates.add(line.result)
            if not self._is_single:
                line.result = None

    def _again(self, at: int, error: AntiphonError) -> Again:
        """Return when a node may be asked again after an error."""
        line, ask = self.rollout.lines[at], self.order.ask
        node = self.ground.registry.current.nodes.get(line.node, self._nodes[line.node])
        offer = node.actions.get(ask.action)

        def after_ms(attempts: int) -> int | None:
            if offer is None:
                return None
            others = [one for one in node.active if one in offer.instances and one != line.instance]
            if isinstance(error, UNDELIVERED) and others and attempts < self.ground.retries.attempts_max:
                return 0
            verdict = judge(
                error,
                attempts=attempts,
                is_idempotent=offer.contract.idempotent,
                left_ms=self.rollout.deadline_ms - self.clock.now_ms(),
                bounds=self.ground.retries,
                budget=self.ground.retry_budget,
                now_ms=self.clock.now_ms(),
                dice=self.ground.dispatch.dice.random(),
            )
            return verdict.delay_ms if verdict.answer is Answer.RETRY else None

        return after_ms

    def _times(self) -> tuple[Course, Times]:
        ask, bounds = self.order.ask, self.ground.bounds
        way = course(ask.plan, len(self._nodes))
        accept_ms = min(bounds.accept_ms, ask.timeout_ms)
        tries = self.ground.retries.attempts_max if self.order.targets.is_idempotent else 1
        most_ms = way.rounds * tries * (accept_ms + ask.timeout_ms + bounds.grace_ms)
        total_ms = ask.deadline_ms or min(most_ms, DEADLINE_MS_MAX)
        return way, Times(accept_ms, ask.timeout_ms, bounds.grace_ms, total_ms)

    # -- waiting

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_ms = self.rollout.wake_ms()
        if wake_ms < NEVER:
            self._timer = self.clock.call_after(max(0, wake_ms - self.clock.now_ms()), self._wake)

    def _due(self) -> None:
        self._is_due = True
        self._wake()

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def _on_bug(self, bug: Exception) -> None:
        self._bug = bug
        self._wake()

    # -- its end

    def _gone(self, at: int, instance: str) -> None:
        self._end_leg(at, instance, OutOfBudget.code)
        self.rollout.gone(at, instance, self.clock.now_ms(), self._again(at, OutOfBudget()))
        self._wake()

    def _end_leg(self, at: int, instance: str, code: str | None) -> None:
        leg = self._legs.pop((at, instance), None)
        if leg is not None:
            self.ground.dispatch.ended(leg, code, self.clock.now_us(), self.clock.now_ms())

    def _abandon(self) -> None:
        for leg in self._legs.values():
            self.ground.dispatch.abandoned(leg, self.clock.now_us(), self.clock.now_ms())
        self._legs.clear()

    async def _tell_lost(self) -> None:
        while self._lost:
            node, instance = self._lost.pop()
            with suppress(AntiphonError):  # without a connection there is nobody to tell
                await self.ground.bus.tell(NodeCancel(ticket=self.order.job), node=node, instance=instance)

    async def _last(self) -> None:
        """Write its end, however long there is no connection; whoever waits is told at once."""
        self.over.set()
        await self._tell_lost()
        while True:
            await self.write()
            if self._told == self.rollout.changes or self._is_cut_off:
                return
            await self.clock.sleep_ms(self.ground.bounds.record_ms)

    def _finish(self) -> None:
        order, rollout = self.order, self.rollout
        end = rollout.end or JobEnd.LOST
        say = log.info if rollout.failures == 0 else log.warning
        say("job.ended", job=order.job, action=order.ask.action, caller=order.who.name, end=str(end))
        if self.ground.facts.is_on:
            lines = [line.told(has_result=False) for line in rollout.lines]
            self.ground.facts.tell(
                ActionFinished(
                    request=order.request,
                    job=order.job,
                    action=order.ask.action,
                    caller=order.who.name,
                    delegate=order.who.delegate,
                    effect=order.targets.effect,
                    dry_run=order.ask.dry_run,
                    at_ms=self.clock.wall_ms(),
                    took_us=self.clock.now_us() - self._began_us,
                    end=end,
                    by=self.by,
                    counts=rollout.job_counts(),
                    nodes=tuple(lines),
                )
            )


@lru_cache(LANES_MAX)
def _lane(prefix: str, node: str, instance: str) -> str:
    return NodeRun.route.template.subject(prefix=prefix, node=node, instance=instance)
