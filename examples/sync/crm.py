"""The CRM: it refuses what it cannot do, with a typed error that reaches whoever has asked."""

from datetime import date

from antiphon import Node
from antiphon.errors import Declined
from contract import SYNC, Sync, Synced

node = Node("crm", description="customers and what was said to them", topics=["customers"])
KEPT_SINCE = date(2026, 6, 1)


@node.action("sync", **SYNC)
async def sync(params: Sync) -> Synced:
    """Fetch the customers that have changed."""
    if params.since < KEPT_SINCE:
        raise Declined(f"changes are kept since {KEPT_SINCE}")
    return Synced(records=7)


if __name__ == "__main__":
    node.run()
