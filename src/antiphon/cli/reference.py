"""Settings, exit codes, connectors, fusion methods and the record as Markdown tables: docs/ says what the code says.

`python -m antiphon.cli.reference docs/*.md` fills the blocks between `<!-- NAME: table -->` and `<!-- NAME: end -->`; a
test compares them. The messages and errors of docs/protocol.md have their own: `antiphon.messages.tables`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Final

from antiphon.cli import exits
from antiphon.connectors import Connector, catalogue
from antiphon.decide.fuse import DEFAULT, methods
from antiphon.decide.record_tables import OWN, ROLLUP, ROLLUP_COLUMNS, TABLES, WHERE
from antiphon.messages.tables import rewrite, table
from antiphon.settings import Settings

_BLOCK: Final = re.compile(r"(<!-- (\w+): table -->\n).*?(<!-- \2: end -->)", re.DOTALL)


def settings() -> str:
    """Return a row for each setting: its environment variable, default, unit and reason."""
    rows = [["variable", "default", "unit", "reason"]]
    prefix = Settings.model_config.get("env_prefix", "")
    for name, field in Settings.model_fields.items():
        default = f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
        rows.append([f"`{prefix}{name.upper()}`", default, _unit(name, field.default), field.description or ""])
    return table(rows)


def exit_codes() -> str:
    """Return the table that stands in `cli/exits.py`."""
    return "".join(f"{line}\n" for line in (exits.__doc__ or "").splitlines() if line.startswith("|"))


def connectors() -> str:
    """Return a row for each option of each connector."""
    rows = [["connector", "option", "default", "meaning"]]
    for kind, connector in catalogue().items():
        shown = f"**{kind}**"
        meanings = _attributes(connector)
        for field in fields(connector):
            option = f"`{field.name.upper()}`" if _is_argument(connector, field.name) else f"`{_dashed(field.name)}`"
            default = "must be given" if field.default is MISSING else f"`{_plain(field.default)}`"
            rows.append([shown, option, default, meanings[field.name]])
            shown = ""
        if shown:
            rows.append([shown, "", "", "no options"])
    return table(rows)


def fusion() -> str:
    """Return a row for each fusion method of the catalogue."""
    rows = [["method", "what it is", "the score of a hit", "keeps each node's order"]]
    for name, method in methods().items():
        score = (inspect.getdoc(method.fuse) or "").partition(".\n")[0].partition("\n\n")[0]
        shown = f"`{name}` (default)" if name == DEFAULT else f"`{name}`"
        row = [shown, method.summary, score.replace("\n", " "), "yes" if method.keeps_node_order else "no"]
        rows.append([cell.rstrip(".;") for cell in row])
    return table(rows)


def record() -> str:
    """Return a row for each table of the record, with its columns."""
    rows = [["table", "columns"]]
    for name, columns in {**TABLES, ROLLUP: ROLLUP_COLUMNS}.items():
        own = [f"`{column}` {kind}" for column, kind in columns.items() if name in OWN or column not in WHERE]
        rows.append([f"`{name}`", ", ".join(own)])
    return table(rows)


BLOCKS: Final[dict[str, Callable[[], str]]] = {
    "settings": settings,
    "exits": exit_codes,
    "connectors": connectors,
    "fusion": fusion,
    "record": record,
}


def fill(text: str) -> str:
    """Return the text with every table as the code has it now."""
    return _BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)


def _unit(name: str, default: object) -> str:
    if isinstance(default, (bool, str)):
        return "-"
    parts = name.split("_")
    return next((unit for unit in ("ms", "bytes") if unit in parts), "pieces")


def _attributes(connector: type[Connector]) -> dict[str, str]:
    """Return what a connector's docstring says of each option."""
    described = (inspect.getdoc(connector) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", described, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".").replace("|", "\\|") for name, text in found}


def _is_argument(connector: type[Connector], name: str) -> bool:
    """Whether an option may stand without its name."""
    return not next(field.kw_only for field in fields(connector) if field.name == name)


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _plain(default: object) -> str:
    return "none" if default in (None, ()) else str(default)


if __name__ == "__main__":  # pragma: no cover - `fill` is tested
    rewrite(sys.argv[1:], fill)
