"""The shop: its orders are read from its own database, and it says how far it is while it runs."""

import asyncio
import sqlite3

from antiphon import ActionContext, Node
from contract import SYNC, Sync, Synced

node = Node("shop", description="orders of the web shop", topics=["orders"])
orders = sqlite3.connect(":memory:")
orders.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY, day TEXT, cents INTEGER)")
orders.executemany(
    "INSERT INTO orders (day, cents) VALUES (?, ?)", [(f"2026-11-{day:02}", 4_200) for day in range(1, 21)]
)


@node.action("sync", **SYNC)
async def sync(params: Sync, context: ActionContext) -> Synced:
    """Push the orders that have changed to the warehouse."""
    changed = orders.execute("SELECT number FROM orders WHERE day >= ?", [params.since.isoformat()]).fetchall()
    for at, (number,) in enumerate(changed, 1):
        await asyncio.sleep(0.01)  # where the warehouse would be asked
        await context.progress(at, len(changed), f"order {number}")
    return Synced(records=len(changed), state="changed" if changed else "unchanged")


if __name__ == "__main__":
    node.run()
