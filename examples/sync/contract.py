"""What "sync" means on every system of the company: one contract, which each of its nodes declares."""

from datetime import date
from typing import Any

from pydantic import BaseModel, Field


class Sync(BaseModel):
    since: date = Field(default=date(2026, 1, 1), description="what has changed from this day on")


class Synced(BaseModel):
    records: int
    state: str = "changed"


SYNC: dict[str, Any] = {
    "params": Sync,
    "result": Synced,
    "idempotent": True,  # what was synced already is synced again to the same effect: a node may be asked twice
    "aggregates": {"records": "sum", "state": "histogram"},
}
