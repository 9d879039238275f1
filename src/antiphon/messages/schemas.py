"""The messages as JSON Schema 2020-12, one document a message, for every language that is not Python.

`python -m antiphon.messages.schemas schemas` writes them; a test compares the folder with the classes. A schema
says what a reader accepts: unknown fields are ignored, so none forbids them. Keywords that begin with `x-` carry
what the class declares about its travel: subject, who sends, who reads, its reply or stream, its bound in bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from antiphon.messages import catalogue
from antiphon.messages.base import Fact, Message, Request, Route
from antiphon.subjects import PREFIX, VERSION

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def documents() -> dict[str, dict[str, Any]]:
    """Return the schema of every message by its name; the same classes give the same documents, in the same order."""
    return {name: _document(message) for name, message in catalogue().items()}


def write(folder: Path) -> list[str]:
    """Write every schema as `<Message>.json`, remove the files of messages that are gone, return what changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = stale(folder)
    files = _files()
    for name in changed:
        if name in files:
            (folder / name).write_text(files[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return changed


def stale(folder: Path) -> list[str]:
    """Return the names of the files in the folder that are missing, differ from the classes, or have no class."""
    files = _files()
    there = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))


def _files() -> dict[str, str]:
    return {
        f"{name}.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in documents().items()
    }


def _document(message: type[Message]) -> dict[str, Any]:
    schema = message.model_json_schema(mode="validation")
    head = {
        "$schema": DIALECT,
        "$id": f"urn:{PREFIX}:{VERSION}:{message.__name__}",
        "title": message.__name__,
        "description": schema.pop("description", ""),
        "x-type": message.wire_type(),
        "x-size-max": message.size_max,
        **_travel(message),
    }
    del schema["title"]
    return head | {key: schema[key] for key in sorted(schema)}


def _travel(message: type[Message]) -> dict[str, Any]:
    if not issubclass(message, Request | Fact):
        return {}
    route: Route = message.route
    travel: dict[str, Any] = {
        "x-subject": f"{PREFIX}.{VERSION}.{route.template.text}",
        "x-sent-by": [str(kind) for kind in route.sent_by],
        "x-read-by": [str(kind) for kind in route.read_by],
        "x-queue": route.queue,
        "x-idempotent": route.idempotent,
    }
    if route.stream is not None:
        travel["x-stream"] = route.stream
    if issubclass(message, Request):
        travel["x-reply"] = message.reply_type().__name__
    return travel


if __name__ == "__main__":  # pragma: no cover - the same two functions are tested
    for line in write(Path(sys.argv[1] if len(sys.argv) > 1 else "schemas")):
        sys.stdout.write(f"{line}\n")
