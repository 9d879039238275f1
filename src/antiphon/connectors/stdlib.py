"""Python's standard library as a node: what its modules, classes, functions and methods say about themselves.

Every machine that runs Antiphon has it, so it is the demo's largest content. Sources are read, not imported; only the
modules that are compiled into the interpreter (`builtins`, `math`, ...) are asked for their docstrings.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from antiphon.connectors.base import Indexed, Progress
from antiphon.connectors.entry import Entry
from antiphon.connectors.reading.docstrings import Documented, documented_entry, module_entries
from antiphon.errors import ContentUnreadable

MANUAL = "https://docs.python.org/3/library"

_NOT_DOCUMENTED = frozenset({"antigravity", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "this"})
_PARTS_OMITTED = frozenset({"test", "tests", "__pycache__", "pydoc_data", "turtledemo", "lib-dynload"})
_COMPILED_PUBLIC = """
    array atexit binascii builtins cmath errno faulthandler gc itertools marshal math mmap select sys time
    unicodedata zlib
    """.split()  # noqa: SIM905 -- a name a line reads worse
_COMPILED = {name: name for name in _COMPILED_PUBLIC} | {
    "posix": "os",
    "nt": "os",
    "_io": "io",
    "_collections": "collections",
    "_functools": "functools",
    "_struct": "struct",
    "_socket": "socket",
    "_datetime": "datetime",
}
"""Modules without a Python source -> the name that people import them by."""
_SUBMODULE_PAGES = frozenset(
    """
    collections.abc concurrent.futures curses.ascii curses.panel email.charset email.encoders email.errors
    email.header email.headerregistry email.iterators email.message email.mime email.parser email.policy
    email.utils html.entities html.parser http.client http.cookiejar http.cookies http.server importlib.metadata
    importlib.resources logging.config logging.handlers multiprocessing.shared_memory os.path tkinter.colorchooser
    tkinter.font tkinter.messagebox tkinter.scrolledtext tkinter.ttk unittest.mock urllib.error urllib.parse
    urllib.request urllib.robotparser wsgiref xml.dom xml.dom.minidom xml.dom.pulldom xml.etree.elementtree
    xml.sax xml.sax.handler xml.sax.saxutils xmlrpc.client xmlrpc.server
    """.split()  # noqa: SIM905 -- a name a line reads worse
)
"""Submodules with a page of their own in the manual; the others are described on their package's page."""


@dataclass(frozen=True)
class Stdlib(Indexed):
    """The documentation strings of Python's standard library: thousands of modules, classes and functions.

    Attributes:
        modules: which modules, as comma-separated patterns of their names, e.g. "asyncio,json,[a-m]*".
    """

    kind: ClassVar[str] = "stdlib"

    modules: str = "*"

    def describe(self) -> str:
        """Return the version and the part that is served."""
        part = "" if self.modules == "*" else f", modules {self.modules}"
        return f"Documentation of Python {sys.version_info.major}.{sys.version_info.minor}'s standard library{part}"

    def topics(self) -> tuple[str, ...]:
        """Return what Python programmers would name it."""
        return ("python", "stdlib", "documentation")

    def entries(self, progress: Progress) -> Iterator[Entry]:
        """Read the sources, then ask the compiled modules.

        Raises:
            ContentUnreadable: no module's name matches.
        """
        sources = [(name, path) for name, path in _sources() if self._is_wanted(name)]
        compiled = [(name, shown) for name, shown in _COMPILED.items() if self._is_wanted(shown)]
        total = len(sources) + len(compiled)
        if not total:
            raise ContentUnreadable(f"no module of the standard library is named like {self.modules!r}")
        for done, (name, path) in enumerate(sources, 1):
            yield from module_entries(name, _source(path), _link)
            progress(done, total)
        for done, (name, shown) in enumerate(compiled, len(sources) + 1):
            yield from _compiled_entries(name, shown)
            progress(done, total)

    def _is_wanted(self, module: str) -> bool:
        top = module.partition(".")[0]
        patterns = (pattern.strip() for pattern in self.modules.split(","))
        return any(fnmatchcase(module, pattern) or fnmatchcase(top, pattern) for pattern in patterns)


def _sources() -> list[tuple[str, Path]]:
    """Return (dotted name, path) of each public module that has a source, in alphabetical order."""
    root = Path(sysconfig.get_path("stdlib"))
    found = list[tuple[str, Path]]()
    for folder, names, files in os.walk(root):
        parts = Path(folder).relative_to(root).parts
        names[:] = [name for name in names if _is_public((*parts, name))]
        for file in files:
            stem = file.removesuffix(".py")
            module = parts if stem == "__init__" else (*parts, stem)
            if stem != file and module and _is_public(module):
                found.append((_shown(".".join(module)), Path(folder, file)))
    return sorted(found)


def _is_public(module: tuple[str, ...]) -> bool:
    return (
        module[0] in sys.stdlib_module_names
        and module[0] not in _NOT_DOCUMENTED
        and module[-1] not in _PARTS_OMITTED
        and not module[-1].startswith("_")
    )


def _shown(module: str) -> str:
    return "os.path" if module == "posixpath" else module


def _source(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # a link to nowhere in some distribution's packaging


def _link(module: str, name: str) -> str:
    """Return the place in the manual that describes a qualified name, or the page of its package."""
    top, lower = module.partition(".")[0], module.lower()
    if lower in _SUBMODULE_PAGES or module == top:
        return f"{MANUAL}/{lower}.html" + (f"#{name}" if name != module else "")
    parents = (lower.rsplit(".", cut)[0] for cut in range(1, lower.count(".") + 1))
    return f"{MANUAL}/{next((page for page in parents if page in _SUBMODULE_PAGES), top.lower())}.html"


def _builtin_link(name: str, value: object) -> str:
    if isinstance(value, type) and issubclass(value, BaseException):
        return f"{MANUAL}/exceptions.html#{name}"
    page = "stdtypes" if "." in name or isinstance(value, type) else "functions"
    return f"{MANUAL}/{page}.html#{name}"


def _compiled_entries(name: str, shown: str) -> Iterator[Entry]:
    try:
        module = import_module(name)
    except ImportError:
        return  # another platform's, or left out of this interpreter
    for found, value in _documented(module, shown):
        full = found.name if shown == "builtins" else f"{shown}.{found.name}"
        link = _builtin_link(full, value) if shown == "builtins" else f"{MANUAL}/{shown}.html#{full}"
        yield documented_entry(full, found, link, shown)


def _documented(module: ModuleType, shown: str) -> Iterator[tuple[Documented, object]]:
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", shown) in (shown, module.__name__)
        if name.startswith("_") or not callable(value) or not is_own:
            continue
        yield from _described(name, value, "class" if isinstance(value, type) else "function")
        if isinstance(value, type):
            for member, attribute in vars(value).items():
                if not member.startswith("_"):
                    yield from _described(f"{name}.{member}", attribute, "method")


def _described(name: str, value: object, kind: str) -> Iterator[tuple[Documented, object]]:
    text = getattr(value, "__doc__", None)
    if isinstance(text, str) and text.strip() and text != type(value).__doc__:
        signature = getattr(value, "__text_signature__", None) or ""
        for bound in ("$self, ", "$module, ", "$type, ", "$self", "$module", "$type"):
            signature = signature.replace(bound, "")
        yield Documented(name, kind, signature.replace("(/, ", "(").replace("(/)", "()"), text.strip()), value
