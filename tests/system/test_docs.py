"""The documentation is true: its Python runs, its commands are the command line's, its tables and links are the code's.

All of it runs against one real fabric: `antiphon up`, a node over docs/, and the nodes of examples/. A line of a shell
block that ends in `# exit N` is run and must end so; what follows `<!-- the blog is frozen -->` while that node is.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from cli_process import Fabric, fabric, until
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser

from antiphon.cli import app
from antiphon.cli.reference import BLOCKS, fill
from antiphon.responder import NodeBounds

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
MODULES = sorted(SOURCE.rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
FROZEN = "<!-- the blog is frozen -->"
EXIT = re.compile(r"# exit (\d+)$")


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def text_of(path: Path) -> str:
    """A page's text, or a module's own docstring."""
    text = path.read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "") if path.suffix == ".py" else text


def blocks(path: Path, language: str) -> list[Example]:
    document = Document(text_of(path), str(path))
    for region in CodeBlockParser(language, evaluator=run)(document):
        document.add(region)
    document.namespace["__name__"] = "a_page"  # so that a program of a page is defined and not run
    return list(document)


def run(example: Example) -> None:
    """Run a block in its page's namespace; one that awaits at its top level runs on a loop of its own."""
    padded = "\n" * (example.line - 1) + example.parsed
    code = compile(padded, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, example.namespace))
    else:
        exec(code, example.namespace)


def commands(path: Path) -> list[tuple[str, bool]]:
    """Every line of a page's shell blocks that calls antiphon, and whether the blog is frozen there."""
    found: list[tuple[str, bool]] = []
    for block in blocks(path, "sh"):
        is_frozen = block.document.text[: block.region.start].rstrip().endswith(FROZEN)
        lines = block.parsed.replace("\\\n", " ").splitlines()
        found += [(line, is_frozen) for line in lines if re.match(r"(\w+=\S+ )*antiphon ", line)]
    return found


def words(line: str) -> list[str]:
    """What antiphon gets of a line: no comment, no variables before it, nothing behind a pipe or a redirection."""
    lexed = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexed.wordchars += ":,@%+"
    taken = list(lexed)
    end = next((at for at, word in enumerate(taken) if set(word) & set("|&<>;")), len(taken))
    return taken[taken.index("antiphon") + 1 : end]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fabric]:
    folder = tmp_path_factory.mktemp("docs")
    with fabric(folder) as made:
        made.environment["LEDGER"] = str(folder / "ledger.db")
        made.up()
        made.serve("folder", str(ROOT / "docs"))
        for name in ("users", "payments", "mail"):
            made.program(ROOT / "examples/checkout/checkout_nodes.py", name)
        made.start(str(ROOT / "examples/blog_node.py"), command=(sys.executable,))
        until(lambda: is_active(made, "blog"))
        yield made


