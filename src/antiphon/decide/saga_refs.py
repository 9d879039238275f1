r"""References in a saga's params: `{{input.user}}`, `{{steps.charge.result.id}}`, `{{result.id}}`, `{{saga.id}}`.

A text that is nothing but one reference becomes the value itself, whatever its type; within a longer text values are
written out. What a reference brings in is never read for references again, so nobody can smuggle one in through an
input or a result. `\{{` is a plain `{{`. A step without a result (best effort that failed, skipped, or nothing to
return) reads as null, and so does everything below it; a name that is missing from a result that is there is an error,
because a typing mistake must not charge null. Lists are indexed by number: `{{steps.find.result.hits.0.id}}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec
from pydantic import JsonValue
from pydantic_core import to_json

from antiphon.messages.saga import JSON_BYTES_MAX, bounded_params
from antiphon.subjects import TOKEN

MARK: Final = re.compile(r"\\\{\{|\{\{(?P<inside>[^{}]{0,200})\}\}|\{\{")
PATH: Final = re.compile(r"(\.[A-Za-z0-9_-]+)*")
ROOT: Final = re.compile(rf"(?P<root>input|result|saga\.id|steps\.(?P<step>{TOKEN.pattern})\.result)(?P<path>.*)")

REMEMBERED_CHARS_MAX: Final = 256

Params: TypeAlias = Mapping[str, JsonValue]


class BadReference(ValueError):
    """A text has `{{` that begins no reference."""


class Unresolved(ValueError):
    """A reference points at something that is not there, or the filled-in params are out of bounds."""


class Reference(msgspec.Struct, frozen=True, gc=False):
    """One reference; `step` is empty unless the root is a step's result."""

    root: str
    step: str
    path: tuple[str, ...]
    text: str


class Scope(msgspec.Struct, frozen=True, gc=False):
    """What references may point at; a step that is not in `results` has no result, and reads as null."""

    saga: str
    input: Params = msgspec.field(default_factory=dict[str, JsonValue])
    results: Params = msgspec.field(default_factory=dict[str, JsonValue])
    own: JsonValue = None
    """`{{result}}` of a compensation: what the step itself returned."""


def references(value: JsonValue | Params) -> Iterator[Reference]:
    """Yield every reference in params, however deep; raises `BadReference`."""
    if isinstance(value, str):
        yield from (part for part in parse(value) if isinstance(part, Reference))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def parse(text: str) -> tuple[str | Reference, ...]:
    """Return a text as its plain parts and its references, in order; short ones are remembered.

    Raises `BadReference` for `{{` that begins no reference.

    >>> parse("for {{input.user}}")
    ('for ', Reference(root='input', step='', path=('user',), text='input.user'))
    """
    return _remembered(text) if len(text) <= REMEMBERED_CHARS_MAX else _parsed(text)


def _parsed(text: str) -> tuple[str | Reference, ...]:
    parts: list[str | Reference] = []
    at = 0
    for match in MARK.finditer(text):
        if match.start() > at:
            parts.append(text[at : match.start()])
        at = match.end()
        if match[0].startswith("\\"):
            parts.append("{{")
        elif match["inside"] is None:
            raise BadReference(rf"{text[match.start() :][:40]!r} is no reference; write \{{{{ for plain braces")
        else:
            parts.append(_reference(match["inside"].strip()))
    return (*parts, text[at:]) if at < len(text) else tuple(parts)


_remembered: Final = lru_cache(maxsize=4_096)(_parsed)


def resolve(params: Params, scope: Scope) -> dict[str, JsonValue]:
    """Return params with every reference filled in.

    Raises `Unresolved` where a reference points at nothing, a list or an object stands within a text, or what comes out
    is larger or deeper than params may be.
    """
    try:
        room = _Room()
        return bounded_params({name: _filled(value, scope, room) for name, value in params.items()})
    except Unresolved:
        raise
    except ValueError as error:
        raise Unresolved(str(error)) from None


def _reference(text: str) -> Reference:
    match = ROOT.fullmatch(text)
    if match is None or PATH.fullmatch(match["path"]) is None:
        raise BadReference(f"{{{{{text[:60]}}}}} is no reference: input., steps.<step>.result., result. or saga.id")
    path = tuple(match["path"].split(".")[1:])
    root = "steps" if match["step"] else match["root"]
    return Reference(root, match["step"] or "", path, text)


class _Room:
    """How much references may still bring in, counted before it is put together: a few bytes can name megabytes."""

    def __init__(self) -> None:
        self.bytes_left = JSON_BYTES_MAX

    def take(self, value: JsonValue, *, is_within: bool) -> None:
        """Take what a reference brings in; within a longer text it has no quotes of its own."""
        self.bytes_left -= len(to_json(value)) - (2 if is_within else 0)
        if self.bytes_left < 0:
            raise Unresolved(f"more than {JSON_BYTES_MAX} bytes of JSON")


def _filled(value: JsonValue, scope: Scope, room: _Room) -> JsonValue:
    if isinstance(value, dict):
        return {name: _filled(one, scope, room) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, scope, room) for one in value]
    if not isinstance(value, str) or "{{" not in value:
        return value
    parts = parse(value)
    if len(parts) == 1 and isinstance(parts[0], Reference):
        found = _value(parts[0], scope)
        room.take(found, is_within=False)
        return found
    return "".join(one if isinstance(one, str) else _written(one, scope, room) for one in parts)


def _value(reference: Reference, scope: Scope) -> JsonValue:
    match reference.root:
        case "input":
            found: JsonValue = dict(scope.input)
        case "steps":
            found = scope.results.get(reference.step)
        case "result":
            found = scope.own
        case _:
            found = scope.saga
    if found is None:
        return None
    for at, name in enumerate(reference.path):
        found = _below(found, name, f"{{{{{reference.text}}}}}: there is no {'.'.join(reference.path[: at + 1])!r}")
    return found


def _below(value: JsonValue, name: str, missing: str) -> JsonValue:
    if isinstance(value, dict) and name in value:
        return value[name]
    if isinstance(value, list) and name.isdecimal() and len(name) < 6 and int(name) < len(value):  # noqa: PLR2004 - more do not fit
        return value[int(name)]
    raise Unresolved(missing[:200])


def _written(reference: Reference, scope: Scope, room: _Room) -> str:
    value = _value(reference, scope)
    if isinstance(value, dict | list):
        raise Unresolved(f"{{{{{reference.text[:60]}}}}} is no single value, so it cannot stand within a text")
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    room.take(text, is_within=True)
    return text
