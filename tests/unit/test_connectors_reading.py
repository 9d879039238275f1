"""The readers: sections of Markdown and reStructuredText, words of HTML, docstrings of Python."""

from __future__ import annotations

import argparse
import ast
import asyncio.streams
import json.decoder
import optparse
import pathlib
import re
import shutil
import socketserver
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.connectors.reading.docstrings import docstrings
from antiphon.connectors.reading.markup import page
from antiphon.connectors.reading.sections import SECTION_CHARS_MAX, Section, markdown, pieces, plain, restructured


def test_headings_in_code_are_text() -> None:
    source = (
        "# Real\n\n```sh\n# not a heading\n[a](b) <tag>\n```\n\n`<kept> [x](y)` but **bold** [link](u:v) ![badge](c)"
    )
    (section,) = markdown(source, "file")
    assert section.title == "Real"
    assert "# not a heading\n[a](b) <tag>" in section.text
    assert section.text.endswith("`<kept> [x](y)` but bold link badge")


def test_underlined_headings_and_front_matter() -> None:
    source = '---\ntitle: "My page"\nlayout: x\n---\nintro\n\nOne\n===\n\nfirst\n\nTwo\n---\n\n- item\n---\nrest'
    assert list(markdown(source, "file")) == [
        Section("My page", "", "intro"),
        Section("My page: One", "one", "first"),
        Section("My page: Two", "two", "- item\n---\nrest"),
    ]


def test_restructured_headings() -> None:
    source = "=====\nTitle\n=====\n\nintro\n\nPart\n~~~~\n\n.. image:: x.png\n   :alt: y\n\nbody\n"
    assert list(restructured(source, "file")) == [
        Section("Title", "title", "intro"),
        Section("Title: Part", "part", "body"),
    ]


@pytest.mark.parametrize(("source", "title"), [("First line\nmore", "First line"), ("x" * 200, "file")])
def test_the_title_of_plain_text_is_its_first_short_line(source: str, title: str) -> None:
    assert [section.title for section in plain(source, "file")] == [title]


@given(st.lists(st.text("ab #\n`=-", max_size=30).map(lambda text: text * 300), max_size=6).map("\n".join))
def test_sections_are_bounded_and_their_fragments_unique(source: str) -> None:
    for sections in (list(markdown(source, "file")), list(restructured(source, "file")), list(plain(source, "file"))):
        assert all(len(section.text) <= SECTION_CHARS_MAX for section in sections)
        assert all(section.text or re.search(r"\w", section.title) for section in sections)
        assert len({section.fragment for section in sections}) == len(sections)


def test_pieces_lose_no_line() -> None:
    lines = [f"line {number} {'x' * 90}" for number in range(1_000)]
    sections = list(pieces("t", "\n".join(lines), "part"))
    assert "\n".join(section.text for section in sections).split("\n") == lines
    assert [section.fragment for section in sections][:3] == ["part", "part~2", "part~3"]


@given(st.text("<>/!-&;abch1titlescriptsvg \"'=", max_size=200))
def test_no_html_raises(source: str) -> None:
    title, text = page(source)
    assert "\n\n" not in title + text


def test_a_page_without_a_title_has_its_first_heading() -> None:
    source = "<h1>One <i>two</i></h1><p>a<svg><title>no</title></svg>b<h1>Three</h1>"
    assert page(source) == ("One two", "One two\na\nb\nThree")


def test_a_head_without_an_end_does_not_swallow_the_page() -> None:
    assert page("<head><title>T</title><style>x</style><body>words") == ("T", "words")


def documented(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    """What `ast` finds: the public names with a docstring, also inside branches."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            text = ast.get_docstring(node)
            if text:
                yield prefix + node.name, text.strip()
            if isinstance(node, ast.ClassDef):
                yield from documented(node.body, f"{prefix}{node.name}.")
        elif not prefix:
            for part in ("body", "orelse", "handlers", "finalbody"):
                yield from documented(getattr(node, part, []), prefix)


@pytest.mark.parametrize(
    "module",
    [argparse, ast, asyncio.streams, json, json.decoder, optparse, pathlib, shutil, socketserver, textwrap, typing],
    ids=lambda module: str(module.__name__),
)
def test_docstrings_are_those_that_a_parser_finds(module: ModuleType) -> None:
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    expected = {"": (ast.get_docstring(ast.parse(source)) or "").strip()} | dict(documented(ast.parse(source).body, ""))
    found = {name.name: name.text.strip() for name in docstrings(source)}
    assert {name: text for name, text in found.items() if text} == {
        name: text for name, text in expected.items() if text
    }


def test_signatures_are_one_line() -> None:
    source = (
        'async def f(\n    a: int = (1, (2)),  # why (not\n    *b: str,\n) -> dict[str, int]:\n    """Say\n    it."""\n'
    )
    (function,) = docstrings(source)
    assert (function.name, function.kind) == ("f", "function")
    assert function.signature == "( a: int = (1, (2)), *b: str, ) -> dict[str, int]"
    assert function.text == "Say\nit."


def test_examples_private_and_nested_names_are_left_out() -> None:
    source = textwrap.dedent('''
        """Module.

        def example():
            "inside"
        """
        def _private():
            """no"""
            def nested():
                """no"""
        class Shown:
            r"""raw \\d"""
            def method(self):
                'one "line"'
                def nested():
                    """no"""
            class Inner:
                """inner"""
        if True:
            def in_branch(): "text"
    ''')
    assert [(found.name, found.kind) for found in docstrings(source)] == [
        ("", "module"),
        ("Shown", "class"),
        ("Shown.method", "method"),
        ("Shown.Inner", "class"),
        ("in_branch", "function"),
    ]


@given(st.text("def class():\"'\\#\n \tx_,->", max_size=120))
def test_no_source_raises(source: str) -> None:
    list(docstrings(source))


def test_scanning_is_linear_in_hostile_sources() -> None:
    for part in ("def f((((", 'def f():\n"""' + "\\", "def f(#\n", "def f(a(b(c", "'\n", "class A(\n"):
        list(docstrings(part * 3_000))
    list(docstrings("def f(" + "#a\n" * 3_000))
