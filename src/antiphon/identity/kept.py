"""Which of the credentials that lie here a process takes: whose name, where it was given none, and which instance.

A publisher is whoever logged in last. A node that was given no instance's name takes one that it has been before and
that no other process is now, so that a restart needs no new join token; the operating system's lock on a file beside
the credential says which are taken, and lets go of those whose process was killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from antiphon.bus.home import default_data_dir
from antiphon.errors import InvalidName, InvalidSetting, SecretsUnusable
from antiphon.identity import credential as files
from antiphon.identity.credential import Credential
from antiphon.identity.private import read_private, replace_private, try_lock
from antiphon.messages.base import Kind
from antiphon.subjects import token

CHOSEN: Final = "chosen"
"""The name of whoever logged in last, in the folder of credentials; no credential ends so."""


@dataclass
class Claim:
    """An instance that is this process's own until it is released or the process ends."""

    credential: Credential
    handle: int | None

    async def release(self) -> None:
        """Let another process be it."""
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None


def choose(data: Path, name: str) -> None:
    """Note who logged in last."""
    replace_private(data / files.FOLDER / CHOSEN, token(name) + "\n")


def chosen(data: Path | None) -> str | None:
    """Return who logged in last, None where nobody has or his credential is gone."""
    home = data or default_data_dir()
    try:
        name = token(read_private(home / files.FOLDER / CHOSEN).strip())
    except (FileNotFoundError, InvalidName):
        return None
    return name if files.path_of(home, name).is_file() else None


def credentials_of(data: Path | None, name: str, *, is_joining: bool = False) -> Iterator[Path]:
    """Yield a node's credentials of all its instances here, those that hold something to log in with.

    With a join token at hand also one that holds a key alone: that instance has asked, and its answer was lost.
    """
    folder = (data or default_data_dir()) / files.FOLDER
    for path in sorted(folder.glob(f"{token(name)}.*.json")):
        with contextlib.suppress(SecretsUnusable):  # another one may be good; this one is told of when it is asked for
            found = files.read(path)
            if found.name == name and found.kind is Kind.NODE and (found.has_token or is_joining):
                yield path


def claim(path: Path) -> Claim | None:
    """Return a node's credential as this process's own, None where another process has it."""
    found = files.read(path)
    handle = os.open(path.with_name(f"{path.name}.use"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if try_lock(handle):
        return Claim(found, handle)
    os.close(handle)
    return None


def claim_own(data: Path | None, name: str, instance: str) -> Claim | None:
    """Return the credential that an instance has just made, or was told to take, as this process's own."""
    path = files.path_of(data or default_data_dir(), name, instance)
    return claim(path) if path.is_file() else None


def free_instance(data: Path | None, name: str, file: Path | None = None, *, is_joining: bool = False) -> Claim | None:
    """Return an instance of a node that this process may be: that of the given file, or one that was here before.

    Raises `InvalidSetting` where another process has the given file.
    """
    if file is not None:
        if files.read(file).name != name:
            return None  # whoever connects with it is told
        found = claim(file)
        if found is None:
            raise InvalidSetting(f"another process uses {file}: each instance has a credential of its own")
        return found
    paths = credentials_of(data, name, is_joining=is_joining)
    return next((found for path in paths if (found := claim(path)) is not None), None)
