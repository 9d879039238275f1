"""The figures of `antiphon stats`, each with the statement that it comes from.

A statement says `{since}` for the condition that rows are new enough and `{node}` for the one that they are of a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from antiphon.decide.record_tables import BUCKET_BASE

_MS: Final = f"round(min(power({BUCKET_BASE}, bucket + 0.5)) FILTER (upto >= {{share}} * total) / 1000, 2)"
_PERCENTILES: Final = ", ".join(
    f"{_MS.format(share=share)} AS {name}" for share, name in ((0.5, "p50_ms"), (0.95, "p95_ms"), (0.99, "p99_ms"))
)

PLACES_MAX: Final = 61
"""Stretches that the traffic is shown in, of whole minutes: an hour has one for each that it touches."""
MINUTE_MS: Final = 60_000

FIGURES: Final[Mapping[str, str]] = {
    "traffic": """WITH begun AS (SELECT {begin} AS first), counted AS (
    SELECT (epoch_ms(minute) - epoch_ms(first)) // {step_ms} AS place, sum(requests) AS requests, max(p95_ms) AS p95_ms
    FROM requests_per_minute, begun WHERE minute >= first GROUP BY place
)
SELECT first + to_milliseconds(range * {step_ms}) AS since, coalesce(requests, 0)::BIGINT AS requests, p95_ms
FROM range({places}) CROSS JOIN begun LEFT JOIN counted ON place = range ORDER BY range""",
    "requests": """SELECT count(*) AS requests, count(*) FILTER (code IS NOT NULL) AS refused,
    round(sum(answered) / nullif(sum(expected), 0), 4) AS coverage, count(DISTINCT caller) AS callers,
    count(*) FILTER (hits = 0 AND code IS NULL) AS without_hits FROM requests WHERE {since:ts}""",
    "latency": f"""WITH counted AS (
    SELECT bucket, sum(n) AS n FROM minute_rollups WHERE scope = 'request' AND {{since:minute}} GROUP BY bucket
), ranked AS (SELECT bucket, sum(n) OVER (ORDER BY bucket) AS upto, sum(n) OVER () AS total FROM counted)
SELECT {_PERCENTILES} FROM ranked""",  # noqa: S608 - our own names
    "slowest nodes": f"""WITH replies AS (
    FROM minute_rollups WHERE scope = 'reply' AND {{since:minute}} AND {{node:node}}
), counted AS (SELECT node, bucket, sum(n) AS n FROM replies GROUP BY ALL), ranked AS (
    SELECT node, bucket, sum(n) OVER (PARTITION BY node ORDER BY bucket) AS upto,
        sum(n) OVER (PARTITION BY node) AS total
    FROM counted
), percentiles AS (SELECT node, {_PERCENTILES} FROM ranked GROUP BY node)
SELECT node, sum(n)::BIGINT AS asked, coalesce(sum(n) FILTER (outcome = 'failed'), 0)::BIGINT AS failed,
    coalesce(sum(n) FILTER (outcome = 'timed_out'), 0)::BIGINT AS timed_out, any_value(p50_ms) AS p50_ms,
    any_value(p95_ms) AS p95_ms, any_value(p99_ms) AS p99_ms
FROM replies JOIN percentiles USING (node) GROUP BY node ORDER BY p95_ms DESC LIMIT 10""",  # noqa: S608 - our own names
    "breakers": """SELECT ts AS since, node, instance, state, reason FROM breaker_timeline
WHERE until IS NULL AND state <> 'closed' AND {node:node} ORDER BY ts DESC LIMIT 10""",
    "cache": """SELECT count(*) AS answers, count(*) FILTER (cached) AS from_cache,
    round(count(*) FILTER (cached) / nullif(count(*), 0), 4) AS hit_rate
FROM node_replies WHERE outcome IN ('answered', 'empty') AND {since:ts} AND {node:node}""",
    "sagas": """SELECT name, count(*) AS sagas, count(*) FILTER (state = 'completed') AS completed,
    count(*) FILTER (state = 'compensated') AS compensated, count(*) FILTER (state = 'abandoned') AS abandoned,
    count(*) FILTER (state IS NULL) AS open, round(avg(took_ms), 1) AS mean_ms
FROM saga_durations WHERE {since:started} GROUP BY name ORDER BY sagas DESC LIMIT 10""",
    "actions": """SELECT action, count(*) AS runs, sum(succeeded)::BIGINT AS succeeded, sum(failed)::BIGINT AS failed,
    sum(no_answer)::BIGINT AS no_answer FROM actions WHERE {since:ts} GROUP BY action ORDER BY runs DESC LIMIT 10""",
    "alerts": "SELECT raised, severity, alert, cleared FROM alert_history WHERE {since:raised} LIMIT 5",
    "losses": "SELECT loss, count(*) AS times, sum(messages) AS lost FROM record_losses WHERE {since:ts} GROUP BY loss",
}


def statement(name: str, since_ms: int, node: str | None) -> str:
    """Return the statement of a figure, over so long until now, of one node or of all."""
    text, minutes = FIGURES[name], since_ms // MINUTE_MS + 1
    step = -(-minutes // PLACES_MAX)
    earliest = f"(now() AT TIME ZONE 'UTC') - to_milliseconds({since_ms})"
    text = text.replace("{begin}", f"date_trunc('minute', {earliest})")
    text = text.replace("{step_ms}", str(step * MINUTE_MS)).replace("{places}", str(-(-minutes // step)))
    for column in ("minute", "ts", "raised", "started"):
        begin = f"date_trunc('minute', {earliest})" if column == "minute" else earliest
        text = text.replace(f"{{since:{column}}}", f"{column} >= {begin}")
    return text.replace("{node:node}", "true" if node is None else f"node = '{node}'")
