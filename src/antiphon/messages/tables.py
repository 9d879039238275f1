"""The messages and the errors as Markdown tables, so that docs/protocol.md says what the classes say.

`python -m antiphon.messages.tables docs/protocol.md` fills the blocks between `<!-- NAME: generated -->` and
`<!-- NAME: end -->`; a test compares them.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from antiphon.errors import CODES
from antiphon.messages import catalogue, routed
from antiphon.messages.base import Kind, Message, Request

_BLOCK: Final = re.compile(r"(<!-- (\w+): generated -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def travelling() -> str:
    """Return a row for each message with a subject of its own."""
    rows = [["message", "subject after `antiphon.v1.`", "sent by", "read by", "queue group", "answered by", "meaning"]]
    for name, message in routed().items():
        route = message.route
        reply = _linked(message.reply_type().__name__) if issubclass(message, Request) else "-"
        subject = f"`{route.template.text}`"
        kinds = [_kinds(route.sent_by), _kinds(route.read_by)]
        queue = f"`{route.queue}`" if route.queue else "-"
        rows.append([_linked(name), subject, *kinds, queue, reply, _meaning(message)])
    return table(rows)


def carried() -> str:
    """Return a row for each message that travels as an answer or inside another one."""
    replies = {message.reply_type() for message in routed().values() if issubclass(message, Request)}
    rows = [["message", "travels", "meaning"]]
    for name, message in catalogue().items():
        if name not in routed():
            rows.append([_linked(name), "as an answer" if message in replies else "inside others", _meaning(message)])
    return table(rows)


def errors() -> str:
    """Return a row for each error."""
    rows = [["code", "class", "a retry can help", "when"]]
    for code, error in sorted(CODES.items()):
        rows.append([f"`{code}`", error.__name__, "yes" if error.retryable else "no", _meaning(error)])
    return table(rows)


BLOCKS: Final[dict[str, Callable[[], str]]] = {"travelling": travelling, "carried": carried, "errors": errors}


def fill(text: str) -> str:
    """Return the text with every generated block as the classes have it now."""
    return _BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)


def _meaning(kind: type[Message | Exception]) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0].rstrip(".").replace("|", "\\|")


def _linked(name: str) -> str:
    return f"[{name}](../schemas/{name}.json)"


def _kinds(kinds: tuple[Kind, ...]) -> str:
    return "anyone" if set(kinds) == set(Kind) else ", ".join(kinds)


def table(rows: list[list[str]]) -> str:
    """Return a Markdown table; its first row is its head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def rewrite(names: Sequence[str], filled: Callable[[str], str]) -> None:
    """Fill the generated blocks of some files."""
    for path in map(Path, names):
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":  # pragma: no cover - `fill` is tested
    rewrite(sys.argv[1:], fill)
