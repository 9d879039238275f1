"""The kill loop: recorder and server are killed with -9 at random while facts are told; each must be a row, once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from antiphon.messages.facts import InstanceChanged
from antiphon.stats import snapshot
from antiphon.stats.store import Store
from benchmarks.stats.recorder import Fabric, fabric

RESTLESS = {"ANTIPHON_RECORD_SEAL_ROWS": "1500", "ANTIPHON_RECORD_SEAL_MS": "400", "ANTIPHON_RECORD_SNAPSHOT_MS": "50"}
"""Sealed and copied all the time, so that kills fall into that, too."""
PAUSE_S = (0.05, 1.2)
SERVER_SHARE = 0.3
AWAITED_SHARE = 0.7
"""How often the next blow waits until the new recorder writes; the others strike it while it starts."""


@dataclass(frozen=True, slots=True)
class Count:
    """What is in the record after a kill loop."""

    rows: int
    distinct: int
    dead: int
    gaps: int
    dropped: int
    kills: int
    segments: int


async def kill_loop(folder: Path, facts: int, kills: int, seed: int) -> Count:
    """Tell so many facts while so many kills happen, and count what has become of them."""
    dice = Random(f"kills/{seed}")
    async with fabric(folder, RESTLESS) as made:
        await made.until(lambda one: one.state == "recording", 60)
        telling = asyncio.ensure_future(_tell(made, facts, kills))
        for _ in range(kills):
            await asyncio.sleep(dice.uniform(*PAUSE_S))
            if dice.random() < SERVER_SHARE:
                await made.kill_server()
                continue
            await made.kill_recorder()
            if dice.random() < AWAITED_SHARE:
                await made.until(lambda one: one.state == "recording", 60)
        await telling
        await made.caught_up(120)
        dropped = made.keeper.dropped
    return counted(made.record, kills, dropped)


async def _tell(made: Fabric, facts: int, kills: int) -> None:
    """Tell the facts evenly over about the time that the kills take."""
    step = max(1, facts // max(1, kills * 12))
    for begin in range(0, facts, step):
        for number in range(begin, min(facts, begin + step)):
            made.facts.tell(InstanceChanged(at_ms=number, node="kill-loop", instance=f"i{number}", change="updated"))
        await asyncio.sleep(0.05)


def counted(record: Path, kills: int = 0, dropped: int = 0) -> Count:
    """Count what is in a record that nobody writes now."""
    store = Store(record, "antiphon")
    now_ms = time.time_ns() // 1_000_000
    store.open(now_ms)
    place = snapshot.write(store, now_ms)
    [(segments,)] = store.execute("SELECT count(*) FROM segments")
    store.execute(f"ATTACH '{place}' AS whole (READ_ONLY)")
    query = "SELECT count(*), count(DISTINCT instance) FROM whole.registry_events WHERE node = 'kill-loop'"
    [(rows, distinct)] = store.execute(query)
    [(dead,)] = store.execute("SELECT count(*) FROM whole.dead_facts")
    [(gaps,)] = store.execute("SELECT count(*) FROM whole.gaps")
    store.close()
    return Count(rows, distinct, dead, gaps, dropped, kills, segments)
