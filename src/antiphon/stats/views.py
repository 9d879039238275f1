"""The views that analysts start from; docs/sql.md has each with an example, and a test runs them all.

They stand on the tables of the record alone, so that they are the same in the snapshot, over all history, and in the
file that the query endpoint reads, over the last day. Percentiles come from buckets that are 5 % wide, so they are
exact within 3 %, over a minute as over a year.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import duckdb

from antiphon.decide.record_tables import BUCKET_BASE


def _ranked(keys: str, scope: str) -> str:
    """Return the common part: how many took up to each bucket, by keys, which are columns of `rolled`."""
    return f"""ranked AS (
    SELECT {keys}, bucket, sum(n) AS n,
        sum(sum(n)) OVER (PARTITION BY {keys} ORDER BY bucket) AS upto, sum(sum(n)) OVER (PARTITION BY {keys}) AS total
    FROM rolled WHERE scope = '{scope}' GROUP BY {keys}, bucket
), percentiles AS (
    SELECT {keys}, {_percentile(0.50, "p50_ms")}, {_percentile(0.95, "p95_ms")}, {_percentile(0.99, "p99_ms")}
    FROM ranked GROUP BY {keys}
)"""  # noqa: S608 - our own names


def _percentile(share: float, name: str) -> str:
    value = f"power({BUCKET_BASE}, bucket + 0.5) / 1000"
    return f"round(min({value}) FILTER (upto >= {share} * total), 2) AS {name}"


VIEWS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "requests_per_minute": f"""
WITH rolled AS (FROM minute_rollups), {_ranked("minute", "request")}
SELECT minute, sum(n)::BIGINT AS requests,
    coalesce(sum(n) FILTER (outcome = 'complete'), 0)::BIGINT AS complete,
    coalesce(sum(n) FILTER (outcome = 'partial'), 0)::BIGINT AS partial,
    coalesce(sum(n) FILTER (outcome NOT IN ('complete', 'partial')), 0)::BIGINT AS refused,
    any_value(p50_ms) AS p50_ms, any_value(p95_ms) AS p95_ms, any_value(p99_ms) AS p99_ms
FROM rolled JOIN percentiles USING (minute) WHERE scope = 'request' GROUP BY minute""",  # noqa: S608 - our own names
        "nodes_per_hour": f"""
WITH rolled AS (SELECT date_trunc('hour', minute) AS hour, * FROM minute_rollups), {_ranked("hour, node", "reply")}
SELECT hour, node, sum(n)::BIGINT AS asked,
    coalesce(sum(n) FILTER (outcome IN ('answered', 'empty')), 0)::BIGINT AS answered,
    coalesce(sum(n) FILTER (outcome = 'failed'), 0)::BIGINT AS failed,
    coalesce(sum(n) FILTER (outcome = 'timed_out'), 0)::BIGINT AS timed_out,
    coalesce(sum(n) FILTER (outcome = 'skipped_open'), 0)::BIGINT AS skipped,
    sum(hits)::BIGINT AS hits, any_value(p50_ms) AS p50_ms, any_value(p95_ms) AS p95_ms, any_value(p99_ms) AS p99_ms
FROM rolled JOIN percentiles USING (hour, node) WHERE scope = 'reply' GROUP BY hour, node""",  # noqa: S608 - our own names
        "error_rates": """
SELECT minute, node, sum(n)::BIGINT AS asked,
    round(coalesce(sum(n) FILTER (outcome = 'failed'), 0) / sum(n), 4) AS failed_share,
    round(coalesce(sum(n) FILTER (outcome = 'timed_out'), 0) / sum(n), 4) AS timed_out_share,
    round(coalesce(sum(n) FILTER (outcome = 'skipped_open'), 0) / sum(n), 4) AS skipped_share
FROM minute_rollups WHERE scope = 'reply' GROUP BY minute, node""",
        "coverage_per_minute": """
SELECT date_trunc('minute', ts) AS minute, count(*) AS requests, sum(expected)::BIGINT AS expected,
    sum(answered)::BIGINT AS answered, round(sum(answered) / nullif(sum(expected), 0), 4) AS coverage,
    round(avg(CASE WHEN complete THEN 1 ELSE 0 END), 4) AS complete_share
FROM requests WHERE code IS NULL GROUP BY minute""",
        "slow_requests": """
SELECT ts, request, caller, query, round(took_us / 1000, 2) AS took_ms, slowest AS blame,
    round(slowest_us / 1000, 2) AS blame_ms, slowest_outcome AS blame_outcome, expected, answered
FROM requests ORDER BY took_us DESC""",
        "breaker_timeline": """
SELECT ts, node, instance, verb, state, reason, writer AS by_master,
    lead(ts) OVER (PARTITION BY node, instance, verb ORDER BY ts, seq, fact) AS until
FROM breaker_transitions ORDER BY ts""",
        "saga_durations": """
SELECT saga, any_value(name) AS name, any_value(caller) AS caller, min(ts) FILTER (event = 'started') AS started,
    max(ts) FILTER (event = 'ended') AS ended, any_value(state) FILTER (event = 'ended') AS state,
    any_value(code) FILTER (event = 'ended') AS code, any_value(detail) FILTER (event = 'ended') AS cause,
    date_diff('millisecond', min(ts) FILTER (event = 'started'), max(ts) FILTER (event = 'ended')) AS took_ms,
    count(*) FILTER (event = 'commanded') AS commands, count(*) FILTER (event = 'parked') AS parked
