"""The actions actor: takes in orders to run actions, runs each as a job, and answers for jobs, also other masters'."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

import structlog

from antiphon.actors.asker import Askers
from antiphon.actors.breaker import BreakerHandle
from antiphon.actors.job import Job
from antiphon.actors.jobs import JobBook, seen
from antiphon.actors.order import JobBounds, JobGround, Order
from antiphon.actors.waits import Waits
from antiphon.bus.assets import jobs_of, reports_of
from antiphon.bus.bus import Bus, Call
from antiphon.bus.codec import decode
from antiphon.bus.protocol import Delivery, Subscription
from antiphon.decide import job as folding
from antiphon.decide import offers
from antiphon.decide.dispatch import RUN, Dispatch, DispatchBounds
from antiphon.decide.job import Seen
from antiphon.decide.limit import Rate
from antiphon.decide.policy import Access, Principal, Verify
from antiphon.decide.registry import RegistryView
from antiphon.decide.retry import RetryBounds
from antiphon.decide.targets import Asker, choose
from antiphon.errors import AntiphonError, Overloaded, UnknownJob
from antiphon.messages.actions import ActionList, ActionListing, ActionRun, JobCancel, JobGet, JobView, RunState
from antiphon.messages.base import Message
from antiphon.messages.jobs import ActionFinished, JobCancelled, JobProbe, JobProbed, JobReported, JobWritten
from antiphon.messages.lane import NodeCancel
from antiphon.runtime.actor import Actor, ActorBounds, answers, converses, hears
from antiphon.runtime.facts import Facts
from antiphon.runtime.views import View

log = structlog.get_logger("antiphon.actions")

RESERVE_MS = 50
"""Kept of the asker's budget for the way back."""
JOBS_MAX = 256
"""Jobs that run at once on one master."""
WAITS_MAX = 512
"""Requests that are kept waiting for jobs; what is more is answered at once, or refused as overloaded."""
CALLER_WAITS_MAX = 256
"""The same of one caller."""
WAIT_AGAIN_MS = 1_000
"""When one that was refused may come again."""
REPORT_TOKENS = 3
"""The last tokens of a report's subject: job, instance, node."""


