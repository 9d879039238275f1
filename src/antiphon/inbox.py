"""The inbox: an effect in a database happens exactly once, however often its step is asked for.

The idempotency key of a saga's step and the handler's own changes are committed in one transaction, so either both are
there or neither is. Whoever comes with a key that is there gets the recorded result and changes nothing. Undoing a step
that never happened here leaves a mark that stops it from happening later: a late command finds its undo and is refused.

```python
import sqlite3
from antiphon import Inbox

inbox = Inbox(sqlite3)
connection = sqlite3.connect(":memory:")
inbox.create(connection)
connection.execute("CREATE TABLE charges (card TEXT, cents INTEGER)")
```

A plain (not `async`) handler runs in a thread of its own, with a connection of its own:

```python
# on a node: @node.action("charge", params=Charge, compensates="refund")
def charge(params, step):
    def effect(cursor):
        cursor.execute("INSERT INTO charges VALUES (?, ?)", (params.card, params.cents))
        return {"cents": params.cents}

    return inbox.once(connection, step, effect)
```

The pattern is that of the idempotent receiver (Hohpe and Woolf, Enterprise Integration Patterns, 2003) with the
transactional inbox of Helland, Life beyond Distributed Transactions, 2007. It works over any DB-API 2.0 driver (PEP
249) whose database has transactions and unique keys; nothing else is asked of it, no savepoints and no upserts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from pydantic import JsonValue
from pydantic_core import to_json

from antiphon.acting.context import ActionContext
from antiphon.errors import InvalidSetting, OutOfBudget, Oversize, WrongState
from antiphon.messages.saga import JSON_BYTES_MAX

TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")
KEY_BYTES_MAX: Final = 200
DONE: Final = "done"
UNDONE: Final = "undone"
STYLES: Final = {"qmark": "?", "format": "%s", "pyformat": "%s"}


class Cursor(Protocol):
    """A cursor of PEP 249."""

    def execute(self, operation: str, parameters: Sequence[Any] = ..., /) -> Any:
        """Run a statement."""

    def fetchone(self) -> Any:
        """Return the next row."""

    def close(self) -> Any:
        """Give it back."""


class Connection(Protocol):
    """A connection of PEP 249."""

    def cursor(self) -> Any:
        """Return a cursor."""

    def commit(self) -> Any:
        """Keep what was changed."""

    def rollback(self) -> Any:
        """Forget what was changed."""


Effect = Callable[[Any], Any]
"""Changes the database through a cursor and returns the result, which is JSON; it neither commits nor rolls back."""


class Inbox:
    """The keys that a database has seen.

    Args:
        driver: the DB-API module, `sqlite3` or `psycopg`; its `paramstyle` and `IntegrityError` are used.
        table: where the keys are kept.

    Raises:
        InvalidSetting: the driver has another parameter style, or the table's name is no identifier.
    """

    def __init__(self, driver: Any, *, table: str = "antiphon_inbox") -> None:
        style = getattr(driver, "paramstyle", None)
        taken = getattr(driver, "IntegrityError", None)
        if style not in STYLES or not isinstance(taken, type) or not issubclass(taken, Exception):
            raise InvalidSetting(f"{driver!r} is no DB-API module with a paramstyle of {', '.join(STYLES)}")
        if TABLE.fullmatch(table) is None:
            raise InvalidSetting(f"{table!r} cannot be a table's name")
        self.table = table
        self._mark = STYLES[style]
        self._taken: type[Exception] = taken

    def create(self, connection: Connection) -> None:
        """Make the table where it is missing, and commit."""
        cursor = connection.cursor()
        try:
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {self.table} (id VARCHAR({KEY_BYTES_MAX}) PRIMARY KEY, "
                f"state VARCHAR(8) NOT NULL, result TEXT, at_ms BIGINT NOT NULL)"
            )
            connection.commit()
        finally:
            cursor.close()

    def once(self, connection: Connection, step: ActionContext, effect: Effect) -> JsonValue:
        """Do or undo a step exactly once, and return its result, the recorded one where it was done before.

        Where a step is to be undone that was never done here, `effect` is not called, None is returned, and the step
        is refused from then on. Where its time is over, nothing is changed.

        Args:
            connection: with no transaction open, and not in autocommit mode.
            step: what the handler was given.
            effect: what changes the database.

        Raises:
            WrongState: the step's undo was seen before the step: it must not be done any more.
            OutOfBudget: nobody waits for it any more, and it may be undone elsewhere.
            InvalidSetting: the connection commits each statement by itself.
            Oversize: the result is larger than one may be.
        """
        is_bare = hasattr(connection, "in_transaction") and getattr(connection, "isolation_level", "") is None
        if is_bare or getattr(connection, "autocommit", False) is True:
            raise InvalidSetting("the inbox needs a connection that does not commit by itself")
        cursor = connection.cursor()
        try:
            if step.undo is None:
                return self._do(connection, cursor, step, effect)
            return self._undo(connection, cursor, step, effect)
        except BaseException:
            connection.rollback()
            raise
        finally:
            cursor.close()

    def forget(self, connection: Connection, before_ms: int) -> None:
        """Forget keys that are older than that time, UTC; it has to be longer ago than any saga can last."""
        cursor = connection.cursor()
        try:
            cursor.execute(f"DELETE FROM {self.table} WHERE at_ms < {self._mark}", (before_ms,))  # noqa: S608 - checked
            connection.commit()
        finally:
            cursor.close()

    def _do(self, connection: Connection, cursor: Cursor, step: ActionContext, effect: Effect) -> JsonValue:
        # the key first: whoever comes second waits for the first one's transaction, and then finds it
        if not self._insert(cursor, step.key, DONE, step):
            connection.rollback()
            state, result = self._row(cursor, step.key)
            connection.rollback()
            if state == UNDONE:
                raise WrongState(f"{step.key} was undone before it was done")
            return result
        return self._changed(connection, cursor, step, effect)

    def _undo(self, connection: Connection, cursor: Cursor, step: ActionContext, effect: Effect) -> JsonValue:
        forward = step.key[:-1] + "f"
        if self._insert(cursor, forward, UNDONE, step):
            # it was never done here, and is not any more; this is all that there is to undo
            self._insert(cursor, step.key, DONE, step)
            connection.commit()
            return None
        connection.rollback()
        if not self._insert(cursor, step.key, DONE, step):
            connection.rollback()
            _, result = self._row(cursor, step.key)
            connection.rollback()
            return result
        cursor.execute(
            f"UPDATE {self.table} SET state = {self._mark} WHERE id = {self._mark}",  # noqa: S608 - checked
            (UNDONE, forward),
        )
        return self._changed(connection, cursor, step, effect)

    def _changed(self, connection: Connection, cursor: Cursor, step: ActionContext, effect: Effect) -> JsonValue:
        _check_time(step)
        result: JsonValue = effect(cursor)
        text = to_json(result)
        if len(text) > JSON_BYTES_MAX:
            raise Oversize(f"the result of {step.action} has {len(text)} bytes; the bound is {JSON_BYTES_MAX}")
        cursor.execute(
            f"UPDATE {self.table} SET result = {self._mark} WHERE id = {self._mark}",  # noqa: S608 - checked
            (text.decode(), step.key),
        )
        _check_time(step)
        connection.commit()
        return result

    def _insert(self, cursor: Cursor, key: str, state: str, step: ActionContext) -> bool:
        """Take a key; return False where it is taken."""
        marks = ", ".join([self._mark] * 3)
        try:
            cursor.execute(
                f"INSERT INTO {self.table} (id, state, at_ms) VALUES ({marks})",  # noqa: S608 - checked
                (key, state, step.clock.wall_ms()),
            )
        except self._taken:
            return False
        return True

    def _row(self, cursor: Cursor, key: str) -> tuple[str, JsonValue]:
        cursor.execute(f"SELECT state, result FROM {self.table} WHERE id = {self._mark}", (key,))  # noqa: S608 - checked
        row = cursor.fetchone()
        assert row is not None, "it was taken a moment ago, and is forgotten much later"
        state, result = row
        return str(state), None if result is None else json.loads(result)


def _check_time(step: ActionContext) -> None:
    if step.left_ms <= 0:
        raise OutOfBudget(f"{step.key}: its time is over")
