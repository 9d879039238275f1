"""The documented names of a Python source: found by their headers, without parsing the rest of the file.

Parsing the whole standard library takes about a second, reading its byte code is quick but slim images ship none, and
importing it would run it. A docstring stands right after its header, so two regular expressions and a stack of
indentations find all of them in a tenth of the time; a test compares the result with `ast` on real modules.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from antiphon.connectors.entry import Entry

SIGNATURE_CHARS_MAX = 300
"""A longer signature is cut: it is shown and searched as one line."""

_HEADER = re.compile(
    r"^(?:([ \t]*)(?:async[ \t]+)?(def|class)[ \t]+(\w+)|(?:if|elif|else|try|except|finally)\b)", re.MULTILINE
)
# Parentheses nest three deep in signatures (a default that calls); what does not fit has no docstring found.
# The quantifiers are possessive (`*+`): nothing is tried twice, so hostile sources cost no more than honest ones.
_P0 = r"[^()#]"
_P1 = rf"(?:{_P0}|#[^\n]*+|\({_P0}*+\))"
_P2 = rf"(?:{_P0}|#[^\n]*+|\({_P1}*+\))"
_SIGNATURE = re.compile(rf"(?:\[[^\[\]]*\])?[ \t]*(\({_P2}*+\))?[ \t]*(->[^:\n]+)?:")
_STRING = re.compile(
    r"(?:\s|\#[^\n]*\n)*+"
    r"([rRuU]?)("
    r'"""(?:[^"\\]|\\.|"(?!""))*"""'
    r"|'''(?:[^'\\]|\\.|'(?!''))*'''"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'(?:[^'\\\n]|\\.)*')",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Documented:
    """A name with a docstring: the module itself (no name), a class, a function or a method (`Class.method`)."""

    name: str
    kind: str
    signature: str
    text: str


def module_entries(module: str, source: str, link: Callable[[str, str], str | None]) -> Iterator[Entry]:
    """Yield an entry for each documented name of a module's source.

    Args:
        module: its dotted name, the entries' origin.
        source: its text.
        link: (module, qualified name) -> address.
    """
    for found in docstrings(source):
        name = f"{module}.{found.name}" if found.name else module
        yield documented_entry(name, found, link(module, name), module)


def documented_entry(name: str, found: Documented, url: str | None, origin: str) -> Entry:
    """Return the entry of a documented name; its first line is the signature, as in a manual."""
    head = f"{name}{found.signature}\n\n" if found.signature else ""
    return Entry(name, name, head + found.text, url, found.kind, origin=origin)


def docstrings(source: str) -> Iterator[Documented]:
    """Yield the public documented names of a module, itself first, in the order of the source."""
    module = _STRING.match(source)
    end = 0
    if module:
        end = module.end()
        yield Documented("", "module", "", _cleaned(module))
    scopes: list[tuple[int, str, str]] = []  # (indentation, kind, name), outermost first
    for header in _HEADER.finditer(source):
        if header.start() < end:
            continue  # an example inside a docstring
        if not header[3]:
            scopes.clear()  # a branch at the top level: what it indents belongs to the module
            continue
        indent, kind, name = len(header[1].expandtabs()), header[2], header[3]
        while scopes and scopes[-1][0] >= indent:
            scopes.pop()
        inside = [*scopes]
        scopes.append((indent, kind, name))
        if not _is_public(name) or any(outer == "def" or not _is_public(outside) for _, outer, outside in inside):
            continue
        signature = _SIGNATURE.match(source, header.end())
        string = _STRING.match(source, signature.end()) if signature else None
        if signature and string:
            end = string.end()
            full = ".".join((*(outside for _, _, outside in inside), name))
            kind = "class" if kind == "class" else "method" if inside else "function"
            yield Documented(full, kind, _one_line(signature), _cleaned(string))


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _one_line(signature: re.Match[str]) -> str:
    text = re.sub(r"#[^\n]*", "", signature[1] or "")
    return " ".join(f"{text} {signature[2] or ''}".split())[:SIGNATURE_CHARS_MAX]


def _cleaned(string: re.Match[str]) -> str:
    """Return a docstring's value, as `inspect.getdoc` would give it."""
    prefix, literal = string[1], string[2]
    quotes = 3 if literal[:3] in ('"""', "'''") else 1
    value = literal[quotes:-quotes]
    if "\\" in value and prefix.lower() != "r":
        value = _unescaped(literal, value)
    return inspect.cleandoc(value)


def _unescaped(literal: str, raw: str) -> str:
    try:
        value = ast.literal_eval(literal)
    except (SyntaxError, ValueError, SyntaxWarning):
        return raw
    return value if isinstance(value, str) else raw
