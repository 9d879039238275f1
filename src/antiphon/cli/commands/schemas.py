"""`antiphon schemas`: the messages as JSON Schema, for nodes and publishers in other languages."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

command = App(name="schemas", help="Write the messages as JSON Schema.")


@command.default
def schemas(folder: Path = Path("schemas"), *, check: bool = False) -> int:
    """Write the messages as JSON Schema, one file each.

    Args:
        folder: where to.
        check: write nothing; name the files that differ and exit with 1 if there are any.
    """
    from antiphon.messages import schemas as known  # noqa: PLC0415 - not for --help

    if not check:
        _refuse_strangers(folder, [name for name in known.stale(folder) if name[:-5] not in known.documents()])
    changed = known.stale(folder) if check else known.write(folder)
    for name in changed:
        print(name)
    return 1 if check and changed else 0


def _refuse_strangers(folder: Path, names: list[str]) -> None:
    """Schemas of messages that are gone are deleted; a file that is no schema of ours must not be."""
    from antiphon.errors import InvalidSetting  # noqa: PLC0415 - not for --help

    for name in names:
        if "urn:antiphon:" not in (folder / name).read_text(encoding="utf-8", errors="replace"):
            raise InvalidSetting(f"{folder} holds {name}, which is no schema of Antiphon: name a folder of its own")
