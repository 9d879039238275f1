"""Forgetting somebody: his name and the text of his questions are taken out of every file of the record's folder.

The rows stay, so that counts and times stay true. The audit (`identity_events`) is not touched: who was let in or
refused is what it is kept for. What comes later of the same caller, e.g. when the stream is read again, is taken out
as it comes.
"""

from __future__ import annotations

from antiphon.decide.record_rows import timestamp
from antiphon.decide.record_tables import NAMED, TEXT
from antiphon.stats.files import RECENT, quoted
from antiphon.stats.segments import discard, listed, rewrite
from antiphon.stats.store import Store


def forget(store: Store, who: str, now_ms: int) -> tuple[int, int]:
    """Take a caller out of the record; return how many rows named him, and how many segments were written anew."""
    rows = files = 0
    name = quoted(who)
    with store.transaction() as connection:
        for table, columns in NAMED.items():
            where = " OR ".join(f"{column} = {name}" for column in columns)
            found = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()  # noqa: S608 - our own names
            rows += int(found[0]) if found else 0
            changes = ", ".join(f"{column} = {value}" for column, value in _values(table, name).items())
            connection.execute(f"UPDATE {table} SET {changes} WHERE {where}")  # noqa: S608 - our own names
        if who not in store.forgotten:
            connection.execute("INSERT INTO forgotten (caller, ts) VALUES (?, ?)", [who, timestamp(now_ms)])
    store.forgotten.add(who)
    for table, columns in NAMED.items():
        where = " OR ".join(f"{column} = {name}" for column in columns)
        replaced = ", ".join(f"{value} AS {column}" for column, value in _values(table, name).items())
        for segment in listed(store, table):
            file = quoted(store.segments / segment.file)
            [(count,)] = store.execute(f"SELECT count(*) FROM read_parquet({file}) WHERE {where}")  # noqa: S608 - our own
            if count:
                rewrite(store, table, segment, f"* REPLACE ({replaced})", now_ms)
                rows += int(count)
                files += 1
    discard(store, None)  # the parts of what was merged hold him, too
    store.rewrite(now_ms)
    with store.writing():
        (store.folder / RECENT).unlink(missing_ok=True)
    store.execute("UPDATE forgotten SET done = ? WHERE caller = ?", [timestamp(now_ms), who])
    return rows, files


def finish(store: Store, now_ms: int) -> None:
    """Forget whom a kill has kept from being forgotten everywhere."""
    for (who,) in store.execute("SELECT caller FROM forgotten WHERE done IS NULL"):
        forget(store, str(who), now_ms)


def _values(table: str, name: str) -> dict[str, str]:
    """Return the new value of each column, as SQL."""
    named = NAMED[table]
    values = {column: f"CASE WHEN {column} = {name} THEN NULL ELSE {column} END" for column in named}
    texts = {column: f"CASE WHEN {named[0]} = {name} THEN NULL ELSE {column} END" for column in TEXT.get(table, ())}
    return {**texts, **values}
