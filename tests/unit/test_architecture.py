"""docs/architecture.md names what is there, and leaves out no message, actor, decision, command or layer."""

from __future__ import annotations

import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import antiphon
from antiphon.cli import app, commands
from antiphon.messages import catalogue
from antiphon.runtime.actor import Actor

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "antiphon"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
COLUMNS = ("concept", "message", "decision", "actor", "command", "test")


def table(name: str) -> list[list[str]]:
    """The cells of a marked table, its head first."""
    inside = PAGE.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- {name} end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in inside.splitlines()]
    return [rows[0], *rows[2:]]


def named(column: str) -> set[str]:
    """Everything that a column of the large table names."""
    at = COLUMNS.index(column)
    cells = [row[at] for row in table("concepts")[1:]]
    assert all(re.fullmatch(r"-|`[^`]+`( `[^`]+`)*", cell) for cell in cells), column
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def actors() -> set[str]:
    """Every class that is an actor."""
    for module in pkgutil.walk_packages(antiphon.__path__, "antiphon."):
        if module.name.startswith(("antiphon.actors.", "antiphon.responder", "antiphon.runtime.")):
            importlib.import_module(module.name)
    found, open_ = set[type[Actor]](), [Actor]
    while open_:
        kind = open_.pop()
        found.add(kind)
        open_ += kind.__subclasses__()
    return {kind.__name__ for kind in found if kind.__module__.startswith("antiphon.")}


def test_the_tables_head() -> None:
    assert table("concepts")[0] == list(COLUMNS)
    assert len(table("concepts")) > len(COLUMNS)


def test_every_message_stands_in_the_table_and_no_other() -> None:
    assert named("message") == set(catalogue()), "docs/architecture.md has a row for each concept"


def test_every_decision_stands_in_the_table_and_no_other() -> None:
    modules = {path.relative_to(SOURCE).as_posix() for path in (SOURCE / "decide").rglob("*.py")}
    catalogues = {"decide/fuse", "decide/balance"}  # an entry is one file, and its catalogue has the row
    single = {one for one in modules if not one.endswith("__init__.py") and one.rpartition("/")[0] not in catalogues}
    assert named("decision") == single | catalogues, "docs/architecture.md has a row for each concept"


def test_every_actor_stands_in_the_table_and_what_else_does_is_a_module() -> None:
    words = named("actor")
    assert {word for word in words if "/" not in word} == actors()
    assert [word for word in words if "/" in word and not (SOURCE / word).is_file()] == []


def test_every_command_stands_in_the_table_and_is_one() -> None:
    whole = app()
    words = named("command")
    for line in words:
        name, *rest = line.split()
        assert name == "antiphon"
        command = [word for word in rest if not word.startswith("--")]
        options = [word for word in rest if word.startswith("--")]
        reached = whole
        for word in command:
            reached = reached[word]
        assert all(option in help_of(reached) for option in options), line
    assert {line.split()[1] for line in words} == {
        found.name.replace("_", "-") for found in pkgutil.iter_modules(commands.__path__)
    }


def help_of(command: object) -> str:
    """Every option of a command."""
    arguments = command.assemble_argument_collection()  # type: ignore[attr-defined]  # an App of cyclopts
    return " ".join(name for argument in arguments for name in argument.names)


def test_every_test_of_the_table_is_there() -> None:
    assert [path for path in named("test") if not (ROOT / "tests" / path).is_file()] == []


def test_the_layers_are_the_contracts() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = [one for one in project["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    written = [re.findall(r"`(\w+)`", row[0]) for row in table("layers")[1:]]
    assert written == [layer.split(" | ") for layer in contract["layers"]]


def test_every_function_of_the_walk_is_there() -> None:
    named_ones = re.findall(r"`([\w/]+\.py)`:\s+`([\w.]+)`", PAGE)
    assert len(named_ones) > 20
    for path, name in named_ones:
        module = ".".join(["antiphon", *Path(path).with_suffix("").parts]).removesuffix(".__init__")
        value = importlib.import_module(module)
        for part in name.split("."):
            value = getattr(value, part)
        assert callable(value), name
