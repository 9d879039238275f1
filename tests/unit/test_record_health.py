"""How the record is: what is wrong of it, and that it becomes right again."""

from __future__ import annotations

from antiphon.decide.record_health import BEHIND_MS, DROPPED_MS, RECORDERS_MAX, SILENT_MS, RecordHealth, Reported


def kinds(record: RecordHealth, now_ms: int) -> list[tuple[str, str]]:
    return [(kind, subject) for kind, subject, _ in record.wrong(now_ms)]


def test_a_fabric_without_a_recorder_misses_none() -> None:
    assert kinds(RecordHealth(), 10**9) == []


def test_lost_facts_are_wrong_for_a_while() -> None:
    record = RecordHealth()
    record.lost("master", 7, 1_000)
    assert kinds(record, 1_000) == [("facts_dropped", "master")]
    assert kinds(record, 1_000 + DROPPED_MS) == []


def test_a_recorder_is_degraded_behind_silent_or_well() -> None:
    record = RecordHealth()
    record.heard("master-r", Reported(0, None, 0, 0))
    assert kinds(record, 1) == []
    record.heard("master-r", Reported(0, None, 9, BEHIND_MS))
    assert kinds(record, 1) == [("recorder_behind", "master-r")]
    record.heard("master-r", Reported(0, "no space left", 9, BEHIND_MS))
    assert kinds(record, 1) == [("recorder_degraded", "master-r")]
    assert kinds(record, SILENT_MS) == [("recorder_silent", "master-r")]
    record.stopped("master-r")
    assert kinds(record, SILENT_MS) == []


def test_recorders_are_bounded() -> None:
    record = RecordHealth()
    for number in range(RECORDERS_MAX + 5):
        record.heard(f"master-{number}", Reported(0, None, 0, 0))
    assert len(record.recorders) == RECORDERS_MAX
