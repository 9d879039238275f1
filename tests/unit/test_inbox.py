"""The laws of the inbox, on real SQLite files: an effect happens once, or never, or once and is undone once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon import ActionContext, Inbox
from antiphon.clock import LoopClock
from antiphon.errors import InvalidSetting, OutOfBudget, Oversize, WrongState
from antiphon.messages.saga_history import StepDone

INBOX = Inbox(sqlite3)


class Clock(LoopClock):
    """Stands still until it is moved."""

    ms = 1_000

    def now_ms(self) -> int:
        return self.ms


def context(*, undo: bool = False, left_ms: int = 10_000, clock: Clock | None = None) -> ActionContext:
    clock = clock or Clock()
    return ActionContext(
        action="charge",
        job="s1",
        key="s1/1b" if undo else "s1/1f",
        clock=clock,
        deadline_ms=clock.now_ms() + left_ms,
        told=lambda _done, _total, _text: None,
        undo=StepDone(params={}, result=None) if undo else None,
    )


def opened(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    INBOX.create(connection)
    connection.execute("CREATE TABLE IF NOT EXISTS effects (what TEXT)")
    connection.commit()
    return connection


def effects(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT what FROM effects ORDER BY rowid")]


def charge(cursor: Any) -> Any:
    cursor.execute("INSERT INTO effects VALUES ('charge')")
    return {"id": "ch_1"}


def refund(cursor: Any) -> Any:
    cursor.execute("INSERT INTO effects VALUES ('refund')")
    return "refunded"


def test_an_effect_happens_once_and_its_result_is_told_again(tmp_path: Path) -> None:
    connection = opened(tmp_path / "a.db")
    assert [INBOX.once(connection, context(), charge) for _ in range(3)] == [{"id": "ch_1"}] * 3
    assert effects(connection) == ["charge"]
    assert [INBOX.once(connection, context(undo=True), refund) for _ in range(2)] == ["refunded"] * 2
    assert effects(connection) == ["charge", "refund"]


def test_what_was_undone_before_it_was_done_is_never_done(tmp_path: Path) -> None:
    connection = opened(tmp_path / "a.db")
    assert INBOX.once(connection, context(undo=True), refund) is None
    with pytest.raises(WrongState, match="undone before"):
        INBOX.once(connection, context(), charge)
    assert INBOX.once(connection, context(undo=True), refund) is None
    assert effects(connection) == []


def test_a_failing_effect_leaves_nothing_and_may_be_tried_again(tmp_path: Path) -> None:
    connection = opened(tmp_path / "a.db")

    def fail(cursor: Any) -> Any:
        charge(cursor)
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        INBOX.once(connection, context(), fail)
    with pytest.raises(Oversize):
        INBOX.once(connection, context(), lambda cursor: [charge(cursor), "x" * 40_000])
    assert effects(connection) == []
    assert INBOX.once(connection, context(), charge) == {"id": "ch_1"}
    assert effects(connection) == ["charge"]


def test_what_is_too_late_changes_nothing(tmp_path: Path) -> None:
    connection = opened(tmp_path / "a.db")
    with pytest.raises(OutOfBudget):
        INBOX.once(connection, context(left_ms=0), charge)
    clock = Clock()

    def slow(cursor: Any) -> Any:
        clock.ms += 10_000
        return charge(cursor)

    with pytest.raises(OutOfBudget):
        INBOX.once(connection, context(clock=clock), slow)
    assert effects(connection) == []


@given(st.lists(st.sampled_from(["do", "undo", "do, cut off", "undo, cut off"]), max_size=12))
def test_in_whatever_order_they_come_and_wherever_they_are_cut_off_the_ledger_adds_up(orders: list[str]) -> None:
    connection = opened(":memory:")

    def cut_off(cursor: Any) -> Any:
        charge(cursor)
        raise KeyboardInterrupt

    for order in orders:
        is_undo, is_cut_off = order.startswith("undo"), order.endswith("cut off")
        effect = cut_off if is_cut_off else refund if is_undo else charge
        try:
            INBOX.once(connection, context(undo=is_undo), effect)
        except (WrongState, KeyboardInterrupt):
            assert not connection.in_transaction
    found = effects(connection)
    assert found in ([], ["charge"], ["charge", "refund"])
    # an undo that finds nothing done has no effect to cut off: it is an undo all the same
    first = next((one for one in orders if one in ("do", "undo") or one == "undo, cut off"), None)
    assert bool(found) == (first == "do")
    if found:
        assert ("refund" in found) == ("undo" in orders[orders.index("do") :])


@pytest.mark.parametrize("round_", range(10))
def test_doing_and_undoing_at_once_is_one_after_the_other(tmp_path: Path, round_: int) -> None:
    path = tmp_path / f"{round_}.db"
    opened(path).close()
    ready = threading.Barrier(4)

    def work(*, undo: bool) -> None:
        connection = sqlite3.connect(path, timeout=30)
        ready.wait()
        try:
            INBOX.once(connection, context(undo=undo), refund if undo else charge)
        except WrongState:
            assert not undo
        finally:
            connection.close()

    threads = [threading.Thread(target=work, kwargs={"undo": at % 2 == 0}) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    connection = sqlite3.connect(path)
    assert effects(connection) in ([], ["charge", "refund"])
    assert {row[0] for row in connection.execute("SELECT id FROM antiphon_inbox")} == {"s1/1f", "s1/1b"}
    connection.close()


def test_old_keys_are_forgotten(tmp_path: Path) -> None:
    connection = opened(tmp_path / "a.db")
    INBOX.once(connection, context(), charge)
    INBOX.forget(connection, 0)
    assert INBOX.once(connection, context(), charge) == {"id": "ch_1"}
    assert effects(connection) == ["charge"]
    INBOX.forget(connection, 2**62)
    INBOX.once(connection, context(), charge)
    assert effects(connection) == ["charge", "charge"]


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="DB-API"):
        Inbox(object())
    with pytest.raises(InvalidSetting, match="table"):
        Inbox(sqlite3, table="x; DROP TABLE users")
    opened(tmp_path / "a.db").close()
    bare = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    with pytest.raises(InvalidSetting, match="commit by itself"):
        INBOX.once(bare, context(), charge)
    assert effects(bare) == []


def test_drivers_with_another_style_are_spoken_to_in_theirs() -> None:
    class Driver:
        paramstyle = "pyformat"
        IntegrityError = sqlite3.IntegrityError

    said: list[str] = []

    class Cursor:
        def execute(self, operation: str, _parameters: Any = ()) -> None:
            said.append(operation)

        def close(self) -> None:
            pass

    class Connection:
        def cursor(self) -> Cursor:
            return Cursor()

        def commit(self) -> None:
            pass

        def rollback(self) -> None:
            pass

    assert Inbox(Driver).once(Connection(), context(), lambda _cursor: 7) == 7
    assert said == [
        "INSERT INTO antiphon_inbox (id, state, at_ms) VALUES (%s, %s, %s)",
        "UPDATE antiphon_inbox SET result = %s WHERE id = %s",
    ]