@pytest.fixture
def connected(here: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTIPHON_NATS", here.url())
    monkeypatch.setenv("ANTIPHON_DATA", str(here.data))


def is_active(made: Fabric, node: str) -> bool:
    return any(line.startswith(f"{node}\tactive") for line in made.run("node", "ls").out.splitlines())


WITH_PYTHON = [path for path in [*PAGES, *MODULES] if "```python" in text_of(path)]
WITH_COMMANDS = [path for path in PAGES if commands(path)]
WITH_EXITS = [path for path in WITH_COMMANDS if any(EXIT.search(line) for line, _ in commands(path))]
WITH_DOCTESTS = [path for path in MODULES if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", WITH_PYTHON, ids=label)
@pytest.mark.usefixtures("connected")
def test_python_blocks_run(path: Path) -> None:
    for block in blocks(path, "python"):
        block.evaluate()


@pytest.mark.parametrize("path", WITH_DOCTESTS, ids=label)
def test_doctests(path: Path) -> None:
    module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=label)
def test_commands_are_the_command_lines_own(path: Path) -> None:
    whole = app()
    for line, _ in commands(path):
        command, _bound, unused, *_ = whole.parse_known_args(words(line))
        assert not unused, line
        assert callable(command)


@pytest.mark.timeout(600)  # a page has dozens of commands, each a process
@pytest.mark.parametrize("path", WITH_EXITS, ids=label)
def test_commands_end_as_the_page_says(path: Path, here: Fabric) -> None:
    blog = here.running[-1]
    for line, is_frozen in commands(path):
        stated = EXIT.search(line)
        if stated is None:
            continue
        if is_frozen:
            os.kill(blog.pid, signal.SIGSTOP)
        done = here.run(*words(line))
        assert done.code == int(stated[1]), f"{line}\n{done.out}\n{done.err}"
        if is_frozen:
            os.kill(blog.pid, signal.SIGCONT)
            until(lambda: is_active(here, "blog"))


def test_the_readme_shows_the_example() -> None:
    [node, _client] = blocks(ROOT / "README.md", "python")
    assert node.parsed.strip() in (ROOT / "examples/blog_node.py").read_text(encoding="utf-8")


def test_the_readmes_action_says_what_the_readme_says(here: Fabric) -> None:
    done = here.run("action", "run", "count-words", "--all")
    shown = done.out.replace("\t", " ") + done.err
    [said] = re.findall(r"```\n(node  state.*?)```", text_of(ROOT / "README.md"), re.DOTALL)

    def told(text: str) -> list[str]:
        """Without how long it took, which job it was, and how wide the columns are."""
        return [" ".join(re.sub(r"[\d.]+ ms|job \w+", "", line).split()) for line in text.splitlines()]

    assert told(said)[1:] == told(shown)


def test_the_client_example_finds_the_node_example(here: Fabric) -> None:
    program = [sys.executable, str(ROOT / "examples/search_client.py"), "what does an outage teach"]
    done = subprocess.run(program, env=here.environment, capture_output=True, text=True, check=True, timeout=60)
    assert "Outage  [blog]" in done.stdout
    assert "blog: answered, 1 hits" in done.stdout
    assert done.stdout.endswith("complete\n")


def test_every_example_is_run_in_a_test_and_named_in_a_page() -> None:
    names = [path.relative_to(ROOT / "examples").as_posix() for path in EXAMPLES]
    tested = {
        "blog_node.py",
        "checkout/checkout_nodes.py",
        "search_client.py",
        "tenants/shop_node.py",
    }  # all of sync/ is run, or imported by it
    assert [name for name in names if name not in tested and not name.startswith("sync/")] == []
    pages = "".join(map(text_of, PAGES))
    assert [name for name in names if f"examples/{name}" not in pages] == []


def test_tables_are_what_the_code_says() -> None:
    wrong = [label(path) for path in PAGES if fill(text_of(path)) != text_of(path)]
    assert wrong == [], f"run `python -m antiphon.cli.reference {' '.join(wrong)}`"
    pages = "".join(map(text_of, PAGES))
    assert [name for name in BLOCKS if f"<!-- {name}: table -->" not in pages] == []


def test_every_variable_is_in_the_operators_page() -> None:
    page = text_of(ROOT / "docs/operations.md")
    source = "".join(path.read_text(encoding="utf-8") for path in MODULES)
    variables = set(re.findall(r'"(ANTIPHON_[A-Z]+)"', source))
    assert variables
    assert [name for name in sorted(variables) if f"`{name}`" not in page] == []


def test_every_event_of_the_operators_page_is_logged() -> None:
    inside = text_of(ROOT / "docs/operations.md").partition("| event | says |")[2].partition("\n\n")[0]
    events = re.findall(r"`(\w+\.\w+)`", inside)
    source = "".join(path.read_text(encoding="utf-8") for path in MODULES)
    assert events
    assert [event for event in events if f'"{event}"' not in source] == []


def test_a_nodes_limits_are_in_the_node_authors_page() -> None:
    page = text_of(ROOT / "docs/nodes.md")
    assert [one.name for one in fields(NodeBounds) if f"| `{one.name}` | {one.default} |" not in page] == []


@pytest.mark.parametrize("path", PAGES, ids=label)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, fragment = link.partition("#")
        target = (path.parent / place) if place else path
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    for folder in ("docs", "benchmarks"):
        index = text_of(ROOT / folder / "README.md")
        pages = [path.relative_to(ROOT / folder).as_posix() for path in PAGES if ROOT / folder in path.parents]
        assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []
