"""The threat suite is whole: numbered without a gap, each attack run twice, explained, and in docs/security.md."""

from __future__ import annotations

from pathlib import Path

from threat_table import attacks, fill

PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def test_the_attacks_are_numbered_and_each_is_run_with_its_defence_and_without() -> None:
    found = attacks()
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    assert len(found) >= 25
    assert [one.number for one in found if not one.is_twice] == []


def test_the_page_has_every_attack() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert fill(text) == text, "run `python tests/threat_table.py docs/security.md`"