class Actions(Actor):
    """Runs actions."""

    name = "actions"

    def __init__(
        self,
        bus: Bus,
        registry: View[RegistryView],
        facts: Facts,
        breakers: BreakerHandle,
        *,
        job: JobBounds | None = None,
        jobs_max: int = JOBS_MAX,
        rate: Rate | None = None,
        dispatch: DispatchBounds | None = None,
        retries: RetryBounds | None = None,
        bounds: ActorBounds | None = None,
        access: View[Access] | None = None,
        verify: Verify | None = None,
        dice: Random | None = None,
    ) -> None:
        super().__init__(bus, bounds=bounds)
        self.facts = facts
        self.registry = registry
        self.jobs_max = jobs_max
        self.access = access or View(Access())
        self.askers = Askers(bus.clock, self.access, registry, verify, rate)
        self.dispatch = Dispatch(dispatch or DispatchBounds(), breakers, dice or Random(), verb=RUN)  # noqa: S311 - a choice
        self._job_bounds = job or JobBounds()
        self._retries = retries or RetryBounds()
        self.waits = Waits(WAITS_MAX, CALLER_WAITS_MAX)
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._ground: JobGround | None = None
        self._book: JobBook | None = None
        self._listening: list[Subscription] = []

    async def started(self) -> None:
        """Open the record, and hear what nodes write into it."""
        records = await self.bus.transport.journal(jobs_of(self.bus.prefix))
        reports = await self.bus.transport.journal(reports_of(self.bus.prefix))
        self._book = JobBook(self.bus, records, reports, self._jobs.__contains__)
        self._ground = JobGround(
            bus=self.bus,
            registry=self.registry,
            dispatch=self.dispatch,
            records=records,
            facts=self.facts,
            bounds=self._job_bounds,
            retries=self._retries,
            retry_budget=self._retries.budget(),
        )
        # not as actors hear facts: of other masters' jobs, which are most, nothing but the subject is read
        pattern = JobReported.route.template.pattern(prefix=self.bus.prefix)
        self._listening.append(await self.bus.transport.subscribe(pattern, self._take_report))

    def subject_keys(self, kind: type[Message]) -> dict[str, str]:
        """Return this master's name, where it alone is asked."""
        return {"master": self.bus.name} if kind is JobProbe else {}

    async def stop(self, *, is_crashed: bool = False) -> None:
        """Stop as every actor does; jobs that run may end within the grace, then they are lost, and say so."""
        await super().stop(is_crashed=is_crashed)
        if self._tasks and not is_crashed:
            await asyncio.wait(self._tasks, timeout=self.bounds.stop_grace_ms / 1_000)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for subscription in self._listening:
            await subscription.drain()
        self._listening.clear()

    @converses(ActionRun)
    async def run_action(self, call: Call[ActionRun]) -> JobView:
        """Begin a job, and answer with it: at once, or when it has ended."""
        began_us = self.bus.clock.now_us()
        who = Principal(call.caller)
        try:
            who = self.askers.who(call.caller, call.message.behalf)
            job = await self._begun(call, who)
        except AntiphonError as error:
            self._tell_refused(call, who, began_us, error.code)
            raise
        wait_ms = min(call.message.wait_ms, call.deadline_ms - self.bus.clock.now_ms() - RESERVE_MS)
        if isinstance(job, JobView):
            return job
        if wait_ms > 0:
            with self.waits.of(call.caller) as has_room, suppress(TimeoutError):
                await asyncio.wait_for(job.over.wait(), wait_ms / 1_000 if has_room else 0)
        if not job.is_written and not job.over.is_set():
            await job.write()
        return job.view()

    @converses(JobGet)
    async def get(self, call: Call[JobGet]) -> JobView:
        """Say how a job stands, once there is news or the wait is over."""
        ask = call.message
        job = await self._seen(ask.job, self.askers.who(call.caller, ask.behalf))
        until_ms = min(self.bus.clock.now_ms() + ask.wait_ms, call.deadline_ms - RESERVE_MS)
        with self.waits.of(call.caller) as has_room:
            if ask.wait_ms and not has_room:
                raise Overloaded("as many wait for news of jobs as may", retry_after_ms=WAIT_AGAIN_MS)
            return await self.book.news(job, seen(ask), until_ms)

    @converses(JobCancel)
    async def cancel(self, call: Call[JobCancel]) -> JobView:
        """Cancel a job, wherever it runs, and say how it stands once it has ended."""
        ask, who = call.message, self.askers.who(call.caller, call.message.behalf)
        job = await self._seen(ask.job, who)
        view = await self.book.view(job, Seen())
        mine = self._jobs.get(ask.job)
        if mine is not None:
            mine.cancel(who.name)
        elif view.end is None:
            await self.bus.publish(JobCancelled(job=ask.job, by=who.name))
        if mine is None:
            await self._cut_off(view)  # also where its master is gone: nobody else tells its nodes
        until_ms = call.deadline_ms - RESERVE_MS
        after = seen(view)
        while view.end is None and self.bus.clock.now_ms() < until_ms:
            view = await self.book.news(await self.book.read(ask.job), after, until_ms)
            after = after.joined(seen(view))
        return await self.book.view(await self.book.read(ask.job), Seen())

    @converses(ActionList)
    async def list_actions(self, call: Call[ActionList]) -> ActionListing:
        """List the actions that the caller may run, as many as one message holds."""
        asker = self._asker(self.askers.who(call.caller, call.message.behalf))
        return offers.listing(call.message, self.registry.current.nodes, asker, self.bus.name)

    @hears(JobCancelled)
    async def cancelled(self, fact: JobCancelled, _keys: dict[str, str]) -> None:
        """Cancel a job of this master, as somebody has asked another one."""
        job = self._jobs.get(fact.job)
        if job is not None:
            job.cancel(fact.by)

    @hears(JobWritten)
    async def written(self, fact: JobWritten, _keys: dict[str, str]) -> None:
        """Wake whoever waits for news of a job."""
        self.book.heard(fact.job)

    @answers(JobProbe)
    async def probe(self, call: Call[JobProbe]) -> JobProbed:
        """Say whether this master runs a job: another one is asked how it stands."""
        return JobProbed(is_running=call.message.job in self._jobs)

    @property
    def book(self) -> JobBook:
        """The record."""
        assert self._book is not None, "started() opens it"
        return self._book

    async def _begun(self, call: Call[ActionRun], who: Principal) -> Job | JobView:
        """Return the job that was begun, or the one that this request had begun before."""
        ask = call.message
        name = folding.job_id(who.name, call.request)
        if name in self._jobs:
            return self._jobs[name]
        self.askers.count(who, "run an action")
        if len(self._jobs) >= self.jobs_max:
            raise Overloaded(f"{self.jobs_max} jobs are running", retry_after_ms=self.bounds.retry_after_ms)
        targets = choose(ask, self.registry.current.nodes, self._asker(who), int(name[:12], 16))
        assert self._ground is not None, "started() makes it"
        job = Job(self._ground, Order(name, call.request, ask, who, targets))
        self._jobs[name] = job
        try:
            # who waits for the end of one node's run is promised nothing before, so its record can be written with it
            if not (ask.wait_ms and len(targets.nodes) == 1) and not await job.begin():
                del self._jobs[name]
                return await self.book.view(await self._seen(name, who), Seen())
        except BaseException:
            self._jobs.pop(name, None)
            raise
        task = asyncio.get_running_loop().create_task(job.drive(), name=f"job:{name}")
        self._tasks[task] = name
        task.add_done_callback(self._ended)
        return job

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.pop(self._tasks.pop(task), None)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.conversations.bugs += 1
            log.error("job.bug", exc_info=bug)

    def _asker(self, who: Principal) -> Asker:
        return Asker(who, self.access.current, self.askers.shown(who).nodes)

    async def _seen(self, name: str, who: Principal) -> folding.Job:
        """Return a job that somebody may see: its caller, and operators; for others there is none."""
        mine = self._jobs.get(name)
        if mine is not None:
            await mine.write()
        job = await self.book.read(name)
        if job.record.caller != who.name and not self.access.current.is_operator(who.name):
            raise UnknownJob(f"there is no job {name!r}, or none that is yours; jobs are kept for a day")
        return job

    async def _cut_off(self, view: JobView) -> None:
        for line in view.lines:
            if line.instance is not None and line.state in (RunState.RUNNING, RunState.NO_ANSWER):
                with suppress(AntiphonError):
                    await self.bus.tell(NodeCancel(ticket=view.job), node=line.node, instance=line.instance)

    # -- what is heard

    async def _take_report(self, delivery: Delivery) -> None:
        name, instance, node = delivery.subject.split(".")[-REPORT_TOKENS:]
        job = self._jobs.get(name)
        if job is not None:
            try:
                report = decode(JobReported, delivery.data)
            except AntiphonError as error:
                self.bus.counters.refuse(error.code)
                return
            job.report(node, instance, report)
        self.book.heard(name)

    def _tell_refused(self, call: Call[ActionRun], who: Principal, began_us: int, code: str) -> None:
        if self.facts.is_on:
            fact = ActionFinished(
                request=call.request,
                action=call.message.action,
                caller=who.name,
                delegate=who.delegate,
                dry_run=call.message.dry_run,
                at_ms=self.bus.clock.wall_ms(),
                took_us=self.bus.clock.now_us() - began_us,
                code=code,
            )
            self.facts.tell(fact)
