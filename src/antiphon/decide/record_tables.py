"""The tables of the record: their names, columns and types, and which of them are sealed, rolled up and private.

A column is never renamed and never changes its type; a new one is added at the end of its table, with a migration
(`stats/schema.py`). `ts` is when it happened, by the clock of whoever tells it, in UTC; `seq` and `fact` are where it
stands in its stream, so that a row can be traced to the bytes that it was made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

Columns = Mapping[str, str]
WHERE: Final = {"ts": "TIMESTAMP", "writer": "VARCHAR", "seq": "BIGINT", "fact": "INTEGER"}
"""What every table of facts begins with: when, who tells it, and where it stands in its stream."""

_FACTS: Final[dict[str, Columns]] = {
    "requests": {
        "request": "VARCHAR", "caller": "VARCHAR", "delegate": "VARCHAR", "query": "VARCHAR", "code": "VARCHAR",
        "took_us": "BIGINT", "hits": "INTEGER", "total": "BIGINT", "duplicates": "BIGINT", "fusion": "VARCHAR",
        "complete": "BOOLEAN", "sufficient": "BOOLEAN", "expected": "INTEGER", "answered": "INTEGER",
        "empty": "INTEGER", "failed": "INTEGER", "timed_out": "INTEGER", "skipped_open": "INTEGER",
        "hedged": "INTEGER", "degraded": "VARCHAR[]", "slowest": "VARCHAR", "slowest_us": "BIGINT",
        "slowest_outcome": "VARCHAR",
    },
    "node_replies": {
        "request": "VARCHAR", "node": "VARCHAR", "instance": "VARCHAR", "outcome": "VARCHAR", "hits": "INTEGER",
        "contributed": "INTEGER", "took_us": "BIGINT", "code": "VARCHAR", "detail": "VARCHAR", "attempts": "INTEGER",
        "flags": "VARCHAR[]", "reply_bytes": "BIGINT", "hedge": "VARCHAR", "wasted_us": "BIGINT", "cached": "BOOLEAN",
    },
    "actions": {
        "request": "VARCHAR", "job": "VARCHAR", "action": "VARCHAR", "caller": "VARCHAR", "delegate": "VARCHAR",
        "effect": "VARCHAR", "dry_run": "BOOLEAN", "took_us": "BIGINT", "ended": "VARCHAR", "code": "VARCHAR",
        "by_whom": "VARCHAR", "targets": "INTEGER", "succeeded": "INTEGER", "failed": "INTEGER",
        "no_answer": "INTEGER", "skipped": "INTEGER", "cancelled": "INTEGER",
    },
    "action_runs": {
        "request": "VARCHAR", "job": "VARCHAR", "action": "VARCHAR", "node": "VARCHAR", "instance": "VARCHAR",
        "state": "VARCHAR", "attempts": "INTEGER", "took_us": "BIGINT", "code": "VARCHAR", "detail": "VARCHAR",
    },
    "saga_events": {
        "saga": "VARCHAR", "event": "VARCHAR", "ticket": "VARCHAR", "step": "VARCHAR", "node": "VARCHAR",
        "action": "VARCHAR", "name": "VARCHAR", "caller": "VARCHAR", "state": "VARCHAR", "code": "VARCHAR",
        "detail": "VARCHAR", "by_whom": "VARCHAR", "attempts": "INTEGER", "took_ms": "BIGINT",
    },
    "saga_moves": {
        "saga": "VARCHAR", "name": "VARCHAR", "caller": "VARCHAR", "turn": "VARCHAR", "state": "VARCHAR",
        "took_ms": "BIGINT", "step": "VARCHAR", "cause": "VARCHAR", "code": "VARCHAR", "detail": "VARCHAR",
        "steps_left": "VARCHAR[]",
    },
    "breaker_transitions": {
        "node": "VARCHAR", "instance": "VARCHAR", "verb": "VARCHAR", "state": "VARCHAR", "reason": "VARCHAR",
    },
    "registry_events": {
        "node": "VARCHAR", "instance": "VARCHAR", "change": "VARCHAR", "by_whom": "VARCHAR", "fields": "VARCHAR[]",
    },
    "alerts": {
        "alert": "VARCHAR", "event": "VARCHAR", "kind": "VARCHAR", "subject": "VARCHAR", "severity": "VARCHAR",
        "value": "DOUBLE", "detail": "VARCHAR", "since": "TIMESTAMP", "master": "VARCHAR",
    },
    "identity_events": {
        "what": "VARCHAR", "who": "VARCHAR", "kind": "VARCHAR", "instance": "VARCHAR", "why": "VARCHAR",
        "place": "VARCHAR", "by_whom": "VARCHAR", "credential": "VARCHAR",
    },
    "fact_losses": {"dropped": "BIGINT", "total": "BIGINT"},
    "bucket_writes": {"bucket": "VARCHAR", "entry": "VARCHAR", "operation": "VARCHAR", "value": "VARCHAR"},
}  # fmt: skip

OWN: Final[Mapping[str, Columns]] = MappingProxyType(
    {
        "dead_facts": {
            "ts": "TIMESTAMP", "stream": "VARCHAR", "seq": "BIGINT", "fact": "INTEGER", "kind": "VARCHAR",
            "reason": "VARCHAR", "bytes": "BLOB",
        },
        "gaps": {
            "ts": "TIMESTAMP", "stream": "VARCHAR", "first_seq": "BIGINT", "last_seq": "BIGINT", "reason": "VARCHAR",
        },
    }
)  # fmt: skip
"""What the recorder itself has to say of its streams."""

TABLES: Final[Mapping[str, Columns]] = MappingProxyType(
    {**{name: {**WHERE, **columns} for name, columns in _FACTS.items()}, **OWN}
)
"""Every table that an analyst sees, by name."""

ROLLUP: Final = "minute_rollups"
ROLLUP_COLUMNS: Final[Columns] = {
    "minute": "TIMESTAMP", "scope": "VARCHAR", "node": "VARCHAR", "outcome": "VARCHAR", "bucket": "SMALLINT",
    "n": "BIGINT", "took_us": "BIGINT", "hits": "BIGINT",
}  # fmt: skip
"""How often something took about so long in a minute: `scope` is `request` or `reply`, `bucket` is 5 % wide."""
BUCKET_BASE: Final = 1.05
"""A bucket is the logarithm of microseconds to this base, rounded down; that keeps percentiles within 3 %."""
NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    "requests": ("caller", "delegate"),
    "actions": ("caller", "delegate", "by_whom"),
    "saga_events": ("caller", "by_whom"),
    "saga_moves": ("caller",),
}
"""The columns that name who asked, which an operator can have forgotten."""
TEXT: Final[Mapping[str, tuple[str, ...]]] = {"requests": ("query",)}
"""The columns that hold what he wrote; emptied where the first of the named ones is he."""
