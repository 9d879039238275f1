"""The table of attacks in docs/security.md, made of the attacks' own docstrings.

`python tests/threat_table.py docs/security.md` writes it anew.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "system" / "threats"
MARK = "<!-- attacks: generated -->"
END = "<!-- attacks end -->"
_SAID = re.compile(
    r"Attacker: (?P<attacker>.+?) Wants: (?P<wants>.+?) Defence: (?P<defence>.+?) Source: (?P<source>.+)"
)
_NAMED = re.compile(r"test_t(\d\d)_(\w+)")


@dataclass(frozen=True)
class Attack:
    """One numbered test."""

    number: int
    title: str
    attacker: str
    defence: str
    source: str
    file: str
    is_twice: bool


def attacks() -> list[Attack]:
    """Every attack by its number; raises `ValueError` for a docstring that leaves something out."""
    found: list[Attack] = []
    for path in sorted(FOLDER.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            named = _NAMED.fullmatch(getattr(node, "name", ""))
            if named is not None and isinstance(node, ast.AsyncFunctionDef):
                found.append(_attack(node, named, path.name))
    return sorted(found, key=lambda attack: attack.number)


def _attack(node: ast.AsyncFunctionDef, named: re.Match[str], file: str) -> Attack:
    text = " ".join((ast.get_docstring(node) or "").split())
    said = _SAID.fullmatch(text)
    if said is None:
        raise ValueError(f"{node.name} says not who attacks, what he wants, what is in his way, and whose rule that is")
    defence = re.sub(r" \(.*\)$", "", said["defence"]).rstrip(".")
    source = re.sub(r" \(.*\)$", "", said["source"]).rstrip(".")
    is_twice = any(isinstance(one, ast.Name) and one.id == "both" for one in node.decorator_list)
    title = named[2].replace("_", " ")
    return Attack(int(named[1]), title, said["attacker"].rstrip("."), defence, source, file, is_twice)


def table() -> str:
    """Return the rows."""
    lines = ["| number | attack | defence | test |", "|---|---|---|---|"]
    lines += [f"| {one.number} | {one.title} | {one.defence} | `{one.file}` |" for one in attacks()]
    return "\n".join(lines)


def fill(text: str) -> str:
    """Return a page with its table of now."""
    head, _, rest = text.partition(MARK)
    return f"{head}{MARK}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(fill(page.read_text("utf-8")), "utf-8")
