"""What linters do not see: drawings, tables and lists that must stay true, and files that nobody would miss."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from antiphon import errors
from antiphon.messages.tables import BLOCKS, fill

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "antiphon"
MODULES = sorted(SOURCE.rglob("*.py"))
LINES_MAX = 450
BINARY = {".png", ".ico", ".woff2", ".gz", ".sqlite", ".db", ".parquet", ".pdf"}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def tracked() -> list[Path]:
    """The files of the repository, without build products; in an unpacked archive there is no git to ask."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def drawn() -> list[tuple[str, str, str]]:
    """Every line of the tree in errors.py: (class, its parent, what is said of it)."""
    lines = re.findall(
        r"^([│ ]*)(?:[├└]── )?(\w+) *(.*)$", (errors.__doc__ or "").split("```")[1].strip(), re.MULTILINE
    )
    rows: list[tuple[str, str, str]] = []
    path: list[str] = []
    for indent, name, text in lines:
        depth = len(indent) // 4 + (1 if rows else 0)
        path[depth:] = [name]
        rows.append((name, path[depth - 1] if depth else "Exception", text))
    return rows


def test_the_drawn_error_tree_is_the_classes() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    declared = {(kind.__name__, kind.__bases__[0].__name__) for kind in classes}
    assert {(name, parent) for name, parent, _ in drawn()} == declared
    assert len(drawn()) == len(declared), "each class is drawn once"
    assert [name for name, _, text in drawn()[1:] if not text] == [], "each line says when it happens"


def test_the_generated_tables_of_the_protocol_are_true() -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    for block in BLOCKS:
        assert f"<!-- {block}: generated -->" in text
    assert fill(text) == text, "run `python -m antiphon.messages.tables docs/protocol.md`"
    for code in errors.CODES:
        assert f"`{code}`" in text


def test_every_header_is_in_the_protocol() -> None:
    text = (ROOT / "docs/protocol.md").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    headers = set(re.findall(r'"((?:Antiphon|Nats)-[A-Z][A-Za-z-]+)"', source))
    assert headers
    assert [header for header in sorted(headers) if f"`{header}`" not in text] == []


LOG_LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
CHOSEN = frozenset({"say", "tell"})
"""What a level that is chosen first is called: `say = log.error if ... else log.warning`."""
EVENT = r"[a-z]+\.[a-z_0-9]+"


def is_logging(call: ast.Call) -> bool:
    """Whether this is `log.info("...")` or the like, or a level that was chosen before."""
    if isinstance(call.func, ast.Attribute):
        owner = call.func.value
        return call.func.attr in LOG_LEVELS and isinstance(owner, ast.Name) and owner.id == "log"
    first = call.args[0]
    is_event = isinstance(first, ast.Constant) and re.fullmatch(EVENT, str(first.value)) is not None
    is_chosen = isinstance(call.func, ast.IfExp) or (isinstance(call.func, ast.Name) and call.func.id in CHOSEN)
    return is_event and is_chosen


def logged() -> set[str]:
    """Every event that the code logs."""
    calls = [node for path in MODULES for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and node.args]
    firsts = [call.args[0] for call in calls if is_logging(call)]
    return {str(first.value) for first in firsts if isinstance(first, ast.Constant)}


def test_events_are_named_alike_and_the_operators_table_has_each_and_no_other() -> None:
    events = logged()
    assert [event for event in sorted(events) if not re.fullmatch(EVENT, event)] == []
    table = (ROOT / "docs/operations.md").read_text(encoding="utf-8").split("| event | says |")[1].split("\n\n")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    told = {event for cell in first_cells for event in re.findall(f"`({EVENT})`", cell)}
    assert told - events == set(), "nothing logs these any more"
    assert events - told == set(), "docs/operations.md, Logs, does not say what these mean"


def test_what_a_linter_is_told_to_pass_over_has_a_reason() -> None:
    bare = [
        f"{label(path)}:{number}"
        for path in MODULES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"# noqa\b(?!: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)* --? \S)", line)
    ]
    assert bare == []


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_a_module_opens_with_a_sentence_and_stays_readable(path: Path) -> None:
    first = (ast.get_docstring(tree(path)) or "").partition("\n\n")[0]
    assert re.search(r"[.?!]$|:$", first), f"{label(path)} opens with one sentence that says what it is"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX


def imported() -> set[str]:
    """Every module that some other module under src imports, by `import`, `from` or a lazily imported name."""
    found: set[str] = set()
    for path in MODULES:
        own = name_of(path)
        for node in ast.walk(tree(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("antiphon."):
                names = [node.value.partition(":")[0]]
            found.update(name for name in names if name != own)
    return found


def is_discovered(path: Path) -> bool:
    """Whether a package finds this module by itself: a catalogue, one file an entry."""
    init = path.parent / "__init__.py"
    return path != init and init.exists() and "iter_modules" in init.read_text(encoding="utf-8")


def test_no_module_is_dead() -> None:
    alive = imported()
    dead = [
        label(path)
        for path in MODULES
        if name_of(path) not in alive
        and path.name not in ("__init__.py", "__main__.py")
        and not is_discovered(path)
        and '__name__ == "__main__"' not in path.read_text(encoding="utf-8")
    ]
    assert dead == []


def test_no_registry_address_and_no_path_of_one_machine() -> None:
    # In two halves, so that this file does not find itself.
    forbidden = [
        "pypi" + ".org",
        "files.python" + "hosted",
        "registry.npm" + "js",
        "--index" + "-url",
        "--find" + "-links",
        "/wo" + "rk/",
        "/ro" + "ot/",
        "/opt/" + "wheels",
        "/opt/" + "pypi",
    ]
    for path in tracked():
        if path.suffix not in BINARY:
            text = path.read_text(encoding="utf-8", errors="replace")
            assert [word for word in forbidden if word in text] == [], label(path)


def test_the_readme_has_its_two_commands_on_a_line_each() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for mark in ("demo command", "test command"):
        blocks = re.findall(rf"<!-- {mark} -->\n```sh\n(.*?)```", text, re.DOTALL)
        assert len(blocks) == 1, f"one block of sh after <!-- {mark} -->"
        assert blocks[0].count("\n") == 1, f"the {mark} is one line"


def test_ci_runs_the_readmes_own_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- test command -->" in script
    assert "README.md" in script
    assert "-m pytest" not in script, "the command is taken from the README, not repeated"


def test_constraints_pin_every_requirement_and_name_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+|#.*", line) for line in lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for texts in project.get("optional-dependencies", {}).values() for text in texts]
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in map(Requirement, project["dependencies"] + extras):
        name = canonicalize_name(requirement.name)
        if name == "antiphon":
            continue
        assert name in pinned, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pinned[name]), f"{name}: the pin is outside pyproject.toml's range"
