"""The blog: a plain function, which runs in a thread of its own."""

from datetime import date

from antiphon import Node
from contract import SYNC, Sync, Synced

node = Node("blog", description="our articles", topics=["news"])
ARTICLES = {"hello": date(2026, 3, 1), "outage": date(2026, 11, 19), "autumn": date(2026, 11, 2)}


@node.action("sync", **SYNC)
def sync(params: Sync) -> Synced:
    """Build the pages anew whose articles have changed."""
    changed = [name for name, day in ARTICLES.items() if day >= params.since]
    return Synced(records=len(changed), state="changed" if changed else "unchanged")


if __name__ == "__main__":
    node.run()
