"""`--param k=v` and `--json-params`: what is typed, as what the action takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from antiphon.cli.acting.listing import kind_of
from antiphon.errors import InvalidSetting

STDIN_BYTES_MAX: Final = 65_536


def read(pairs: Sequence[str], text: str | None, schema: Mapping[str, JsonValue] | None) -> dict[str, JsonValue]:
    """Return the params that were typed.

    Args:
        pairs: `name=value` each; a value is text where the action takes text there, else JSON where it is any.
        text: all of them as JSON, `@FILE` or `-` for stdin; the pairs win over it.
        schema: what the action takes.

    Raises:
        InvalidSetting: it is none of these.
    """
    params: dict[str, JsonValue] = {} if text is None else _whole(text)
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidSetting(f"--param {pair[:60]!r}: write name=value")
        params[name] = _value(value, _kind(schema, name))
    return params


def _whole(text: str) -> dict[str, JsonValue]:
    try:
        if text == "-":
            text = sys.stdin.buffer.read(STDIN_BYTES_MAX).decode("utf-8")
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise InvalidSetting(f"--json-params: {error.strerror}: {text[1:]}") from None
    except ValueError as error:
        raise InvalidSetting(f"--json-params is no JSON: {error}") from None
    except RecursionError:
        raise InvalidSetting("--json-params: too deep to read") from None
    if not isinstance(found, dict):
        raise InvalidSetting("--json-params is an object")
    return found  # pyright: ignore[reportUnknownVariableType] - JSON


def _kind(schema: Mapping[str, JsonValue] | None, name: str) -> str:
    fields = None if schema is None else schema.get("properties")
    return kind_of(schema, fields.get(name)) if schema is not None and isinstance(fields, dict) else "anything"


def _value(text: str, kind: str) -> JsonValue:
    if kind == "string":
        return text
    try:
        found: JsonValue = json.loads(text)
    except (ValueError, RecursionError):  # the latter where it is too deep to be read
        return text
    return found
