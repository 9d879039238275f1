"""The record of jobs: read from its two streams, folded, and waited for.

What is heard on the bus only says that there is something to read: a message is stored a moment after it is heard. So a
reader that was woken reads again, a few times, until the stream has something new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from antiphon.bus.bus import Bus
from antiphon.bus.codec import decode
from antiphon.bus.protocol import Journal, Stored
from antiphon.decide import job as folding
from antiphon.decide.job import Job, Seen, Written
from antiphon.errors import AntiphonError, InvalidName, NoResponders, Oversize, UnknownJob, UnknownVersion
from antiphon.messages.actions import JobGet, JobView
from antiphon.messages.jobs import JobProbe, JobRecord, JobReported

READS_MAX = 4
"""Records read at once; one of a thousand nodes may be 30 MB."""
CHUNK = 256
"""Subjects asked for by name in one question, where a record has more than the server finds by a pattern."""
LOOK_MS = 1_000
"""How often somebody who waits looks again although nothing was heard: whether its master is gone, or it is overdue."""
STORED_MS = (1, 4, 16, 64)
"""Pauses in which what was just heard is stored."""
PROBE_MS = 500
GONE_MS = 250
"""Until what a master wrote last, before it was gone, is stored."""


class JobBook:
    """The record of jobs, as one master reads it.

    Args:
        bus: the master's.
        records: the masters' stream.
        reports: the nodes' stream.
        is_mine: whether a job runs on this very master.
    """

    def __init__(self, bus: Bus, records: Journal, reports: Journal, is_mine: Callable[[str], bool]) -> None:
        self.bus = bus
        self.records = records
        self.reports = reports
        self._is_mine = is_mine
        self._reading = asyncio.Semaphore(READS_MAX)
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def heard(self, job: str) -> None:
        """Wake whoever waits for news of a job."""
        for event in self._waiting.get(job, ()):
            event.set()

    async def read(self, job: str) -> Job:
        """Return what has been written of a job; raises `UnknownJob` where nothing has."""
        async with self._reading:
            stored = await self._stored(job)
            found = folding.fold(job, [one for one in map(self._written, stored) if one is not None])
        if found is None:
            raise UnknownJob(f"there is no job {job!r}, or none that is yours; jobs are kept for a day")
        return found

    async def view(self, job: Job, after: Seen) -> JobView:
        """Return a job as it stands."""
        is_gone = job.record.end is None and await self._is_gone(job)
        if is_gone:  # its end may have been written since it was read
            await self.bus.clock.sleep_ms(GONE_MS)
            job = await self.read(job.job)
        return folding.view(job, after=after, wall_ms=self.bus.clock.wall_ms(), is_gone=is_gone)

    async def news(self, job: Job, after: Seen, until_ms: int) -> JobView:
        """Return a job as it stands once there is something newer than `after`, or its end, or it is `until_ms`."""
        event = asyncio.Event()
        self._waiting.setdefault(job.job, set()).add(event)
        try:
            return await self._news(job, after, until_ms, event)
        finally:
            self._waiting[job.job].discard(event)
            if not self._waiting[job.job]:
                del self._waiting[job.job]

    async def _news(self, job: Job, after: Seen, until_ms: int, event: asyncio.Event) -> JobView:
        clock = self.bus.clock
        while True:
            view = await self.view(job, after)
            left_ms = until_ms - clock.now_ms()
            if view.end is not None or after.is_behind(seen(view)) or left_ms <= 0:
                return view
            try:
                async with asyncio.timeout(min(left_ms, LOOK_MS) / 1_000):
                    await event.wait()
            except TimeoutError:
                job = await self.read(job.job)
                continue
            event.clear()
            for pause_ms in STORED_MS:
                await clock.sleep_ms(pause_ms)
                job = await self.read(job.job)
                if after.is_behind(folding.newest(job)):
                    break

    async def _stored(self, job: str) -> list[Stored]:
        prefix = self.bus.prefix
        of_job = f"{prefix}.v1.job.{job}"
        stored = await self.records.last(f"{of_job}.*")
        if not stored:
            return []  # without a master's record nobody's report makes a job
        try:
            return [*stored, *await self.reports.last(f"{of_job}.*.*")]
        except Oversize:
            pass
        # a thousand nodes, some of which were asked on two instances: by name, as their master's record has them
        names: list[str] = []
        for one in map(self._written, stored):
            if one is not None and isinstance(one.message, JobRecord):
                names += [f"{of_job}.{line.instance}.{line.node}" for line in one.message.lines if line.instance]
        for at in range(0, len(names), CHUNK):
            stored += await self.reports.last(*names[at : at + CHUNK])
        return stored

    def _written(self, stored: Stored) -> Written | None:
        """Return a stored message; None for one that is none, which its own writer has to answer for."""
        prefix = self.bus.prefix
        for kind in (JobReported, JobRecord):
            try:
                keys = kind.route.template.parse(stored.subject, prefix=prefix)
            except (InvalidName, UnknownVersion):
                continue
            try:
                message = decode(kind, stored.data)
            except AntiphonError as error:
                self.bus.counters.refuse(error.code)
            else:
                assert isinstance(message, (JobReported, JobRecord)), "it is of the kind that was decoded"
                return Written(stored.sequence, keys["writer"], keys.get("instance"), message)
        return None

    async def _is_gone(self, job: Job) -> bool:
        """Whether nobody runs a job any more: its master says so, or the server at once that nobody listens for it."""
        if job.master == self.bus.name:
            return not self._is_mine(job.job)
        try:
            probed = await self.bus.ask(JobProbe(job=job.job), budget_ms=PROBE_MS, master=job.master)
        except NoResponders:
            return True
        except AntiphonError:
            return False  # frozen, perhaps: its deadline will tell
        return not probed.is_running


def seen(ask: JobView | JobGet) -> Seen:
    """Return how far a reader has read who was answered this, or asks this."""
    return Seen(ask.recorded, ask.after)