FROM saga_events GROUP BY saga""",
        "saga_failures": """
SELECT name, count(*) AS sagas, count(*) FILTER (state = 'completed') AS completed,
    count(*) FILTER (state = 'compensated') AS compensated, count(*) FILTER (state = 'abandoned') AS abandoned,
    count(*) FILTER (state IS NULL) AS open, round(avg(took_ms), 1) AS mean_ms, max(took_ms) AS max_ms
FROM saga_durations GROUP BY name""",
        "hedges": """
SELECT date_trunc('hour', ts) AS hour, node, count(*) AS asked, count(hedge) AS hedged,
    count(*) FILTER (hedge = 'won') AS won,
    round(count(*) FILTER (hedge = 'won') / nullif(count(hedge), 0), 4) AS win_rate,
    round(count(hedge) / count(*), 4) AS hedged_share,
    round(coalesce(sum(wasted_us) FILTER (hedge IS NOT NULL), 0) / 1000, 1) AS wasted_ms
FROM node_replies GROUP BY hour, node""",
        "cache_hit_rate": """
SELECT date_trunc('hour', ts) AS hour, node, count(*) AS wanted, count(*) FILTER (cached) AS from_cache,
    round(count(*) FILTER (cached) / count(*), 4) AS hit_rate
FROM node_replies WHERE outcome IN ('answered', 'empty') GROUP BY hour, node""",
        "wasted_work": """
SELECT date_trunc('hour', ts) AS hour, node, count(*) AS asked, sum(attempts - 1)::BIGINT AS asked_again,
    sum(hits)::BIGINT AS hits, sum(contributed)::BIGINT AS contributed,
    round(1 - sum(contributed) / nullif(sum(hits), 0), 4) AS hits_not_shown_share,
    round(coalesce(sum(took_us) FILTER (outcome NOT IN ('answered', 'empty')), 0) / 1000, 1) AS ms_without_answer,
    round(coalesce(sum(wasted_us), 0) / 1000, 1) AS ms_for_nobody, coalesce(sum(reply_bytes), 0)::BIGINT AS reply_bytes
FROM node_replies GROUP BY hour, node""",
        "balance": """
WITH counted AS (
    SELECT date_trunc('hour', ts) AS hour, node, instance, count(*) AS asked, avg(took_us) AS took_us
    FROM node_replies WHERE instance IS NOT NULL GROUP BY ALL
)
SELECT hour, node, count(*) AS instances, sum(asked)::BIGINT AS asked, min(asked) AS least, max(asked) AS most,
    round(pow(sum(asked), 2) / (count(*) * sum(pow(asked, 2))), 4) AS fairness,
    round(min(took_us) / 1000, 2) AS fastest_ms, round(max(took_us) / 1000, 2) AS slowest_ms
FROM counted GROUP BY hour, node""",
        "top_queries": """
SELECT query, count(*) AS requests, count(DISTINCT caller) AS callers, round(avg(hits), 1) AS hits,
    round(avg(took_us) / 1000, 2) AS mean_ms, max(ts) AS last_asked
FROM requests WHERE query IS NOT NULL AND code IS NULL GROUP BY query ORDER BY requests DESC, query""",
        "queries_without_results": """
SELECT query, count(*) AS requests, count(DISTINCT caller) AS callers, max(ts) AS last_asked,
    round(avg(CASE WHEN complete THEN 1 ELSE 0 END), 4) AS complete_share
FROM requests WHERE query IS NOT NULL AND code IS NULL AND hits = 0 GROUP BY query ORDER BY requests DESC, query""",
        "contributions": """
SELECT date_trunc('hour', ts) AS hour, node, sum(contributed)::BIGINT AS shown,
    round(sum(contributed) / nullif(sum(sum(contributed)) OVER (PARTITION BY date_trunc('hour', ts)), 0), 4) AS share,
    round(avg(CASE WHEN contributed > 0 THEN 1 ELSE 0 END), 4) AS useful_share
FROM node_replies GROUP BY hour, node""",
        "action_outcomes": """
SELECT date_trunc('hour', ts) AS hour, action, count(*) AS runs, sum(targets)::BIGINT AS targets,
    sum(succeeded)::BIGINT AS succeeded, sum(failed)::BIGINT AS failed, sum(no_answer)::BIGINT AS no_answer,
    count(*) FILTER (code IS NOT NULL) AS refused, round(avg(took_us) / 1000, 2) AS mean_ms
FROM actions GROUP BY hour, action""",
        "alert_history": """
SELECT ts AS raised, alert, severity, detail,
    (SELECT min(c.ts) FROM alerts c WHERE c.alert = a.alert AND c.event = 'cleared' AND c.ts >= a.ts) AS cleared
FROM alerts a WHERE event = 'raised' ORDER BY ts DESC""",
        "record_losses": """
SELECT ts, 'gap' AS loss, stream AS place, reason, last_seq - first_seq + 1 AS messages FROM gaps
UNION ALL SELECT ts, 'dropped', writer, 'the buffer of this master was full', dropped FROM fact_losses
UNION ALL SELECT ts, 'dead', kind, reason, 1 FROM dead_facts""",
    }
)
"""What each view is; a view stands behind those that it reads."""


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Make all views where the tables are."""
    for name, query in VIEWS.items():
        connection.execute(f"CREATE VIEW {name} AS {query}")
