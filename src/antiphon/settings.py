"""Every limit and default of Antiphon with its name, its unit and its reason; read at the edges and passed down.

Each is an environment variable, `ANTIPHON_` and its name in capitals: `ANTIPHON_HEARTBEAT_MS=500`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from antiphon.actors.door import DoorBounds
from antiphon.actors.identity import IdentityBounds
from antiphon.actors.order import JobBounds
from antiphon.actors.saga_bounds import SagaBounds
from antiphon.bus.bounds import Bounds
from antiphon.bus.codec import first_reason
from antiphon.decide import balance, fuse
from antiphon.decide.admission import AdmissionBounds
from antiphon.decide.alerts import AlertBounds
from antiphon.decide.bound import BoundLimits
from antiphon.decide.breaker import BreakerPolicy
from antiphon.decide.bulkhead import BulkheadBounds
from antiphon.decide.dispatch import DispatchBounds
from antiphon.decide.families import Life
from antiphon.decide.headcount import HeadBounds
from antiphon.decide.health import HealthBounds
from antiphon.decide.hedge import HedgeBounds
from antiphon.decide.knocks import KnockBounds
from antiphon.decide.limit import MINUTE_MS, Rate
from antiphon.decide.pages import PageBounds
from antiphon.decide.record_bounds import RecordingBounds, SandboxBounds, StoreBounds
from antiphon.decide.registry import Patience
from antiphon.decide.restarts import Intensity
from antiphon.decide.retry import RetryBounds
from antiphon.decide.upkeep import UpkeepBounds
from antiphon.errors import InvalidSetting
from antiphon.identity.authority import Lives
from antiphon.runtime.actor import ActorBounds
from antiphon.runtime.keeping import KeeperBounds


class Settings(BaseSettings):
    """The settings of one process."""

    model_config = SettingsConfigDict(env_prefix="ANTIPHON_", extra="ignore", frozen=True)

    prefix: str = Field(default="antiphon", description="first token of every subject; two fabrics may share a server")

    budget_default_ms: int = Field(default=5_000, ge=1, description="budget of a request that names none")
    budget_max_ms: int = Field(
        default=60_000, ge=1, description="longest budget; a longer one is cut, so nothing waits for ever"
    )
    reserve_ms: int = Field(default=50, ge=0, description="kept of a search's budget for fusing and the way back")
    fallback_reserve_ms: int = Field(default=500, ge=0, description="kept of a search's budget for fallback nodes")

    fusion: str = Field(default=fuse.DEFAULT, description="fusion method of a search that names none")
    hits_min: int = Field(
        default=20, ge=1, le=1_000, description="hits asked of a ranking node; nDCG@10 is full with 10-20"
    )
    depth: int = Field(default=100, ge=1, le=1_000, description="hits asked of a node that only matches")
    answer_bytes_max: int = Field(default=900_000, ge=1_024, description="a page ends here; a NATS message holds 1 MB")
    page_keep_ms: int = Field(default=60_000, ge=1, description="how long a cursor is good")
    pages_max: int = Field(default=1_000, ge=1, description="lists kept for cursors; the oldest is given up first")
    pages_bytes_max: int = Field(default=64 * 1024 * 1024, ge=1, description="memory of the lists kept for cursors")

    heartbeat_ms: int = Field(default=1_000, ge=10, description="how often an instance says that it lives")
    misses_max: int = Field(default=3, ge=1, description="missed heartbeats that mark an instance down")
    forget_ms: int = Field(default=900_000, ge=1, description="silence after which an instance is no longer expected")

    mailbox_max: int = Field(
        default=4_096, ge=1, description="messages waiting for one actor; more are refused as overloaded"
    )
    conversations_max: int = Field(default=1_024, ge=1, description="searches at once in one master; more are refused")
    retry_after_ms: int = Field(default=100, ge=0, description="when a refused asker may come back")
    stop_grace_ms: int = Field(default=5_000, ge=0, description="what has begun may end before a stop cuts it off")
    restarts_max: int = Field(default=5, ge=0, description="restarts of an actor within the window before it escalates")
    restart_window_ms: int = Field(default=10_000, ge=1, description="the window of restarts_max")
    tell_facts: bool = Field(default=True, description="whether facts leave the process; the record needs them")
    facts_buffer_max: int = Field(
        default=10_000, ge=1, description="facts waiting to leave; more are dropped and counted"
    )
    keep_facts: bool = Field(default=True, description="whether facts are kept in the stream that recorders read")
    facts_bytes_max: int = Field(
        default=64 * 1024 * 1024,
        ge=1_024,
        description="memory of facts waiting to be kept; more are dropped and counted",
    )
    facts_linger_ms: int = Field(
        default=50, ge=0, description="how long a fact waits for others that are kept in the same message"
    )
    late_tokens_max: int = Field(
        default=4_096, ge=0, description="given-up asks remembered, to tell late answers from stray ones"
    )

    record: bool = Field(default=True, description="whether `antiphon up` runs a recorder")
    record_queries: Literal["plain", "hashed", "none"] = Field(
        default="plain", description="what the record keeps of a question's text: plain, hashed or none"
    )
    record_batch_rows: int = Field(default=1_000, ge=1, description="rows that are written at once")
    record_batch_ms: int = Field(default=250, ge=1, description="how long a row waits for others at most")
    record_retry_ms: int = Field(default=1_000, ge=1, description="how often is tried again while the disk refuses")
    record_memory_bytes: int = Field(default=512 * 1024 * 1024, ge=64 * 1024 * 1024, description="memory of DuckDB")
    record_seal_rows: int = Field(default=250_000, ge=1, description="rows after which the hot file is sealed")
    record_seal_ms: int = Field(default=60_000, ge=1, description="age of a row after which the hot file is sealed")
    record_compact_ms: int = Field(default=3_600_000, ge=1, description="how often small segments are merged")
    record_compact_rows: int = Field(default=2_000_000, ge=1, description="rows of one merged segment at most")
    record_keep_ms: int = Field(
        default=90 * 86_400_000, ge=1, description="how long rows are kept; roll-ups are kept for ever"
    )
    record_discard_ms: int = Field(
        default=600_000, ge=0, description="how long a replaced file stays for those who have a snapshot open"
    )
    record_snapshot_ms: int = Field(default=1_000, ge=1, description="how often there is a new snapshot at most")

    query_time_ms: int = Field(default=5_000, ge=1, description="how long one statement to the record may take")
    query_memory_bytes: int = Field(
        default=256 * 1024 * 1024, ge=64 * 1024 * 1024, description="memory of one question to the record"
    )
    query_parallel_max: int = Field(default=2, ge=1, description="questions to the record at once; more are refused")
    query_rows_max: int = Field(
        default=2_000_000, ge=1, description="rows of each table that the query endpoint has, the newest of a day"
    )
    query_fresh_ms: int = Field(default=5_000, ge=1, description="how old the query endpoint's rows may be")

    caller_per_minute: int = Field(
        default=60, ge=0, description="searches of one caller a minute; as many may come at once; 0 is no limit"
    )
    caller_exact: bool = Field(
        default=False, description="count callers over all masters together, for 0.2-0.6 ms more a search"
    )
    admit_delay_ms: int = Field(
        default=10, ge=1, description="standing delay in this process above which fewer searches are taken on"
    )

    actions_per_minute: int = Field(
        default=600, ge=0, description="actions of one caller a minute; as many may come at once; 0 is no limit"
    )
    jobs_max: int = Field(default=256, ge=1, description="jobs that run at once on one master; more are refused")
    job_gone_ms: int = Field(
        default=10_000, ge=1, description="an instance in mid-run that is silent so long and does not listen is gone"
    )

    saga_lease_ms: int = Field(
        default=10_000, ge=1_000, description="a saga that nobody has moved for so long is driven by another master"
    )
    saga_history_ms: int = Field(
        default=3_600_000, ge=0, description="so long after its end a saga's history is there; then only its end"
    )
    saga_keep_ms: int = Field(
        default=30 * 86_400_000, ge=1_000, description="so long after its end a saga's id stands for it"
    )

    saga_shards: int = Field(
        default=1, ge=1, le=64, description="sets of streams that sagas are spread over; the same everywhere, for good"
    )
    saga_bytes_max: int = Field(
        default=1024 * 1024 * 1024,
        ge=16 * 1024 * 1024,
        description="of sagas' histories, and of their outcomes; the last tenth is for sagas that run",
    )
    fsync: bool = Field(
        default=False, description="whether the embedded server has each write on the disk before it acknowledges it"
    )

    balancer: str = Field(default=balance.DEFAULT, description="how an instance of a node is picked")
    node_floor_ms: int = Field(
        default=500, ge=1, description="a node is waited for at least this long: a burst must not look like silence"
    )
    node_ceiling_ms: int = Field(default=10_000, ge=1, description="and at most this long, whatever it was")
    node_parallel_max: int = Field(default=64, ge=1, description="requests of one master at one node; more wait")
    node_queue_max: int = Field(default=128, ge=0, description="searches waiting for a node that is full; more skip it")
    hedge_permille: int = Field(default=29, ge=0, le=1_000, description="hedges in a thousand requests; 0 is none")
    retry_permille: int = Field(default=100, ge=0, le=1_000, description="retries in a thousand requests")
    retry_attempts_max: int = Field(default=3, ge=1, le=10, description="times that a node is asked in one search")

    breaker_failures_max: int = Field(default=5, ge=1, description="failures in a row that open a breaker")
    breaker_rate_max: float = Field(default=0.5, gt=0, le=1, description="share of failures that opens a breaker")
    breaker_rate_calls_min: int = Field(default=20, ge=1, description="calls before that share means anything")
    breaker_wait_ms: int = Field(default=30_000, ge=1, description="from opening to the first probe")
    breaker_successes_min: int = Field(default=2, ge=1, description="successful probes that close a breaker")
    breaker_ejected_max: float = Field(
        default=0.5, gt=0, le=1, description="share of a node's instances that breakers take out at most"
    )
    breaker_panic_below: float = Field(
        default=0.0, ge=0, le=1, description="share of closed ones below which breakers are ignored; 0 is never"
    )

    access_ms: int = Field(
        default=3_600_000, ge=2_000, le=3_600_000, description="life of an access token; renewed at three quarters"
    )
    refresh_ms: int = Field(default=30 * 86_400_000, ge=10_000, description="a refresh token not used so long is over")
    tokens_per_minute: int = Field(default=60, ge=0, description="token asks of one identity a minute; 0 is no limit")
    failures_per_minute: int = Field(
        default=60, ge=0, description="refused logins with one credential from one place a minute; 0 is no limit"
    )
    strangers_per_minute: int = Field(
        default=600,
        ge=0,
        description="refused logins from one place, and one identity's there that were not, a minute that are told one "
        "by one, 0 is no limit; more are counted",
    )
    connections_max: int = Field(
        default=19_000, ge=1, description="connections at once; the server allows 1,000 more, so that masters get in"
    )
    identity_connections_max: int = Field(
        default=1_000, ge=1, description="connections at once of one identity, all its instances together"
    )

    ping_ms: int = Field(default=2_000, ge=10, description="how often the monitor pings each instance")
    ping_wait_ms: int = Field(default=1_000, ge=1, description="how long such a ping is waited for")
    ping_parallel_max: int = Field(default=64, ge=1, description="pings at once of one master")
    alert_remind_ms: int = Field(default=900_000, ge=1, description="how often is reminded of an alert that lasts")

    @classmethod
    def read(cls) -> Self:
        """Return the settings of this environment; raises `InvalidSetting` with the variable that is wrong."""
        try:
            return cls()
        except ValidationError as error:
            name, _, reason = first_reason(error).partition(":")
            raise InvalidSetting(f"environment: ANTIPHON_{name.upper()}:{reason}") from None

    def bus(self) -> Bounds:
        """Return the bus's limits."""
        return Bounds(
            budget_default_ms=self.budget_default_ms,
            budget_max_ms=self.budget_max_ms,
            late_tokens_max=self.late_tokens_max,
        )

    def keeper(self) -> KeeperBounds:
        """Return the limits of what waits to be kept."""
        return KeeperBounds(
            facts_max=self.facts_buffer_max, bytes_max=self.facts_bytes_max, linger_ms=self.facts_linger_ms
        )

    def store(self) -> StoreBounds:
        """Return what the record's store may use."""
        return StoreBounds(memory_bytes_max=self.record_memory_bytes)

    def sandbox(self) -> SandboxBounds:
        """Return what a question to the record may take."""
        return SandboxBounds(
            time_ms=self.query_time_ms,
            memory_bytes=self.query_memory_bytes,
            parallel_max=self.query_parallel_max,
            rows_max=self.query_rows_max,
            fresh_ms=self.query_fresh_ms,
        )

    def recording(self) -> RecordingBounds:
        """Return how a recorder reads its streams."""
        return RecordingBounds(
            rows=self.record_batch_rows,
            wait_ms=self.record_batch_ms,
            retry_ms=self.record_retry_ms,
            shards=self.saga_shards,
        )

    def upkeep(self) -> UpkeepBounds:
        """Return when a recorder seals, merges, discards and copies."""
        return UpkeepBounds(
            seal_rows=self.record_seal_rows,
            seal_ms=self.record_seal_ms,
            compact_ms=self.record_compact_ms,
            compact_rows_max=self.record_compact_rows,
            keep_ms=self.record_keep_ms,
            discard_ms=self.record_discard_ms,
            snapshot_ms=self.record_snapshot_ms,
        )

    def actor(self) -> ActorBounds:
        """Return the limits of each actor."""
        return ActorBounds(
            mailbox_max=self.mailbox_max,
            conversations_max=self.conversations_max,
            retry_after_ms=self.retry_after_ms,
            stop_grace_ms=self.stop_grace_ms,
        )

    def identity(self) -> IdentityBounds:
        """Return how long tokens live, and how often they may be asked for."""

        def rate(count: int) -> Rate | None:
            return Rate(count, MINUTE_MS, count) if count else None

        failures = rate(self.failures_per_minute)
        return IdentityBounds(
            lives=Lives(access_ms=self.access_ms, family=Life(idle_ms=self.refresh_ms)),
            rate=rate(self.tokens_per_minute),
            failures=failures,
            knocks=KnockBounds(failures=failures, strangers=rate(self.strangers_per_minute)),
            heads=HeadBounds(self.connections_max, self.identity_connections_max),
        )

    def patience(self) -> Patience:
        """Return how long the registry bears silence."""
        return Patience(heartbeat_ms=self.heartbeat_ms, misses_max=self.misses_max, forget_ms=self.forget_ms)

    def intensity(self) -> Intensity:
        """Return how often a crashed actor is started again."""
        return Intensity(restarts_max=self.restarts_max, window_ms=self.restart_window_ms)

    def pages(self) -> PageBounds:
        """Return the limits of the lists kept for cursors."""
        return PageBounds(keep_ms=self.page_keep_ms, lists_max=self.pages_max, bytes_max=self.pages_bytes_max)

    def breaker(self) -> BreakerPolicy:
        """Return when breakers move."""
        return BreakerPolicy(
            failures_max=self.breaker_failures_max,
            rate_max=self.breaker_rate_max,
            rate_calls_min=self.breaker_rate_calls_min,
            wait_ms=self.breaker_wait_ms,
            successes_min=self.breaker_successes_min,
            ejected_max=self.breaker_ejected_max,
            panic_below=self.breaker_panic_below,
        )

    def health(self) -> HealthBounds:
        """Return how often instances are pinged."""
        return HealthBounds(
            ping_ms=self.ping_ms,
            ping_ms_max=max(self.ping_ms, HealthBounds().ping_ms_max),
            wait_ms=self.ping_wait_ms,
            in_flight_max=self.ping_parallel_max,
            misses_max=self.misses_max,
            capacity=self.node_parallel_max,
        )

    def alerts(self) -> AlertBounds:
        """Return how often is reminded of alerts."""
        return AlertBounds(remind_ms=self.alert_remind_ms)

    def dispatch(self) -> DispatchBounds:
        """Return the limits that searches are dispatched within."""
        return DispatchBounds(
            balancer=self.balancer,
            bound=BoundLimits(floor_ms=self.node_floor_ms, ceiling_ms=self.node_ceiling_ms),
            bulkhead=BulkheadBounds(in_flight_max=self.node_parallel_max, queue_max=self.node_queue_max),
            hedge=HedgeBounds(share_permille=self.hedge_permille),
        )

    def retries(self) -> RetryBounds:
        """Return the limits of asking again."""
        permille = self.retry_permille
        return RetryBounds(self.retry_attempts_max, share_permille=permille, per_s_min=1 if permille else 0)

    def action_rate(self) -> Rate | None:
        """Return how often one caller may begin an action."""
        per_minute = self.actions_per_minute
        return Rate(per_minute, MINUTE_MS, per_minute) if per_minute else None

    def job(self) -> JobBounds:
        """Return how long what may take in a job."""
        return JobBounds(gone_ms=self.job_gone_ms)

    def sagas(self) -> SagaBounds:
        """Return how long what of a saga is kept."""
        return SagaBounds(
            lease_ms=self.saga_lease_ms,
            history_ms=self.saga_history_ms,
            keep_ms=self.saga_keep_ms,
            shards=self.saga_shards,
            bytes_max=self.saga_bytes_max,
        )

    def door(self) -> DoorBounds:
        """Return whom a master lets in."""
        per_minute = self.caller_per_minute
        return DoorBounds(
            rate=Rate(per_minute, MINUTE_MS, per_minute) if per_minute else None,
            is_exact=self.caller_exact,
            admission=AdmissionBounds(target_ms=self.admit_delay_ms, limit_max=self.conversations_max),
        )
