"""`--input k=v` and `--input-file`: what is typed, as the input of a saga."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue
from pydantic_core import to_jsonable_python

from antiphon.errors import InvalidSetting

STDIN_BYTES_MAX: Final = 65_536


def read(pairs: Sequence[str], file: str | None) -> dict[str, JsonValue]:
    """Return the input that was typed.

    Args:
        pairs: `name=value` each; JSON where the value is any, else text.
        file: all of it, a `.json` or `.toml` file, or `-` for JSON on stdin; the pairs win over it.

    Raises:
        InvalidSetting: it is none of these.
    """
    found: dict[str, JsonValue] = {} if file is None else _whole(file)
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name:
            raise InvalidSetting(f"--input {pair[:60]!r}: write name=value")
        found[name] = value(text)
    return found


def value(text: str) -> JsonValue:
    """Return a value as it was meant: JSON where it is any, else the text itself."""
    try:
        found: JsonValue = json.loads(text)
    except (ValueError, RecursionError):  # the latter where it is too deep to be read
        return text
    return found


def json_value(text: str, option: str) -> JsonValue:
    """Return a value that has to be JSON; raises `InvalidSetting` for what is not."""
    try:
        found: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidSetting(f"{option} {text[:40]!r}: write JSON, a text in quotes") from None
    return found


def _whole(file: str) -> dict[str, JsonValue]:
    try:
        if file == "-":
            found: Any = json.loads(sys.stdin.buffer.read(STDIN_BYTES_MAX))
        else:
            text = Path(file).read_text(encoding="utf-8")
            found = to_jsonable_python(tomllib.loads(text)) if file.endswith(".toml") else json.loads(text)
    except OSError as error:
        raise InvalidSetting(f"--input-file: {error.strerror}: {file}") from None
    except ValueError as error:
        raise InvalidSetting(f"--input-file {file}: {error}") from None
    except RecursionError:
        raise InvalidSetting(f"--input-file {file}: too deep to read") from None
    if not isinstance(found, dict):
        raise InvalidSetting(f"--input-file {file}: an object is wanted")
    return found  # pyright: ignore[reportUnknownVariableType] - JSON
